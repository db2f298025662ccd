"""How often an address may try to log in or register, and how often an account may be guessed at. Pure: the time is an
argument.

`begin` counts a try under the client's networks. `Attempt.count_account` counts it under the account that was found,
and as a failure until the password turns out to be right (`succeed`). A refused try counts nowhere: all buckets are
asked first, and what was counted is given back.

1. An address: `per_address` tries of any kind a minute, since a whole school may have one. IPv6 by /64, by /56 twice as
   many, by /48 four times, since one household has a /56 and one rented server a /48.
2. An account: `per_account` tries a minute from one network, right or wrong, rising in the same way, an IPv4 /24 four
   times. So nobody locks the owner out from elsewhere.
3. An account from everywhere: EVERYWHERE_TIMES as many failures, which bounds a botnet's guesses. 2 and 3 count tries
   by the user name and tries by the e-mail address apart. One count would tell whose a guessed address is: 429, where
   an address that nobody has is 401.
4. A browser that has logged in to that account before (device cookie) has `per_account` failures of its own, and all
   browsers of an account have twice as many tries. They are not held up by 1 to 3: neither strangers nor neighbours
   behind one address lock the owner out. For any other account such a browser counts as its address. Here one count
   serves both names: whoever has logged in knows them.

Accounts are known by the id that PostgreSQL found, never by a folding of the typed name: its folding is not ours. A
name that no account has is counted under an id made from it, so that the limits do not tell which names there are.
"""

from types import TracebackType
from typing import NamedTuple
from uuid import UUID

from scoreboard.domain.networks import IPV6_PREFIXES, networks_of
from scoreboard.domain.sliding_window import SlidingWindow

RISING_TIMES = (1, 2, 4)  # times the limit, for the IPv6 prefixes in their order
IPV4_TIMES = (1, 4)  # the same for an address and its /24: of an account alone, as strangers share a /24
BROWSERS_TIMES = 2  # times the limit: tries of one account by browsers that are known
# times the limit: failures of one account from all networks, 50 a minute by default, and as many by its address
EVERYWHERE_TIMES = 5

assert len(RISING_TIMES) == len(IPV6_PREFIXES)

_Bucket = tuple[str, int]  # key, times the limit


class _Accounts(NamedTuple):
    """Windows of `per_account`."""

    tries: SlidingWindow
    failures: SlidingWindow


class LoginLimits:
    """`per_account`, `per_address`: as above, None: the same as of an account; 0 for no limit."""

    __slots__ = ("_accounts", "_tries")

    def __init__(self, per_account: int, per_address: int | None = None) -> None:
        self._tries = SlidingWindow(per_account if per_address is None else per_address)
        self._accounts = _Accounts(SlidingWindow(per_account), SlidingWindow(per_account))

    def begin(self, address: str, now: float, *, has_device: bool = False) -> "Attempt | int":
        """An attempt from that address ("": from this process, never refused for where it comes from); else seconds
        until the next.

        `has_device`: this browser has logged in to some account before. Then nothing is counted before the account is
        found, but by then `count_browser` or `count_address`.
        """
        networks = networks_of(address) if address else ()
        is_ipv6 = len(networks) == len(RISING_TIMES)
        buckets = list(zip(networks, RISING_TIMES if is_ipv6 else IPV4_TIMES, strict=False))
        attempt = Attempt(self._tries, self._accounts, buckets, buckets if is_ipv6 else buckets[:1])
        wait = 0 if has_device else attempt.count_address(now)
        return wait or attempt


class Attempt:
    """One log-in or registration. As a context manager: what raises was no attempt, and nothing of it stays counted."""

    __slots__ = ("_accounts", "_address", "_counted", "_tries", "networks")

    def __init__(
        self, tries: SlidingWindow, accounts: _Accounts, networks: list[_Bucket], address: list[_Bucket]
    ) -> None:
        self._tries, self._accounts = tries, accounts
        self.networks, self._address = networks, address
        self._counted: list[tuple[SlidingWindow, str, float]] = []

    def _count(self, window: SlidingWindow, buckets: list[_Bucket], now: float) -> int:
        """Counts one in each bucket: 0. Or in none: the seconds until all have room."""
        wait = max((window.wait(key, now, times) for key, times in buckets), default=0)
        if not wait:
            for key, _ in buckets:
                window.count(key, now)
                self._counted.append((window, key, now))
        return wait

    def count_address(self, now: float) -> int:
        """Counts the try under its address: 0. Refused: the seconds until the next, and nothing of it stays counted."""
        wait = self._count(self._tries, self._address, now)
        if wait:
            self.withdraw()
        return wait

    def count_browser(self, user: UUID, now: float) -> int:
        """The same under the account, for a browser that has logged in to it before."""
        wait = self._count(self._accounts.tries, [(f"browsers of {user}", BROWSERS_TIMES)], now)
        if wait:
            self.withdraw()
        return wait

    def count_account(self, user: UUID, device: str | None, now: float, *, by_address: bool = False) -> int:
        """Counts it as a try and a failure of that account: 0. Refused: the seconds until the next, and nothing of it
        stays counted.

        `device` names a browser that has logged in to this account before. `by_address`: the account was named by its
        e-mail address.
        """
        account = f"address of {user}" if by_address else str(user)
        if device is not None:
            wait = self._count(self._accounts.failures, [(f"{user} browser {device}", 1)], now)
        else:
            wait = self._count(
                self._accounts.tries, [(f"{account} {network}", times) for network, times in self.networks], now
            )
            wait = wait or self._count(self._accounts.failures, [(f"{account} everywhere", EVERYWHERE_TIMES)], now)
        if wait:
            self.withdraw()
        return wait

    def succeed(self) -> None:
        """The password was right: no failure. The tries of the address and of the account stay counted."""
        self._give_back(self._accounts.failures)

    def withdraw(self) -> None:
        """Nothing was tried: nothing stays counted. May be called again."""
        self._give_back()

    def _give_back(self, only: SlidingWindow | None = None) -> None:
        kept = []
        for window, key, counted_at in self._counted:
            if only is None or window is only:
                window.uncount(key, counted_at)
            else:
                kept.append((window, key, counted_at))
        self._counted = kept

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.withdraw()
