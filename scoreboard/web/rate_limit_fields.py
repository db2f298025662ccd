"""`RateLimit-Policy` and `RateLimit` of answers, as structured fields (draft-ietf-httpapi-ratelimit-headers). Pure.

The name of a policy is the `layer` of a 429 answer. What is exact:

- a 429: nothing is left, and `t` is the same as Retry-After;
- a recorded action: `r` is what Redis counted when it admitted the action, on all nodes. There is no `t`: in a sliding
  window each place comes back by itself.

Other answers to an action have the policy alone: a refused one does not know the count, and while Redis is away
PostgreSQL decides without counting what is left. Log-ins have the policy alone too: the count of an account is no
stranger's business.
"""

from scoreboard.domain.errors import LimitLayer, Refusal

PREPARED_ANSWERS = 256  # of a recorded action, by what is left; a larger limit's are formatted


def policy(layer: LimitLayer, quota: int, seconds: int) -> bytes:
    """The line that says: so many in any so many seconds. No line for a quota of 0, which is no limit."""
    return b'ratelimit-policy: "%b";q=%d;w=%d\r\n' % (layer.encode(), quota, seconds) if quota else b""


def used_up(refusal: Refusal) -> bytes:
    """The line of a 429 answer; b"" for any other refusal."""
    if refusal.layer is None or refusal.retry_after is None:
        return b""
    return b'ratelimit: "%b";r=0;t=%d\r\n' % (refusal.layer.encode(), refusal.retry_after)


class UserFields:
    """Both lines for answers to actions, prepared. `per_minute`: actions of a user; 0: no limit, and no lines."""

    __slots__ = ("_prepared", "policy")

    def __init__(self, per_minute: int) -> None:
        self.policy = policy(LimitLayer.USER, per_minute, 60)
        self._prepared = tuple(self._both(left) for left in range(min(per_minute, PREPARED_ANSWERS)))

    def recorded(self, left: int | None) -> bytes:
        """The lines for a recorded action, after which so many are left; None: not known."""
        if left is None or not self.policy:
            return self.policy
        return self._prepared[left] if left < len(self._prepared) else self._both(left)

    def _both(self, left: int) -> bytes:
        return b'%bratelimit: "%b";r=%d\r\n' % (self.policy, LimitLayer.USER.encode(), left)
