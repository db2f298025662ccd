"""Two committers on the real stores: what faults and crowds may do to a batch, and what they may not do to an
action."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest
import trio
import trio.testing

from scoreboard.domain.boards import LEADERBOARD, Board, BoardVersion
from scoreboard.domain.errors import Refusal
from scoreboard.domain.outcomes import Duplicate, Outcome, Recorded, SubmittedAction
from scoreboard.drivers.postgres_connector import PostgresConnector
from scoreboard.drivers.stores import Stores, open_stores
from scoreboard.operations import action_queue
from scoreboard.operations.action_queue import DATABASE_UNAVAILABLE, Queue
from scoreboard.runtime.breaker import Breaker
from scoreboard.storage.board_writer import BoardWriter
from scoreboard.storage.commit import Commit
from scoreboard.storage.redis.limits import UserLimits
from scoreboard.storage.redis.projection import Projection
from scoreboard.storage.writer import Writer
from scoreboard.workers import committer as module
from scoreboard.workers.committer import commit_batches, expire_task
from tests.operations.outcomes import submit
from tests.storage.proxy import Fault, Proxy, proxy_before
from tests.storage.seeds import agreed, claim, make_users, open_board


class RunningCommitters:
    """Two committers of a node, PostgreSQL behind a proxy, and a board that is there."""

    def __init__(self, stores: Stores, postgres: Proxy, nursery: trio.Nursery) -> None:
        self.stores, self.postgres, self.nursery, self.queue = stores, postgres, nursery, Queue()
        self.commits: list[Commit] = []
        self.versions: list[BoardVersion] = []

    def on_board_changed(self, _board: Board, version: BoardVersion) -> None:
        self.versions.append(version)

    async def start(self, committers: int = 2) -> None:
        projection, breaker = Projection(self.stores.redis_direct, LEADERBOARD, lambda: None), Breaker("redis")
        for _ in range(committers):
            limits = UserLimits(self.stores.redis_direct, per_minute=0, cooldowns=False)
            agreement = agreed()
            writer = Writer(PostgresConnector(self.postgres.url), limits, [agreement])
            commit = Commit(writer, limits, [BoardWriter(projection, agreement)], breaker)
            self.commits.append(commit)
            await self.nursery.start(commit_batches, self.queue, commit, self.on_board_changed)
        self.nursery.start_soon(expire_task, self.queue)

    async def connected(self) -> None:
        while not self.queue.available:
            await trio.sleep(0.01)

    async def submit_all(self, claims: Sequence[SubmittedAction]) -> list[Outcome]:
        outcomes: list[Any] = [None] * len(claims)

        async def one(place: int, each: SubmittedAction) -> None:
            outcomes[place] = await submit(self.queue, each)

        async with trio.open_nursery() as nursery:
            for place, each in enumerate(claims):
                nursery.start_soon(one, place, each)
        return outcomes


@pytest.fixture
async def running(database_url: str, redis_url: str, nursery: trio.Nursery) -> AsyncIterator[RunningCommitters]:
    async with (
        proxy_before(database_url) as proxy,
        open_stores(database_url, redis_url) as stores,
        trio.open_nursery() as tasks,
    ):
        await open_board(stores)
        yield RunningCommitters(stores, proxy, tasks)
        tasks.cancel_scope.cancel()


def kinds(outcomes: Sequence[Outcome]) -> dict[str, int]:
    names = [outcome.code if isinstance(outcome, Refusal) else type(outcome).__name__ for outcome in outcomes]
    return {name: names.count(name) for name in set(names)}


async def test_400_submissions_of_ten_ids_count_ten_times(running: RunningCommitters) -> None:
    """Over two committers, equal ones in the same batch and in others: ten are recorded, 390 are duplicates with that
    outcome."""
    (user,) = await make_users(running.stores, 1)
    await running.start()
    with trio.fail_after(30):
        outcomes = await running.submit_all([claim(user, action_id=str(number % 10)) for number in range(400)])
    assert kinds(outcomes) == {"Recorded": 10, "Duplicate": 390}
    assert all(outcome.original is not None for outcome in outcomes if isinstance(outcome, Duplicate))
    assert await running.stores.fetchval("SELECT total_score FROM scores") == 100
    assert sorted(outcome.new for outcome in outcomes if isinstance(outcome, Recorded)) == list(range(10, 101, 10))


async def test_what_queues_while_a_batch_is_under_way_is_one_batch(running: RunningCommitters) -> None:
    """No delay is added and no action goes alone that could go along."""
    users = await make_users(running.stores, 50)
    await running.start()
    with trio.fail_after(30):
        await running.submit_all([claim(user) for user in users])
    assert await running.stores.fetchval("SELECT count(*) FROM commits") <= 4
    assert max(running.versions).version == len(running.versions)


async def test_one_poisoned_action_among_200_is_refused_alone(running: RunningCommitters) -> None:
    """Its neighbours count."""
    users = await make_users(running.stores, 20)
    claims = [claim(users[number % 20]) for number in range(200)]
    claims[123] = claim(users[0], metadata='{"n": "\\u0000"}')
    await running.start()
    with trio.fail_after(30):
        outcomes = await running.submit_all(claims)
    assert kinds(outcomes) == {"Recorded": 199, "INVALID_ACTION": 1}
    assert isinstance(outcomes[123], Refusal)


async def test_who_hangs_up_cancels_nothing(running: RunningCommitters) -> None:
    """A queued action is recorded also when its client has left; the others of its batch are not affected."""
    users = await make_users(running.stores, 20)
    await running.start()

    async def leave(user: UUID) -> None:
        with trio.move_on_after(0):
            await submit(running.queue, claim(user))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for user in users[:10]:
                nursery.start_soon(leave, user)
        outcomes = await running.submit_all([claim(user) for user in users[10:]])
        assert kinds(outcomes) == {"Recorded": 10}
        while await running.stores.fetchval("SELECT count(*) FROM scores") < 20:
            await trio.sleep(0.01)


async def test_postgresql_away_is_refused_at_once_and_back_by_itself(
    running: RunningCommitters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer takes a connect time-out once it is known; no 200 meanwhile; the first after it is back needs no
    restart."""
    monkeypatch.setattr(module, "RECONNECT_INTERVAL_SECONDS", 0.02)
    (user,) = await make_users(running.stores, 1)
    await running.start()
    with trio.fail_after(30):
        assert kinds(await running.submit_all([claim(user)])) == {"Recorded": 1}
        running.postgres.refuse = True
        for commit in running.commits:
            assert commit.writer.conn is not None
            commit.writer.conn.terminate()
        while running.queue.available:
            assert kinds(await running.submit_all([claim(user) for _ in range(3)])) == {"SERVICE_UNAVAILABLE": 3}
        assert await submit(running.queue, claim(user)) is DATABASE_UNAVAILABLE
        running.postgres.refuse = False
        await running.connected()
        assert kinds(await running.submit_all([claim(user)])) == {"Recorded": 1}
    assert await running.stores.fetchval("SELECT total_score FROM scores") == 20


