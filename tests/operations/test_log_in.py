"""Log in: the checks, the limits, and bursts. On a real PostgreSQL."""

import threading
from uuid import UUID

import pytest
import trio

from scoreboard.domain.errors import Code, StorageUnavailable
from scoreboard.operations.hashing import MAX_HASHING, MAX_WAITING, RESERVED_FOR_KNOWN
from scoreboard.operations.log_in import INVALID_CREDENTIALS
from scoreboard.operations.login_admission import TOO_BUSY, Client
from scoreboard.operations.login_limits import EVERYWHERE_LIMIT_FACTOR
from scoreboard.operations.sessions import LoggedIn
from scoreboard.security import device_cookies, passwords
from scoreboard.storage.postgres import users
from tests.operations.people import (
    CHEAP,
    MASTERS,
    PASSWORD,
    Node,
    code,
    database_url,
    node,
)

__all__ = ["database_url"]  # the module's own fixture


async def test_a_name_or_an_address_in_any_case_logs_in(database_url: str, redis_url: str) -> None:
    """Case and the way an accent is typed are no matter."""
    async with node(database_url, redis_url) as one:
        mine = await one.register("Zoë", email="Zoe@example.org", password="motörhead forever")
        for name in ("Zoë", "zoë", "ZOË", "ZOE\u0308", "zoe@example.org", "ZOE@EXAMPLE.ORG"):
            outcome = await one.accounts.log_in(name, "moto\u0308rhead forever")
            assert isinstance(outcome, LoggedIn), (name, outcome)
            assert (outcome.userId, outcome.username) == (mine.userId, "Zoë")


async def test_wrong_credentials_are_all_refused_alike(database_url: str, redis_url: str) -> None:
    """Whether there is such an account, or one that has no password, does not show."""
    async with node(database_url, redis_url) as one:
        await one.register()
        await one.stores.execute("INSERT INTO users (username, email) VALUES ('Tokenuser', 't@example.org')")
        wrong = [
            ("Ada", PASSWORD + "!"),
            ("Ada", ""),
            ("Ada", "x" * 5000),
            ("Nobody", PASSWORD),
            ("nobody@example.org", PASSWORD),
            ("", ""),
        ]
        for name, password in [*wrong, ("Tokenuser", "anything")]:
            assert await one.accounts.log_in(name, password) == INVALID_CREDENTIALS


async def test_no_account_takes_a_hash_as_well(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log-in without an account does the same work as one with a wrong password."""
    compared: list[str | None] = []

    def verify(stored: str | None, password: str) -> bool:
        compared.append(stored)
        return False

    monkeypatch.setattr(passwords, "verify", verify)
    async with node(database_url, redis_url) as one:
        await one.accounts.log_in("Nobody", PASSWORD)
    assert compared == [None]


async def test_a_burst_is_bounded_however_it_comes(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 300 log-ins and registrations at once as many are accepted as have a place; the rest are refused at once with
    a Retry-After."""
    running, going = 0, threading.Event()
    most = 0

    def verify(stored: str | None, password: str) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        going.wait(20)
        running -= 1
        return False

    monkeypatch.setattr(passwords, "verify", verify)
    outcomes: list[object] = []
    async with node(database_url, redis_url) as one:
        try:
            async with trio.open_nursery() as nursery:

                async def ask(number: int) -> None:
                    if number % 10:
                        outcomes.append(await one.accounts.log_in(f"user {number}", PASSWORD))
                    else:
                        outcomes.append(
                            await one.accounts.register(f"user {number}", f"{number}@example.org", PASSWORD, None)
                        )

                for number in range(300):
                    nursery.start_soon(ask, number)
                strangers = MAX_HASHING + MAX_WAITING - RESERVED_FOR_KNOWN
                with trio.fail_after(20):
                    while len(outcomes) < 300 - strangers:
                        await trio.sleep(0.005)
                assert outcomes == [TOO_BUSY] * (300 - strangers)
                assert TOO_BUSY.retry_after is not None
                going.set()
        finally:
            going.set()
        accepted = [outcome for outcome in outcomes if outcome != TOO_BUSY]
        assert len(accepted) == strangers
        assert most <= MAX_HASHING
        assert one.accounts.admission.hashing.in_use == 0


async def test_a_log_in_that_is_given_up_gives_its_place_back(database_url: str, redis_url: str) -> None:
    """A client that leaves while it waits in line uses neither a place nor a try of its address."""
    async with node(database_url, redis_url, login_per_minute=1) as one:
        await one.register()
        queue, client = one.accounts.admission.hashing, Client("192.0.2.1")
        running = [place for _ in range(MAX_HASHING) if (place := queue.reserve())]
        queue._idle = 0  # both threads are at work
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.accounts.log_in, "Ada", PASSWORD, client)
            with trio.fail_after(10):
                while not queue._strangers_line:
                    await trio.sleep(0.005)
            assert queue.in_use == MAX_HASHING + 1
            assert code(await one.accounts.log_in("Ada", PASSWORD, client)) is Code.RATE_LIMITED
            nursery.cancel_scope.cancel()
        assert (queue.in_use, len(queue._strangers_line)) == (MAX_HASHING, 0)
        for place in running:
            queue.release(place)
        queue._idle = MAX_HASHING
        assert isinstance(await one.accounts.log_in("Ada", PASSWORD, client), LoggedIn)


