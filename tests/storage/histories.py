"""Random histories of a board: actions over two committers, board calls that get lost, late or repeated, corrections,
an emptied Redis.

`histories` is a Hypothesis strategy, `played` acts one out on real stores. What must be true of both stores afterwards
is said by the tests.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import Enum, auto
from functools import partial
from typing import NamedTuple
from uuid import UUID

import trio
from hypothesis import strategies as st

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.ledger_rows import LedgerRow, ScoreEvent, SequenceRange
from scoreboard.domain.outcomes import Outcome, Recorded, SubmittedAction
from scoreboard.drivers.bridge import run_in_asyncio
from scoreboard.drivers.stores import Stores
from scoreboard.runtime.breaker import Breaker
from scoreboard.storage.board_writer import BoardWriter
from scoreboard.storage.commit import Commit
from scoreboard.storage.postgres import ledger
from scoreboard.storage.redis.limits import UserLimits
from scoreboard.storage.redis.projection import Applied, Projection
from scoreboard.storage.writer import Writer
from tests.storage.seeds import NobodyRefused, agreed, claim, connection, make_users, open_board

USERS, IDS, COMMITTERS = 5, 6, 2
LATEST = 10  # steps that a late board call is late at most


class Fate(Enum):
    """What becomes of a committer's board call."""

    THROUGH = auto()
    LOST = auto()  # never arrives
    UNANSWERED = auto()  # arrives, the answer is lost
    LATE = auto()  # the committer gives up on it, it arrives later


class Act(NamedTuple):
    """A batch a committer, both at once: (user, action id, points) each."""

    batches: tuple[list[tuple[int, int, int]], ...]
    fates: tuple[Fate, ...]


class Correct(NamedTuple):
    """A user's total falls to a part of it: what a moderator does. Its board call is late."""

    user: int
    percent: int
    late: int


class Repeat(NamedTuple):
    """A call that was made before is made again."""

    which: int


class Empty(NamedTuple):
    """Redis loses everything."""


Step = Act | Correct | Repeat | Empty

_actions = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, IDS - 1), st.integers(1, 3)), max_size=6)
_fates = st.sampled_from([Fate.THROUGH, *Fate])
_acts = st.builds(Act, st.tuples(*[_actions] * COMMITTERS), st.tuples(*[_fates] * COMMITTERS))
_corrections = st.builds(Correct, st.integers(0, USERS - 1), st.integers(0, 100), st.integers(0, LATEST))


def histories(*, emptied: bool = False) -> st.SearchStrategy[list[Step]]:
    """With `emptied`, Redis is lost at times; then somebody must rebuild the board in the end."""
    steps = st.one_of(
        _acts, _acts, _corrections, st.builds(Repeat, st.integers(0, 50)), *([st.builds(Empty)] if emptied else [])
    )
    return st.lists(steps, min_size=1, max_size=15)


class Call(NamedTuple):
    sequences: SequenceRange
    rows: Sequence[LedgerRow]
    told: Sequence[ScoreEvent]


class Unreliable(Projection):
    """One committer's, which does to its next board call what it is told to. All share what was called and what is
    late."""

    __slots__ = ("called", "fate", "late")

    def __init__(self, stores: Stores, called: list[Call], late: list[Call]) -> None:
        super().__init__(stores.redis, LEADERBOARD, lambda: None)
        self.called, self.late, self.fate = called, late, Fate.THROUGH

    async def apply_aio(
        self, sequences: SequenceRange, rows: Sequence[LedgerRow], told: Sequence[ScoreEvent]
    ) -> Applied | None:
        call = Call(sequences, rows, told)
        self.called.append(call)
        if self.fate is Fate.LATE:
            self.late.append(call)
        applied = await super().apply_aio(*call) if self.fate in {Fate.THROUGH, Fate.UNANSWERED} else None
        if self.fate is not Fate.THROUGH:
            raise StorageUnavailable("redis", "on purpose")
        return applied


