"""A load of posters that writes down every request and answer, and a check of that record against the action log.

"200" must be there exactly once, "unknown" (a time-out, a reset, a 5xx) at most once, a refusal never. Times are
Trio's. What was told by which node and when is what `reads` and `ranks` judge by.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random

import httpx
import msgspec
import trio

from scoreboard.drivers.stores import Stores
from tests.e2e.server_processes import Client, ServerProcess

UNKNOWN = 0  # no answer
RETRIES = 8  # of an action whose answer is unknown, as a good client does
RETRY_SECONDS = (0.2, 0.6)  # between two of them, drawn

AfterAnswer = Callable[[Client, int], Awaitable[None]]  # the client, and the number of the node that acknowledged


@dataclass(slots=True)
class Action:
    """One action, however often it was sent."""

    user: str
    sent: float  # for the first time
    points: int = 0  # as answered, or as in the log
    acknowledged: float = inf  # when the first 200 or 409 was there
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One 200 or 409."""

    user: str
    node: int
    first: float  # when the action was sent for the first time
    sent: float
    answered: float
    score: int
    rank: int | None
    status: int = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """Any answer, for figures."""

    user: str
    status: int
    sent: float
    answered: float


@dataclass
class Ledger:
    """What was sent and what was told. `base`: the totals before the load, of everybody."""

    base: dict[str, int] = field(default_factory=dict)
    known_before: set[str] = field(default_factory=set)  # action ids that the log had already
    actions: dict[str, Action] = field(default_factory=dict)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    # users whose rows somebody else took away, and from when on
    excused: dict[str, float] = field(default_factory=dict)
    # when a restore began and ended: what was acknowledged before its end may be lost
    went_back: tuple[float, float] | None = None

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.answers)

    @property
    def nulls(self) -> int:
        return sum(told.rank is None for told in self.acknowledged)

    def excuse(self, *users: str) -> None:
        """From now on their totals may fall, and they may be missing."""
        for user in users:
            self.excused.setdefault(user, trio.current_time())

    def is_excused(self, user: str, at: float) -> bool:
        return at >= self.excused.get(user, inf)


async def begin(stores: Stores) -> Ledger:
    """A ledger of a database that may have scores already."""
    rows = await stores.fetch("SELECT user_id, total_score FROM scores")
    known = await stores.fetch("SELECT action_id FROM action_logs")
    return Ledger({str(row["user_id"]): row["total_score"] for row in rows}, {row["action_id"] for row in known})


async def act_for_ever(
    clients: Sequence[Client],
    nodes: Sequence[ServerProcess],
    ledger: Ledger,
    *,
    pause: float,
    until: trio.Event,
    seed: int = 1,
    after: AfterAnswer | None = None,
) -> None:
    """Every client acts until the event is set, on a node of chance. Returns when each has brought its last action to
    an end."""
    random = Random(seed)

    async def one(client: Client) -> None:
        while not until.is_set():
            await act(client, nodes, ledger, random, after=after)
            with trio.move_on_after(random.uniform(0, 2 * pause)):
                await until.wait()

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(one, client)


async def act(
    client: Client,
    nodes: Sequence[ServerProcess],
    ledger: Ledger,
    random: Random,
    *,
    after: AfterAnswer | None = None,
    retries: int = RETRIES,
) -> Action:
    """One action, sent again with the same bytes, to a node of chance, until somebody tells what became of it."""
    body = client.body()
    action = Action(client.user, trio.current_time())
    ledger.actions[msgspec.json.decode(body)["actionId"]] = action
    for _ in range(retries):
        node = random.randrange(len(nodes))
        sent = trio.current_time()
        try:
            answer = await client.act(body, base=nodes[node].url)
            status = answer.status_code
        except httpx.HTTPError:
            status = UNKNOWN
        answered = trio.current_time()
        ledger.answers.append(Answer(client.user, status, sent, answered))
        if status in {200, 409}:
            data = answer.json()["data"]
            action.points, action.acknowledged = data["pointsAwarded"], answered
            ledger.acknowledged.append(
                Acknowledged(client.user, node, action.sent, sent, answered, data["newScore"], data["newRank"], status)
            )
            if after is not None:
                await after(client, node)
            return action
        if 0 < status < 500:
            action.is_refused = True
            return action
        await trio.sleep(random.uniform(*RETRY_SECONDS))
    return action


# ---- afterwards ------------------------------------------------------------------------------------------------------


async def wrong_in_log(ledger: Ledger, stores: Stores) -> list[str]:
    """What the action log has too much, too little or otherwise; fills in the points of actions whose answer was never
    had."""
    rows = await stores.fetch("SELECT action_id, points_awarded FROM action_logs")
    stored = Counter(row["action_id"] for row in rows)
    points = {row["action_id"]: row["points_awarded"] for row in rows if row["action_id"] not in ledger.known_before}
    wrong = [f"recorded {count} times: {action}" for action, count in stored.items() if count > 1]
    for name, action in ledger.actions.items():
        is_excused = action.user in ledger.excused or (
            ledger.went_back is not None and action.sent < ledger.went_back[1]
        )
        if name in points:
            if action.is_refused:
                wrong.append(f"refused and recorded all the same: {name} of {action.user}")
            elif action.acknowledged < inf and action.points != points[name]:
                wrong.append(f"{name} gave {points[name]} and was told to give {action.points}")
            action.points = points[name]
        elif action.acknowledged < inf and not is_excused:
            wrong.append(f"acknowledged and lost: {name} of {action.user}")
        elif action.acknowledged == inf:
            action.is_refused = True  # it was not acknowledged, and it is not in the log
    wrong += [f"recorded and never sent: {name}" for name in points.keys() - ledger.actions.keys()]
    return wrong


class Totals:
    """Between which bounds each user's total was at any time. Made when the load is over and the log has been read."""

    def __init__(self, ledger: Ledger, lost: frozenset[str] = frozenset()) -> None:
        """`lost`: ids of actions that a restore took back; they count only upwards, and until its end."""
        self.ledger = ledger
        raised: dict[str, list[tuple[float, int]]] = defaultdict(list)
        surely: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for name, action in ledger.actions.items():
            if not action.is_refused:
                raised[action.user].append((action.sent, action.points))
                if action.acknowledged < inf and name not in lost:
                    surely[action.user].append((action.acknowledged, action.points))
        self._upper = {user: _steps(changes) for user, changes in raised.items()}
        self._lower = {user: _steps(changes) for user, changes in surely.items()}
        self.users = sorted({*ledger.base, *raised})

    def lower(self, user: str, at: float, until: float) -> int:
        """At least so much was acknowledged by then; 0 when the user's rows may be gone `until` then."""
        return (
            0 if self.ledger.is_excused(user, until) else self.ledger.base.get(user, 0) + _at(self._lower.get(user), at)
        )

    def upper(self, user: str, at: float) -> int:
        """At most so much was submitted by then."""
        return self.ledger.base.get(user, 0) + _at(self._upper.get(user), at)


Steps = tuple[list[float], list[int]]


def _steps(changes: list[tuple[float, int]]) -> Steps:
    times, totals = [], []
    total = 0
    for at, points in sorted(changes):
        total += points
        times.append(at)
        totals.append(total)
    return times, totals


def _at(steps: Steps | None, at: float) -> int:
    if steps is None:
        return 0
    place = bisect_right(steps[0], at)
    return steps[1][place - 1] if place else 0
