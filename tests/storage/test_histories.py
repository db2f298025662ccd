"""After any history both stores have one order and one total for each user."""

import trio
from hypothesis import HealthCheck, given, settings

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.storage.redis.limits import UserLimits
from scoreboard.workers.projector import Projector
from tests.storage.histories import Players, Step, histories, played
from tests.storage.seeds import NAMES, order_in_postgres, order_in_redis

QUIET = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


async def agree(stores: Stores, players: Players) -> None:
    """The order, each total, the log, and the points in the outcomes agree."""
    board = await order_in_redis(stores)
    assert board == await order_in_postgres(stores)
    totals = {user: total for user, total in board if total}
    expected = {str(user): players.awarded[user] - players.taken_back[user] for user in players.users}
    assert totals == {user: total for user, total in expected.items() if total}
    logged = await stores.fetch("SELECT user_id, sum(points_awarded) AS points FROM action_logs GROUP BY user_id")
    assert {row["user_id"]: row["points"] for row in logged} == {
        user: points for user, points in players.awarded.items() if points
    }


@given(histories())
@settings(max_examples=30, deadline=None, suppress_health_check=QUIET)
async def test_lost_late_and_repeated_board_calls_and_corrections_leave_one_order(
    database_url: str, redis_url: str, history: list[Step]
) -> None:
    """Two committers and a moderator close their own gaps: `ORDER BY total_score DESC, reached` in both stores, nothing
    missing."""
    with trio.fail_after(30):
        async with open_stores(database_url, redis_url) as stores, played(stores, history) as players:
            await players.close_gaps()
            await agree(stores, players)
            for commit in players.commits:
                assert (
                    int(await stores.command("HGET", NAMES.applied, commit.writer.writer_id))
                    == commit.writer.sequence - 1
                )


@given(histories(emptied=True))
@settings(max_examples=20, deadline=None, suppress_health_check=QUIET)
async def test_an_emptied_redis_is_rebuilt_to_the_same_order(
    database_url: str, redis_url: str, history: list[Step]
) -> None:
    """Redis may lose everything at any time: after one comparison of the projector both stores agree, whatever still
    arrives."""
    with trio.fail_after(30):
        async with open_stores(database_url, redis_url) as stores, played(stores, history) as players:
            limits = UserLimits(stores.redis_direct, per_minute=0, cooldowns=False)
            projector = Projector(stores, LEADERBOARD, "a", limits, lambda *_: None)
            await projector.check_once()
            await players.close_gaps()
            for call in players.called:  # all of it once more, onto the new board
                await players.arrive(call)
            await stores.execute("UPDATE commits SET committed_at = committed_at - interval '3 seconds'")
            await projector.check_once()
            projector.close()
            await agree(stores, players)