class Players:
    """Two committers, a moderator, and their calls."""

    def __init__(self, stores: Stores, users: Sequence[UUID]) -> None:
        self.stores, self.users = stores, users
        self.called, self.late = list[Call](), list[Call]()
        self.projections = [Unreliable(stores, self.called, self.late) for _ in range(COMMITTERS)]
        self.agreement = agreed()
        self.commits = [
            Commit(
                Writer(stores, NobodyRefused(), [self.agreement]),
                UserLimits(stores.redis_direct, per_minute=0, cooldowns=False),
                [BoardWriter(projection, self.agreement)],
                Breaker("redis", interval=0),
            )
            for projection in self.projections
        ]
        self.awarded = dict.fromkeys(users, 0)
        self.taken_back = dict.fromkeys(users, 0)
        self.corrections = 0

    async def act(self, batches: Sequence[Sequence[tuple[int, int, int]]], fates: Sequence[Fate]) -> None:
        async with trio.open_nursery() as nursery:
            for place, (batch, fate) in enumerate(zip(batches, fates, strict=True)):
                claims = {
                    (who, what): claim(self.users[who], action_id=str(what), points=points)
                    for who, what, points in batch
                }
                if claims:
                    self.projections[place].fate = fate
                    nursery.start_soon(partial(self._commit, self.commits[place], list(claims.values())))

    async def _commit(self, commit: Commit, claims: list[SubmittedAction]) -> None:
        outcomes: list[Outcome] = (await run_in_asyncio(commit.run_aio, claims)).outcomes
        for outcome in outcomes:
            if isinstance(outcome, Recorded):
                self.awarded[outcome.user] += outcome.points

    async def correct(self, user: UUID, percent: int, late: int) -> None:
        sql = """WITH old AS (SELECT total_score FROM scores WHERE user_id = $1 FOR UPDATE),
                 new AS (UPDATE scores SET total_score = total_score * $2 / 100, version = version + 1
                         WHERE user_id = $1 RETURNING total_score),
                 noted AS (INSERT INTO commits (id, writer, turn, users)
                           SELECT nextval('commit_ids'), 1, $3, ARRAY[$1::uuid] FROM new)
                 SELECT old.total_score - new.total_score FROM old, new"""
        lost = await self.stores.fetchval(sql, user, percent, self.corrections + 1)
        if lost is None:
            return  # nothing to correct
        self.corrections += 1
        self.taken_back[user] += lost
        async with connection(self.stores) as conn:
            rows = await run_in_asyncio(ledger.current_rows_aio, conn, LEADERBOARD, {user: 0})
        self.late.insert(
            max(0, len(self.late) - late), Call(SequenceRange(1, self.corrections, self.corrections), rows, [])
        )

    async def arrive(self, call: Call) -> None:
        """A call of whoever, made by the first committer's node as if it came over the wire now."""
        await run_in_asyncio(Projection.apply_aio, self.projections[0], *call)

    async def play(self, history: Sequence[Step]) -> None:
        for number, step in enumerate(history):
            match step:
                case Act():
                    await self.act(step.batches, step.fates)
                case Correct():
                    await self.correct(self.users[step.user], step.percent, step.late)
                case Repeat():
                    if self.called:
                        await self.arrive(self.called[step.which % len(self.called)])
                case Empty():
                    await self.stores.command("FLUSHALL")
            if self.late and number % 3 == 2:
                await self.arrive(self.late.pop(0))

    async def close_gaps(self) -> None:
        """Everything late arrives, and each committer has one more batch that goes through."""
        for call in self.late:
            await self.arrive(call)
        for place in range(COMMITTERS):
            batches: list[list[tuple[int, int, int]]] = [[] for _ in range(COMMITTERS)]
            batches[place] = [(0, IDS + place, 1)]
            await self.act(batches, [Fate.THROUGH] * COMMITTERS)


@asynccontextmanager
async def played(stores: Stores, history: Sequence[Step]) -> AsyncIterator[Players]:
    """Acts the history out on a board of epoch 1 that is there, with users of its own. The block ends it with
    `close_gaps`."""
    await stores.command("FLUSHALL")
    await open_board(stores)
    await stores.execute("TRUNCATE users, commits CASCADE")
    players = Players(stores, await make_users(stores, USERS))
    try:
        await players.play(history)
        yield players
    finally:
        for commit in players.commits:
            commit.writer.close()
