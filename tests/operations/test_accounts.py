"""Accounts: who may log in, what they are given, and what a stolen refresh token is worth. On a real PostgreSQL."""

import base64
import hashlib
import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt
import pytest
import trio

from scoreboard.domain.errors import Code, Refusal, StorageUnavailable
from scoreboard.domain.outcomes import USER_DELETED
from scoreboard.domain.sessions import REFRESH_GRACE_SECONDS
from scoreboard.operations.admin import provisioning
from scoreboard.operations.admin.import_files import parse_users
from scoreboard.operations.admin.provisioning import Imported, development_tokens
from scoreboard.operations.hashing import MAX_HASHING, MAX_WAITING, RESERVED_FOR_KNOWN
from scoreboard.operations.log_in import INVALID_CREDENTIALS
from scoreboard.operations.login_admission import TOO_BUSY, Client
from scoreboard.operations.login_limits import EVERYWHERE_TIMES
from scoreboard.operations.refresh_session import MAX_TOKENS_TRIED
from scoreboard.operations.sessions import SESSION_ENDED, LoggedIn
from scoreboard.security import device_cookies, passwords, refresh_tokens
from scoreboard.security.issuer import Issuer
from scoreboard.security.signatures import action_secret
from scoreboard.storage.connections.stores import Stores
from scoreboard.storage.postgres import users
from tests.operations.people import CHEAP, ISSUER, KEYS, MASTERS, PASSWORD, Node, database_url, node

__all__ = ["database_url"]  # the module's own fixture


async def refreshed(someone: Node, token: str) -> LoggedIn:
    outcome = await someone.accounts.refresh_session(token)
    assert isinstance(outcome, LoggedIn), outcome
    return outcome


async def logged_in(someone: Node, name: str, password: str = PASSWORD) -> LoggedIn:
    outcome = await someone.accounts.log_in(name, password)
    assert isinstance(outcome, LoggedIn), outcome
    return outcome


def code(outcome: object) -> Code:
    assert isinstance(outcome, Refusal), outcome
    return outcome.code


def fields(outcome: object) -> set[str]:
    assert isinstance(outcome, Refusal), outcome
    return {error.field for error in outcome.errors}


