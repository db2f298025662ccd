"""Demo players: 25 accounts that submit actions on a node with embedded stores.

`load` creates the accounts. `play` submits real signed actions through the public API of the running server, with the
Python client: a few for each player when the board is empty, so that a first visitor sees a board, and endlessly with
`--demo`. Log-ins do not use the API, since it does not allow 24 at once from one address. A failure is logged in one
line and does not end the node. Tested by tests/e2e/test_operating.py.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog
import trio

from scoreboard.client import ClientError, Credentials, Refused, Session
from scoreboard.domain.errors import Refusal
from scoreboard.domain.scoring import Rule, Rules
from scoreboard.operations.accounts import Accounts
from scoreboard.runtime.supervise import flatten_exceptions

PASSWORD = "scoreboard-demo"  # noqa: S105 – printed at every start; demo accounts exist on embedded stores only
LOGIN = "demo"
HANDLES = (  # 25; the first is the visitor's own
    *(
        LOGIN,
        "TopPlayer",
        "ProGamer",
        "NightOwl",
        "PixelPilot",
        "QuizWhiz",
        "LuckyLlama",
        "TurboTurtle",
        "BraveBadger",
        "MathMage",
    ),
    *(
        "SwiftSparrow",
        "CodeCobra",
        "HappyHippo",
        "SilentShark",
        "RocketRaccoon",
        "WiseWalrus",
        "CosmicCat",
        "JollyJaguar",
    ),
    *("MightyMole", "PuzzlePanda", "ZenZebra", "EagerEagle", "FrostyFox", "GentleGiant", "IronIguana"),
)
OPENING_ACTIONS = (2, 5)  # least and most, of each player when the board is empty
MAX_PLAYERS = 12  # players with `--demo`; the limits allow ten actions a minute for each
PAUSE_SECONDS = (3.0, 12.0)  # least and most, between two actions of one player: below the limit
EMAIL = "{name}@players.invalid"  # RFC 2606: this domain can't exist

chance = Random()  # noqa: S311 – chooses actions and pauses, nothing secret
log = structlog.get_logger()


@contextmanager
def failures_logged() -> Iterator[None]:
    """Logs an exception of the block in one line, and suppresses it."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001 – a demo may not end the node
        log.warning("demo_failed", error=_in_one_line(exc))


def _in_one_line(exc: BaseException) -> str:
    """The first exception, of several, in one line."""
    first = next(flatten_exceptions(exc))
    return f"{type(first).__name__}: {' '.join(str(first).split())}"


def warn_beyond_loopback(host: str, public_url: str) -> None:
    """Warns when other machines can reach the demo accounts, whose password is public."""
    if not _is_loopback(host) or (public_url and not _is_loopback(urlsplit(public_url).hostname or "")):
        log.warning(
            "demo_accounts_exposed",
            host=public_url or host,
            why="whoever reaches this address can log in as the demo players; begin a new data folder with "
            "SCOREBOARD_EMBEDDED__DEMO_ACCOUNTS=false, or listen on 127.0.0.1",
        )


def _is_loopback(host: str) -> bool:
    """Whether a name or address can only mean this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def load(accounts: Accounts, known: Collection[str]) -> None:
    """Creates the demo accounts that are not in `known`. Raises StorageUnavailable."""
    async with trio.open_nursery() as nursery:
        for name in HANDLES:
            if name not in known:
                nursery.start_soon(accounts.create, name, EMAIL.format(name=name.lower()), PASSWORD, None)


async def play(base_url: str, accounts: Accounts, rules: Rules, *, opening: bool, for_ever: bool) -> None:
    """Logs players in and submits their actions. Returns after the opening actions unless `for_ever`. A player's
    failure is logged and ends that player only.

    Proxies of the environment are not used, since the server is this process.
    """
    players = HANDLES[1:] if opening else HANDLES[1 : MAX_PLAYERS + 1]
    rules = {name: rule for name, rule in rules.items() if not rule.is_checked} or rules  # without proofs
    async with (
        httpx.AsyncClient(base_url=base_url, timeout=10, trust_env=False) as http,
        trio.open_nursery() as nursery,
    ):
        for number, name in enumerate(players):
            stays = for_ever and number < MAX_PLAYERS
            actions = chance.randint(*OPENING_ACTIONS) if opening else 0
            if stays or actions:
                nursery.start_soon(_one, http, accounts, rules, name, actions, stays)


async def _one(http: httpx.AsyncClient, accounts: Accounts, rules: Rules, name: str, opening: int, stays: bool) -> None:
    with failures_logged():
        await _play_one(http, accounts, rules, name, opening, stays)


async def _play_one(
    http: httpx.AsyncClient, accounts: Accounts, rules: Rules, name: str, opening: int, stays: bool
) -> None:
    logged_in = await accounts.log_in(name, PASSWORD)
    if isinstance(logged_in, Refusal):
        return  # the password was changed
    session = Session(http, msgspec.convert(logged_in, Credentials, from_attributes=True))
    ready_at: dict[str, float] = {}  # action type → when its cooldown ends, Trio's clock
    for _ in range(opening):
        await _act(session, _choose(rules, ready_at))
    while stays:
        await trio.sleep(chance.uniform(*PAUSE_SECONDS))
        stays = await _act(session, _choose(rules, ready_at))


def _choose(rules: Rules, ready_at: dict[str, float]) -> tuple[str, Rule]:
    """A random action that is not cooling down. If all are, any action; the server will refuse it."""
    now = trio.current_time()
    ready = [name for name in rules if ready_at.get(name, 0.0) <= now] or list(rules)
    name = chance.choice(ready)
    ready_at[name] = now + rules[name].cooldown + 1
    return name, rules[name]


async def _act(session: Session, chosen: tuple[str, Rule]) -> bool:
    """Submits one action. False when the session has ended: the player was logged out, or the password was changed."""
    kind, rule = chosen
    try:
        await session.submit(kind, _metadata(rule))
    except Refused as exc:  # a limit, mostly
        return exc.status != httpx.codes.UNAUTHORIZED
    except ClientError as exc:
        log.info("demo_action_failed", error=str(exc))
    return True


def _metadata(rule: Rule) -> Mapping[str, Any]:
    """Plausible random metadata for an action of this rule."""
    metadata: dict[str, Any] = {}
    if rule.difficulty:
        metadata["difficulty"] = chance.choice(list(rule.difficulty))
    if rule.time:
        # Less than the pauses together: the anomaly rules flag whoever claims more time than has passed.
        longest = min(rule.time.maximum, rule.time.minimum + PAUSE_SECONDS[0])
        metadata["timeSpent"] = round(chance.uniform(rule.time.minimum, longest))
    return metadata