async def test_a_start_without_postgresql_waits_for_it(
    running: RunningCommitters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The committers are started all the same, refuse, and work as soon as there is a database."""
    monkeypatch.setattr(module, "RECONNECT_INTERVAL_SECONDS", 0.02)
    (user,) = await make_users(running.stores, 1)
    running.postgres.refuse = True
    with trio.fail_after(30):
        await running.start()
        assert await submit(running.queue, claim(user)) is DATABASE_UNAVAILABLE
        running.postgres.refuse = False
        await running.connected()
        assert kinds(await running.submit_all([claim(user)])) == {"Recorded": 1}


async def test_swallowed_answers_end_at_the_actions_deadline(
    running: RunningCommitters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waiting action is resolved at its deadline, and a retry of the same ids is right once answers come again."""
    monkeypatch.setattr(action_queue, "ACTION_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(module, "RECONNECT_INTERVAL_SECONDS", 0.02)
    monkeypatch.setattr("scoreboard.storage.writer.STATEMENT_SECONDS", 0.4)
    monkeypatch.setattr("scoreboard.drivers.postgres_connector.CONNECT_SECONDS", 0.4)
    users = await make_users(running.stores, 5)
    await running.start()
    with trio.fail_after(30):
        await running.submit_all([claim(user) for user in users])  # prepares the statements of at least one connection
        running.postgres.fault = Fault.SWALLOW
        claims = [claim(user) for user in users]
        assert kinds(await running.submit_all(claims)) == {"SERVICE_UNAVAILABLE": 5}
        running.postgres.fault = None
        monkeypatch.setattr(action_queue, "ACTION_TIMEOUT_SECONDS", 3.0)
        outcomes = await running.submit_all(claims)
        while any(isinstance(outcome, Refusal) for outcome in outcomes):
            await trio.sleep(0.02)
            outcomes = await running.submit_all(claims)
    assert all(isinstance(outcome, Recorded | Duplicate) for outcome in outcomes)
    assert {row[0] for row in await running.stores.fetch("SELECT total_score FROM scores")} == {20}


async def test_cancelling_the_committers_ends_their_connections(running: RunningCommitters) -> None:
    """A shutdown, in the middle of a batch too, leaves no connection behind and nobody without an answer."""
    users = await make_users(running.stores, 5)
    with trio.fail_after(10):
        async with trio.open_nursery() as waiting, trio.open_nursery() as running.nursery:
            await running.start()
            waiting.start_soon(running.submit_all, [claim(user) for user in users])
            await trio.testing.wait_all_tasks_blocked()
            running.nursery.cancel_scope.cancel()
    assert running.queue.available == 0
    assert not any(commit.writer.is_connected for commit in running.commits)