async def test_a_password_that_is_hashed_anew_keeps_its_place(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log-in with an outdated hash makes two hashes, and has its place until both are done."""
    taken: list[int] = []
    async with node(database_url, redis_url, hasher=passwords._HASHER) as one:
        await one.register()
        await one.stores.execute("UPDATE credentials SET password_hash = $1", CHEAP.hash(PASSWORD))
        hash_password = passwords.hash_password

        def noting(password: str) -> str:
            taken.append(one.accounts.admission.hashing.in_use)
            return hash_password(password)

        monkeypatch.setattr(passwords, "hash_password", noting)
        assert isinstance(await one.accounts.log_in("Ada", PASSWORD), LoggedIn)
        assert taken == [1]
        assert one.accounts.admission.hashing.in_use == 0


async def test_the_right_password_is_never_counted_as_a_failure(database_url: str, redis_url: str) -> None:
    """However often it is given; a failed store counts nothing either."""
    async with node(database_url, redis_url, login_per_minute=2) as one:
        await one.register()
        for number in range(30):
            client = Client(f"198.51.{number}.1")
            assert isinstance(await one.accounts.log_in("Ada", PASSWORD, client), LoggedIn)
        for number in range(2 * EVERYWHERE_LIMIT_FACTOR):
            assert (
                await one.accounts.log_in("Ada", "wrong password", Client(f"203.0.{number}.1")) == INVALID_CREDENTIALS
            )
        assert code(await one.accounts.log_in("Ada", PASSWORD, Client("192.0.2.1"))) is Code.RATE_LIMITED


async def test_a_try_that_is_refused_takes_nothing(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 of a full queue or of PostgreSQL, 429 of the account: the address has its tries left."""

    async def away(*_: object) -> None:
        raise StorageUnavailable("postgresql", "gone")

    async with node(database_url, redis_url, login_per_minute=2) as one:
        await one.register()
        client = Client("192.0.2.1")
        with monkeypatch.context() as patched:
            patched.setattr(users, "find", away)
            for _ in range(5):
                with pytest.raises(StorageUnavailable):
                    await one.accounts.log_in("Ada", PASSWORD, client)
        places = [
            place for _ in range(MAX_HASHING + MAX_WAITING) if (place := one.accounts.admission.hashing.reserve())
        ]
        for _ in range(5):
            assert await one.accounts.log_in("Ada", PASSWORD, client) == TOO_BUSY
        for place in places:
            one.accounts.admission.hashing.release(place)
        for number in range(2 * EVERYWHERE_LIMIT_FACTOR):
            await one.accounts.log_in("Ada", "wrong password", Client(f"203.0.{number}.1"))
        for _ in range(5):
            assert code(await one.accounts.log_in("Ada", PASSWORD, client)) is Code.RATE_LIMITED
        for _ in range(2):
            assert await one.accounts.log_in("Nobody", PASSWORD, client) == INVALID_CREDENTIALS
        assert code(await one.accounts.log_in("Nobody", PASSWORD, client)) is Code.RATE_LIMITED


async def test_somebody_elses_device_cookie_is_worth_nothing(database_url: str, redis_url: str) -> None:
    """Made for another account, by other keys, or garbled: its bearer is a stranger like all."""
    async with node(database_url, redis_url, login_per_minute=1) as one:
        mine, other = await one.register("Ada"), await one.register("Eve")
        forged = device_cookies.make(b"x" * 32, UUID(mine.userId), b"n" * 16)
        cookies = (one.accounts.device_cookie(other), forged, "", "x" * 64, "é" * 64)
        for number in range(EVERYWHERE_LIMIT_FACTOR):
            assert (
                await one.accounts.log_in("Ada", "wrong password", Client(f"203.0.{number}.1", cookies))
                == INVALID_CREDENTIALS
            )
        assert code(await one.accounts.log_in("Ada", PASSWORD, Client("192.0.2.1", cookies))) is Code.RATE_LIMITED
        own = one.accounts.device_cookie(mine)
        assert isinstance(await one.accounts.log_in("Ada", PASSWORD, Client("192.0.2.2", (*cookies, own))), LoggedIn)
        rotated = Node(one.stores, master_keys={2: MASTERS[2], 3: b"3" * 32}, current_version=3, login_per_minute=1)
        assert isinstance(await rotated.accounts.log_in("Ada", PASSWORD, Client("192.0.2.3", (own,))), LoggedIn)


async def test_an_old_hash_is_made_anew_at_the_next_log_in(database_url: str, redis_url: str) -> None:
    """Nobody has to choose a new password when the parameters become stronger."""
    async with node(database_url, redis_url, hasher=passwords._HASHER) as one:
        await one.register()
        weak = CHEAP.hash(PASSWORD)
        await one.stores.execute("UPDATE credentials SET password_hash = $1", weak)
        assert isinstance(await one.accounts.log_in("Ada", PASSWORD), LoggedIn)
        stored = await one.stores.fetchval("SELECT password_hash FROM credentials")
        assert stored != weak
        assert not passwords.is_outdated(stored)
        assert isinstance(await one.accounts.log_in("Ada", PASSWORD), LoggedIn)
