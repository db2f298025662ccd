"""What answers tell of their limit: the policy and what is left, and that both are gone where the limit is off."""

from http import HTTPStatus
from pathlib import Path

import pytest

from scoreboard.domain.errors import Code, LimitLayer, Refusal, rate_limited
from scoreboard.web.rate_limit_fields import PREPARED_ANSWERS, UserFields, policy, used_up
from tests.e2e.server_processes import register
from tests.whole_node import whole_node


def test_a_policy_is_a_structured_field() -> None:
    """A name, a quota, a window in seconds; no line where there is no limit."""
    assert policy(LimitLayer.USER, 10, 60) == b'ratelimit-policy: "user";q=10;w=60\r\n'
    assert policy(LimitLayer.USER, 0, 60) == b""


def test_a_refusal_by_a_limit_says_when_to_try_again() -> None:
    """The same seconds as Retry-After; other refusals say nothing."""
    assert used_up(rate_limited(LimitLayer.IP, "Too many.", 7)) == b'ratelimit: "ip";r=0;t=7\r\n'
    assert used_up(Refusal(Code.SERVICE_UNAVAILABLE, "Later.", retry_after=1)) == b""


@pytest.mark.parametrize("left", [0, 1, PREPARED_ANSWERS - 1, PREPARED_ANSWERS, 999_999])
def test_what_is_left_is_told_for_any_limit(left: int) -> None:
    """Whether the line is prepared or not."""
    lines = UserFields(1_000_000).recorded(left)
    assert lines == b'ratelimit-policy: "user";q=1000000;w=60\r\nratelimit: "user";r=%d\r\n' % left
    assert UserFields(1_000_000).recorded(None) == b'ratelimit-policy: "user";q=1000000;w=60\r\n'
    assert UserFields(0).recorded(left) == b""


async def test_actions_count_down(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Exactly, whatever becomes of an action: a refused one takes a place too, a repeated one takes none."""
    async with whole_node(database_url, redis_url, tmp_path, limits__user_per_minute=4) as node:
        user = await register(node.http)
        body = user.body()
        first = await user.act(body)
        assert (first.headers["ratelimit-policy"], first.headers["ratelimit"]) == ('"user";q=4;w=60', '"user";r=3')
        again = await user.act(body)
        assert (again.status_code, again.headers["ratelimit-policy"]) == (HTTPStatus.CONFLICT, '"user";q=4;w=60')
        wrong = await user.act(user.body(timestamp="2020-01-01T00:00:00Z"))
        assert (wrong.status_code, "ratelimit" in wrong.headers) == (HTTPStatus.BAD_REQUEST, False)
        assert [(await user.act()).headers["ratelimit"] for _ in range(2)] == ['"user";r=1', '"user";r=0']
        refused = await user.act()
        assert refused.status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert refused.headers["ratelimit"] == f'"user";r=0;t={refused.headers["retry-after"]}'
        other = await register(node.http)
        assert (await other.act()).headers["ratelimit"] == '"user";r=3'


async def test_log_ins_and_addresses_tell_their_limits(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A log-in has its policy, right or wrong; a 429 of an address says that nothing is left."""
    settings = {"limits__login_per_minute": 3, "limits__ip_per_minute": 12}
    async with whole_node(database_url, redis_url, tmp_path, **settings) as node:
        user = await register(node.http)
        assert "ratelimit" not in (await user.act()).headers  # user_per_minute is 0 here
        body = {"username": str(user.session["username"]), "password": "a wrong password"}
        tries = [await node.http.post("/api/v1/auth/login", json=body) for _ in range(4)]
        assert [answer.status_code for answer in tries] == [401, 401, 401, 429]
        assert {answer.headers["ratelimit-policy"] for answer in tries} == {'"login";q=3;w=60'}
        assert tries[-1].headers["ratelimit"] == f'"login";r=0;t={tries[-1].headers["retry-after"]}'
        for _ in range(12):
            answer = await node.http.get("/api/v1/scores/leaderboard")
        assert answer.status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert answer.headers["ratelimit"] == f'"ip";r=0;t={answer.headers["retry-after"]}'


async def test_a_limit_that_is_off_refuses_nothing_and_is_told_nowhere(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """With 0 for each limit, more than its default gets through, and no answer has a policy."""
    async with whole_node(database_url, redis_url, tmp_path) as node:
        user = await register(node.http)
        wrong = {"username": str(user.session["username"]), "password": "a wrong password"}
        answers = [await user.act() for _ in range(12)]
        answers += [await user.act(user.body(actionType="daily_checkin", metadata=None)) for _ in range(2)]
        answers += [await node.http.post("/api/v1/auth/login", json=wrong) for _ in range(12)]
        for turn in range(22):
            body = {"avatarUrl": f"https://a.example/{turn}.png"}
            answers.append(await node.http.patch("/api/v1/users/me", json=body, headers=user.authorization))
        assert {answer.status_code for answer in answers} == {HTTPStatus.OK, HTTPStatus.UNAUTHORIZED}
        assert not [name for answer in answers for name in answer.headers if name.startswith("ratelimit")]