async def test_a_user_who_is_deleted_while_registering_has_no_session(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the user's row and the session's: the answer is 401, and no session is left."""
    create = users.create

    async def create_and_delete(
        stores: Stores, username: str, email: str, avatar_url: str | None, password_hash: str
    ) -> UUID | Refusal:
        created = await create(stores, username, email, avatar_url, password_hash)
        assert isinstance(created, UUID)
        await users.delete(stores, created)
        return created

    monkeypatch.setattr(users, "create", create_and_delete)
    async with node(database_url, redis_url) as one:
        assert await one.accounts.register("Ada", "ada@example.org", PASSWORD, None) == USER_DELETED
        assert await one.stores.fetchval("SELECT count(*) FROM sessions") == 0


async def test_registering_logs_in(database_url: str, redis_url: str) -> None:
    """The answer holds a token of 15 minutes, the session's action secret, and a refresh token for 30 days."""
    async with node(database_url, redis_url) as one:
        given = await one.register("Ada", avatar_url="https://example.org/ada.png")
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        assert str(identity.user) == given.userId
        assert given.expiresIn == 900
        assert given.actionKeyVersion == 2
        assert given.actionSecret == action_secret(MASTERS[2], identity.user, identity.sid)
        assert identity.secrets[2] == given.actionSecret.encode()
        left = datetime.fromisoformat(given.actionSecretExpiresAt) - datetime.now(UTC)
        assert timedelta(days=29, hours=23) < left <= timedelta(days=30, minutes=1)
        claims = jwt.decode(given.accessToken, options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == 900
        profile = await one.accounts.profile(identity)
        assert not isinstance(profile, Refusal)
        assert (profile.username, profile.email, profile.avatar_url) == (
            "Ada",
            "ada@example.org",
            "https://example.org/ada.png",
        )


async def test_nothing_secret_is_stored_in_the_clear(database_url: str, redis_url: str) -> None:
    """Of the password there is an argon2id hash, of the refresh token a SHA-256, of the action secret nothing."""
    async with node(database_url, redis_url) as one:
        given = await one.register()
        rows = [*await one.stores.fetch("SELECT * FROM credentials"), *await one.stores.fetch("SELECT * FROM sessions")]
        stored = " ".join(
            str(value.hex() if isinstance(value, bytes) else value) for row in rows for value in row.values()
        )
        raw = base64.urlsafe_b64decode(given.refreshToken + "==")
        for secret in (
            PASSWORD,
            given.refreshToken,
            raw.hex(),
            raw[16:48].hex(),
            given.actionSecret,
            given.accessToken,
        ):
            assert secret not in stored
        assert "$argon2id$" in stored
        assert hashlib.sha256(given.refreshToken.encode()).hexdigest() in stored


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
    """A log-in to nobody does the same work as one with a wrong password."""
    compared: list[str | None] = []

    def verify(stored: str | None, password: str) -> bool:
        compared.append(stored)
        return False

    monkeypatch.setattr(passwords, "verify", verify)
    async with node(database_url, redis_url) as one:
        await one.accounts.log_in("Nobody", PASSWORD)
    assert compared == [None]


async def test_what_is_taken_is_named(database_url: str, redis_url: str) -> None:
    """409 tells which field; in any case of the letters."""
    async with node(database_url, redis_url) as one:
        await one.register("Ada")
        for username, email, field in [
            ("Ada", "other@example.org", "username"),
            ("aDA", "other@example.org", "username"),
            ("Other", "ada@example.org", "email"),
            ("Other", "ADA@example.org", "email"),
        ]:
            outcome = await one.accounts.register(username, email, PASSWORD, None)
            assert (code(outcome), fields(outcome)) == (Code.CONFLICT, {field})


async def test_a_registration_that_breaks_rules_names_all_fields(database_url: str, redis_url: str) -> None:
    """400 tells each of them, and nobody is created."""
    async with node(database_url, redis_url) as one:
        outcome = await one.accounts.register("a@b", "nowhere", "short", "http://example.org/a.png")
        assert (code(outcome), fields(outcome)) == (
            Code.INVALID_REQUEST,
            {"username", "email", "password", "avatarUrl"},
        )
        assert await one.stores.fetchval("SELECT count(*) FROM users") == 0


@pytest.mark.parametrize(
    "password", ["1234567890", "Password123", "LovelaceAda", "LOVELACE1815", "lovelace1815@Example.org"]
)
async def test_passwords_that_are_tried_first_are_refused(database_url: str, redis_url: str, password: str) -> None:
    """The most used ones, the name, the address and what is before its @: for a registration and for the command line,
    not for a log-in."""
    async with node(database_url, redis_url) as one:
        for create in (one.accounts.register, one.accounts.create):
            outcome = await create("LovelaceAda", "lovelace1815@example.org", password, None)
            assert (code(outcome), fields(outcome)) == (Code.INVALID_REQUEST, {"password"})
        await one.register("LovelaceAda", email="lovelace1815@example.org")
        await one.stores.execute("UPDATE credentials SET password_hash = $1", CHEAP.hash(password))
        assert isinstance(await one.accounts.log_in("LovelaceAda", password), LoggedIn)


async def test_people_may_be_called_what_they_are_called(database_url: str, redis_url: str) -> None:
    """Names of any script, with spaces, joined emoji and marks, are stored as they are."""
    async with node(database_url, redis_url) as one:
        for number, name in enumerate(["x" * 50, "李小龍", "Ж_ж", "👩\u200d👩\u200d👧 fam", "O'Neil <b>", "a b c"]):
            assert (await one.register(name, email=f"{number}@example.org")).username == name


async def test_registration_can_be_closed(database_url: str, redis_url: str) -> None:
    """Then only the command line creates users."""
    async with node(database_url, redis_url, registration=False) as one:
        assert code(await one.accounts.register("Ada", "ada@example.org", PASSWORD, None)) is Code.FORBIDDEN
        assert not isinstance(await one.accounts.create("Ada", "ada@example.org", PASSWORD, None), Refusal)


async def test_a_burst_is_bounded_however_it_comes(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 300 log-ins and registrations at once as many are accepted as have a place; the rest are told at once when to
    come back."""
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
    """A client that leaves while it waits in line takes nothing: neither the place nor the try of its address."""
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
    """An outdated hash costs a log-in two hashes, and it is counted until both are done."""
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
        for number in range(2 * EVERYWHERE_TIMES):
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
        for number in range(2 * EVERYWHERE_TIMES):
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
        for number in range(EVERYWHERE_TIMES):
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


# ---- refresh --------------------------------------------------------------------------------------------------------


async def test_a_refresh_gives_a_new_pair_and_the_same_action_secret(database_url: str, redis_url: str) -> None:
    """The session and its secret stay, so an action in flight is still signed rightly."""
    async with node(database_url, redis_url) as one:
        first = await one.register()
        second = await refreshed(one, first.refreshToken)
        third = await refreshed(one, second.refreshToken)
        assert len({first.refreshToken, second.refreshToken, third.refreshToken}) == 3
        assert len({first.accessToken, second.accessToken, third.accessToken}) == 3
        assert first.actionSecret == second.actionSecret == third.actionSecret
        identities = [one.sessions.authenticate(given.accessToken) for given in (first, second, third)]
        assert len({identity.sid for identity in identities if identity}) == 1
        assert third.username == "Ada"


async def test_two_refreshes_at_once_are_given_the_same_successor(database_url: str, redis_url: str) -> None:
    """Two tabs, on two nodes: both go on with one token, and it works."""
    async with node(database_url, redis_url) as one:
        other = Node(one.stores)
        first = await one.register()
        given: list[LoggedIn] = []

        async def refresh(someone: Node) -> None:
            given.append(await refreshed(someone, first.refreshToken))

        async with trio.open_nursery() as nursery:
            for someone in (one, other, one, other):
                nursery.start_soon(refresh, someone)
        (successor,) = {answer.refreshToken for answer in given}
        await refreshed(other, successor)


async def test_a_lost_answer_can_be_asked_for_again_within_the_grace(database_url: str, redis_url: str) -> None:
    """Afterwards the same token is a spent one like any other: the session ends."""
    async with node(database_url, redis_url) as one:
        first = await one.register()
        second = await refreshed(one, first.refreshToken)
        await one.stores.execute(
            "UPDATE sessions SET rotated_at = now() - make_interval(secs => $1)", float(REFRESH_GRACE_SECONDS - 1)
        )
        assert (await refreshed(one, first.refreshToken)).refreshToken == second.refreshToken
        await one.stores.execute(
            "UPDATE sessions SET rotated_at = now() - make_interval(secs => $1)", float(REFRESH_GRACE_SECONDS + 1)
        )
        assert code(await one.accounts.refresh_session(first.refreshToken)) is Code.UNAUTHORIZED
        assert code(await one.accounts.refresh_session(second.refreshToken)) is Code.UNAUTHORIZED


async def test_reuse_of_an_older_token_ends_the_session_for_everybody(database_url: str, redis_url: str) -> None:
    """Whose copy it is nobody knows: the thief's token and the owner's are both dead, access tokens included."""
    async with node(database_url, redis_url) as one:
        first = await one.register()
        second = await refreshed(one, first.refreshToken)
        third = await refreshed(one, second.refreshToken)
        assert code(await one.accounts.refresh_session(first.refreshToken)) is Code.UNAUTHORIZED
        assert code(await one.accounts.refresh_session(third.refreshToken)) is Code.UNAUTHORIZED
        assert one.sessions.authenticate(third.accessToken) is None
        assert len(one.revoked) == 1
        assert isinstance(await one.accounts.log_in("Ada", PASSWORD), LoggedIn)


async def test_a_planted_live_token_is_taken_for_nobody_elses_session(database_url: str, redis_url: str) -> None:
    """A sibling domain plants tokens of its own account, before or after the owner's, one or a crowd: the told user's
    alone counts."""
    async with node(database_url, redis_url) as one:
        eve, ada = await one.register("Eve"), await one.register("Ada")
        planted = [eve.refreshToken, *[(await logged_in(one, "Eve")).refreshToken for _ in range(MAX_TOKENS_TRIED)]]
        user, spent = UUID(ada.userId), []
        for crowd in (planted[:1], planted):
            for is_first in (True, False):
                spent.append(ada.refreshToken)
                answer = await one.accounts.refresh_session(
                    *(crowd if is_first else ()), ada.refreshToken, *crowd, user=user
                )
                assert isinstance(answer, LoggedIn)
                assert answer.userId == ada.userId
                ada = answer
        lost = await one.accounts.refresh_session(eve.refreshToken, spent[-1], user=user)
        assert isinstance(lost, LoggedIn)
        assert lost.refreshToken == ada.refreshToken
        assert await one.accounts.refresh_session(eve.refreshToken, user=user) == SESSION_ENDED
        assert await one.accounts.refresh_session(*planted, user=UUID(int=1)) == SESSION_ENDED
        eve = await refreshed(one, eve.refreshToken)
        assert await one.accounts.refresh_session(planted[0], user=user) == SESSION_ENDED  # spent just now
        assert one.revoked == []
        # a copy of a spent one
        assert await one.accounts.refresh_session(eve.refreshToken, spent[0], user=user) == SESSION_ENDED
        assert one.revoked == [refresh_tokens.session_of(ada.refreshToken)]
        assert await one.accounts.refresh_session(eve.refreshToken, ada.refreshToken, user=user) == SESSION_ENDED
        await refreshed(one, eve.refreshToken)


async def test_live_tokens_of_several_users_log_in_nobody(database_url: str, redis_url: str) -> None:
    """Nobody knows whose browser it is, when it does not say so: none is spent. Two of one user are that user's."""
    async with node(database_url, redis_url) as one:
        eve, ada = await one.register("Eve"), await one.register("Ada")
        another = await logged_in(one, "Ada")
        for pair in ((eve, ada), (ada, eve)):
            assert await one.accounts.refresh_session(*(each.refreshToken for each in pair)) == SESSION_ENDED
        assert isinstance(await one.accounts.refresh_session(another.refreshToken, ada.refreshToken), LoggedIn)
        later = await refreshed(one, ada.refreshToken)
        assert await one.accounts.refresh_session(eve.refreshToken, ada.refreshToken) == SESSION_ENDED  # spent just now
        identity = one.sessions.authenticate(later.accessToken)
        assert identity is not None
        await one.accounts.log_out(identity)
        answer = await one.accounts.refresh_session(later.refreshToken, eve.refreshToken)
        assert isinstance(answer, LoggedIn)
        assert answer.userId == eve.userId
        assert one.revoked == [identity.sid]


async def test_a_made_up_token_ends_nobodys_session(database_url: str, redis_url: str) -> None:
    """Who knows a session's id, but not our keys, can do nothing with it."""
    async with node(database_url, redis_url) as one:
        first = await one.register()
        sid = refresh_tokens.session_of(first.refreshToken)
        assert sid is not None
        forged = refresh_tokens.make(b"x" * 32, sid, b"y" * 32)
        for token in ("", "x", "\x00", "x" * 100_000, forged, refresh_tokens.make(MASTERS[2], UUID(int=1), b"y" * 32)):
            assert code(await one.accounts.refresh_session(token)) is Code.UNAUTHORIZED
        await refreshed(one, first.refreshToken)
        assert one.revoked == []


async def test_sessions_end_thirty_days_after_their_last_use(database_url: str, redis_url: str) -> None:
    """Each refresh starts the thirty days anew; afterwards the token is worth nothing."""
    async with node(database_url, redis_url) as one:
        first = await one.register()
        await one.stores.execute("UPDATE sessions SET expires_at = now() + interval '1 second'")
        second = await refreshed(one, first.refreshToken)
        left = await one.stores.fetchval("SELECT expires_at - now() FROM sessions")
        assert timedelta(days=29, hours=23) < left <= timedelta(days=30)
        await one.stores.execute("UPDATE sessions SET expires_at = now()")
        assert code(await one.accounts.refresh_session(second.refreshToken)) is Code.UNAUTHORIZED
        assert one.revoked == []


async def test_a_new_master_key_changes_the_action_secret_at_the_next_refresh(
    database_url: str, redis_url: str
) -> None:
    """Rotation: tokens of before stay good, a successor made under the old key is made again under it, both secrets are
    accepted."""
    async with node(database_url, redis_url, master_keys={1: MASTERS[1]}, current_version=1) as old:
        rotated = Node(old.stores)
        first = await old.register()
        second = await refreshed(old, first.refreshToken)
        assert (await refreshed(rotated, first.refreshToken)).refreshToken == second.refreshToken
        third = await refreshed(rotated, second.refreshToken)
        assert (second.actionKeyVersion, third.actionKeyVersion) == (1, 2)
        assert second.actionSecret != third.actionSecret
        identity = rotated.sessions.authenticate(third.accessToken)
        assert identity is not None
        assert identity.secrets == {1: second.actionSecret.encode(), 2: third.actionSecret.encode()}


async def test_logging_out_ends_one_session(database_url: str, redis_url: str) -> None:
    """Its refresh and access tokens are dead at once; another log-in of the same user goes on."""
    async with node(database_url, redis_url) as one:
        mine = await one.register()
        other = await one.accounts.log_in("Ada", PASSWORD)
        assert isinstance(other, LoggedIn)
        identity = one.sessions.authenticate(mine.accessToken)
        assert identity is not None
        await one.accounts.log_out(identity)
        assert one.sessions.authenticate(mine.accessToken) is None
        assert code(await one.accounts.refresh_session(mine.refreshToken)) is Code.UNAUTHORIZED
        assert one.revoked == [identity.sid]
        assert one.sessions.authenticate(other.accessToken) is not None
        await refreshed(one, other.refreshToken)


# ---- profiles -------------------------------------------------------------------------------------------------------


async def test_a_profile_change_is_stored_and_told(database_url: str, redis_url: str) -> None:
    """Name and picture change independently, null removes the picture, and the boards are told each time."""
    async with node(database_url, redis_url) as one:
        given = await one.register("Ada", avatar_url="https://example.org/a.png")
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        await one.accounts.change_profile(identity, username="Lovelace")
        await one.accounts.change_profile(identity, avatar_url="https://example.org/b.png", set_avatar=True)
        changed = await one.accounts.change_profile(identity, set_avatar=True)
        user = identity.user
        assert one.changed == [
            (user, "Lovelace", "https://example.org/a.png"),
            (user, "Lovelace", "https://example.org/b.png"),
            (user, "Lovelace", None),
        ]
        assert changed == await one.accounts.profile(identity)


async def test_a_profile_that_stays_the_same_is_told_to_nobody(database_url: str, redis_url: str) -> None:
    """The same name and picture again, or no picture where there is none: the answer is the profile, and no board reads
    its names anew."""
    async with node(database_url, redis_url) as one:
        given = await one.register("Ada")
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        for unchanged in ({"username": "Ada"}, {"set_avatar": True}, {}):
            outcome = await one.accounts.change_profile(identity, **unchanged)
            assert outcome == await one.accounts.profile(identity)
        assert one.changed == []
        await one.accounts.change_profile(
            identity, username="Ada", avatar_url="https://example.org/a.png", set_avatar=True
        )
        await one.accounts.change_profile(
            identity, username="Ada", avatar_url="https://example.org/a.png", set_avatar=True
        )
        assert one.changed == [(identity.user, "Ada", "https://example.org/a.png")]


async def test_a_profile_change_keeps_the_rules(database_url: str, redis_url: str) -> None:
    """A taken or forbidden name changes nothing and tells nobody; one's own name in another case is free."""
    async with node(database_url, redis_url) as one:
        given = await one.register("Ada")
        await one.register("Grace")
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        assert fields(await one.accounts.change_profile(identity, username="GRACE")) == {"username"}
        assert fields(
            await one.accounts.change_profile(identity, username="a@b", avatar_url="ftp://x", set_avatar=True)
        ) == {
            "username",
            "avatarUrl",
        }
        assert one.changed == []
        assert not isinstance(await one.accounts.change_profile(identity, username="ADA"), Refusal)


async def test_no_picture_comes_from_this_server(database_url: str, redis_url: str) -> None:
    """Fetching it would be a request to ourselves."""
    async with node(database_url, redis_url, own_host="board.example") as one:
        given = await one.register("Ada")
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        url = "https://board.example/avatars/x"
        assert fields(await one.accounts.change_profile(identity, avatar_url=url, set_avatar=True)) == {"avatarUrl"}
        assert fields(await one.accounts.register("Grace", "grace@example.org", PASSWORD, url)) == {"avatarUrl"}


async def test_a_deleted_users_token_finds_nobody(database_url: str, redis_url: str) -> None:
    """401, and the refresh token died with the user."""
    async with node(database_url, redis_url) as one:
        given = await one.register()
        identity = one.sessions.authenticate(given.accessToken)
        assert identity is not None
        await one.stores.execute("DELETE FROM users")
        assert code(await one.accounts.profile(identity)) is Code.UNAUTHORIZED
        assert code(await one.accounts.change_profile(identity, username="Other")) is Code.UNAUTHORIZED
        assert code(await one.accounts.refresh_session(given.refreshToken)) is Code.UNAUTHORIZED


# ---- many users -----------------------------------------------------------------------------------------------------


async def import_users(one: Node, text: str, *, is_csv: bool) -> Imported:
    people, done = parse_users(text, is_csv=is_csv), Imported()
    assert not isinstance(people, Refusal)
    await provisioning.import_users(one.stores, one.accounts, people.lines, done)
    return done


HEADER = "username,email,password"
CSV = """username,email,password,avatarUrl
Ada,ada@example.org,correct horse battery,
Grace,grace@example.org,correct horse battery,https://example.org/g.png
ab,ab@example.org,correct horse battery,
"""
JSONL = """{"username": "Ada", "email": "ada@example.org", "password": "correct horse battery"}

{"username": "Alan", "email": "alan@example.org", "password": "correct horse battery", "avatarUrl": "https://example.org/a.png"}
{"username": "Eve", "role": "admin"}
not json
"""


async def test_an_import_creates_whoever_is_not_there_yet(database_url: str, redis_url: str) -> None:
    """CSV and JSON Lines; a second run changes nothing; a bad line is told by its number and costs only itself."""
    async with node(database_url, redis_url, registration=False) as one:
        done = await import_users(one, CSV, is_csv=True)
        assert (done.created, done.existing, [line for line, _ in done.refused]) == (2, 0, [4])
        done = await import_users(one, JSONL, is_csv=False)
        assert (done.created, done.existing, [line for line, _ in done.refused]) == (1, 1, [4, 5])
        done = await import_users(one, CSV.replace("Ada,", "ADA,"), is_csv=True)
        assert (done.created, done.existing) == (0, 2)
        assert isinstance(await one.accounts.log_in("alan", PASSWORD), LoggedIn)
        assert await import_users(one, "", is_csv=True) == Imported()


async def test_an_import_tells_of_every_user_that_it_does_not_create(database_url: str, redis_url: str) -> None:
    """A line whose name only looks like another's, or rests, or whose address is taken is refused by its number and
    with the reason."""
    lines = [
        "Zoe\u0308,zoe@example.org",
        "grace,grace@example.org",
        "Zo\u00cb,new@example.org",
        "Grасe,new@example.org",
        "Ada,new@example.org",
    ]
    rows = [f"{line},correct horse battery" for line in [*lines, "Alan,grace@example.org"]]
    async with node(database_url, redis_url, registration=False) as one:
        ada = await one.accounts.create("Ada", "ada@example.org", PASSWORD, None)
        assert not isinstance(ada, Refusal)
        assert isinstance(await users.change(one.stores, ada[0], "Lovelace", None, set_avatar=False), users.Changed)
        assert (await import_users(one, "\n".join([HEADER, *rows[:2]]), is_csv=True)).created == 2
        done = await import_users(one, "\n".join([HEADER, *rows]), is_csv=True)
        assert (done.created, done.existing) == (0, 2)
        assert done.refused == [
            (4, provisioning.NAME_TAKEN),
            *((line, users.USERNAME_TAKEN.detail) for line in (5, 6)),
            (7, users.EMAIL_TAKEN.detail),
        ]


async def test_a_user_who_is_in_a_file_twice_is_made_once(database_url: str, redis_url: str) -> None:
    """In any case: the other line counts as a user who was there."""
    rows = [f"{name},{name}@example.org,correct horse battery" for name in ("Ada", "ADA", "ada")]
    async with node(database_url, redis_url) as one:
        assert await import_users(one, "\n".join([HEADER, *rows]), is_csv=True) == Imported(created=1, existing=2)


@pytest.mark.parametrize(
    ("rows", "created", "existing", "refused"),
    [
        (("Tom1,a@x.example", "Tom1,b@x.example"), ["Tom1 a@x.example"], 0, [(3, provisioning.NAME_TAKEN)]),
        (
            ("Tom1,a@x.example", "TOM1,b@x.example", "tom1,A@X.example"),
            ["Tom1 a@x.example"],
            1,
            [(3, provisioning.NAME_TAKEN)],
        ),
        (("Toml,a@x.example", "Tom1,b@x.example"), ["Toml a@x.example"], 0, [(3, users.USERNAME_TAKEN.detail)]),
        (("Tom,a@x.example", "Ben,A@x.example"), ["Tom a@x.example"], 0, [(3, users.EMAIL_TAKEN.detail)]),
        (
            ("Tom,a@xn--mller-kva.example", "Ben,a@müller.example"),
            ["Tom a@müller.example"],
            0,
            [(3, users.EMAIL_TAKEN.detail)],
        ),
        (
            ("Tom,a@x.example", "Ben,b@x.example", "Tom,b@x.example"),
            ["Ben b@x.example", "Tom a@x.example"],
            0,
            [(4, provisioning.NAME_TAKEN)],
        ),
        (("Tom,nowhere", "Tom,b@x.example"), ["Tom b@x.example"], 0, [(2, "email must be an e-mail address")]),
    ],
)
async def test_of_two_lines_that_claim_the_same_the_first_counts(
    database_url: str,
    redis_url: str,
    rows: tuple[str, ...],
    created: list[str],
    existing: int,
    refused: list[tuple[int, str]],
) -> None:
    """A name, one that looks like it, or an address: the other line is refused by its number, unless both are the same
    in both. A line that is refused itself claims nothing. The same file again finds who was created."""
    text = "\n".join([HEADER, *(f"{row},correct horse battery" for row in rows)])
    async with node(database_url, redis_url) as one:
        done = await import_users(one, text, is_csv=True)
        assert (done.created, done.existing, done.refused) == (len(created), existing, refused)
        stored = await one.stores.fetch('SELECT username, email FROM users ORDER BY username COLLATE "C"')
        assert [f"{row['username']} {row['email']}" for row in stored] == created
        again = await import_users(one, text, is_csv=True)
        assert (again.created, again.existing) == (0, existing + len(created))
        assert [line for line, _ in again.refused] == [line for line, _ in refused]


async def test_an_import_knows_users_from_before_todays_rules(database_url: str, redis_url: str) -> None:
    """By their names and addresses as they were stored then."""
    async with node(database_url, redis_url) as one:
        await one.register("１２３abc", email="j@xn--mller-kva.example")
        await one.stores.execute("UPDATE users SET username = '１２３abc', email = 'j@xn--mller-kva.example'")
        done = await import_users(one, f"{HEADER}\n１２３abc,j@müller.example,correct horse battery", is_csv=True)
        assert done == Imported(existing=1)


async def test_development_tokens_are_those_of_real_sessions(database_url: str, redis_url: str) -> None:
    """Each line's token is accepted and its secret is the session's; the same users are used again next time."""
    async with node(database_url, redis_url) as one:
        made = await development_tokens(one.stores, 501, Issuer(ISSUER, KEYS, MASTERS, 2), now=one.clock())
        assert len({token.user for token in made}) == 501
        for token in (made[0], made[-1]):
            user, access, secret, version = token.line.rstrip("\n").split("\t")
            identity = one.sessions.authenticate(access)
            assert identity is not None
            assert (str(identity.user), identity.secrets[int(version)].decode()) == (user, secret)
        assert await one.stores.fetchval("SELECT username FROM users WHERE id = $1", made[0].user) == "load-000001"
        again = await development_tokens(one.stores, 2, Issuer(ISSUER, KEYS, MASTERS, 2), now=one.clock())
        assert [token.user for token in again] == [token.user for token in made[:2]]
        assert await one.stores.fetchval("SELECT count(*) FROM users") == 501
