"""Identities: one user each, whatever happens at once, and nothing is left of a try that failed."""

from uuid import UUID, uuid4

import trio

from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.identities import ExternalIdentity
from scoreboard.drivers.stores import Stores
from scoreboard.storage.postgres import identities, users
from scoreboard.storage.postgres.identities import IdentifiedUser
from scoreboard.storage.postgres.users import USERNAME_TAKEN

ADA = ExternalIdentity("game", "ada-1")


async def created(stores: Stores, identity: ExternalIdentity, username: str) -> IdentifiedUser:
    outcome = await identities.create(stores, identity, username)
    assert isinstance(outcome, IdentifiedUser), outcome
    return outcome


async def test_a_user_is_created_with_its_identity(stores: Stores) -> None:
    """It has no address and no password; the second call finds it, whatever name it gives."""
    assert await identities.find(stores, ADA) is None
    made = await created(stores, ADA, "Ada")
    assert made.is_new
    assert await identities.find(stores, ADA) == IdentifiedUser(made.user, "Ada")
    assert await created(stores, ADA, "Eve") == IdentifiedUser(made.user, "Ada")
    profile = await users.profile(stores, made.user)
    assert profile is not None
    assert (profile.username, profile.email) == ("Ada", None)
    account = await users.by_id(stores, made.user)
    assert account is not None
    assert account.password_hash is None
    assert [stored.identity for stored in await identities.of_user(stores, made.user)] == [ADA]


async def test_the_provider_and_the_case_of_an_id_count(stores: Stores) -> None:
    """Otherwise one issuer could name the users of another."""
    made = await created(stores, ADA, "Ada")
    for other in (ADA._replace(provider="device"), ADA._replace(external_id="ADA-1")):
        assert await identities.find(stores, other) is None
    assert (await created(stores, ADA._replace(external_id="ADA-1"), "Eve")).user != made.user


async def test_a_name_in_use_creates_nothing(stores: Stores) -> None:
    """Neither the user nor the identity, nor a name that looks alike."""
    await created(stores, ADA, "Paul")
    other = ExternalIdentity("game", "other")
    for name in ("Paul", "paul", "PAUL"):
        assert await identities.create(stores, other, name) == USERNAME_TAKEN
    assert await identities.find(stores, other) is None
    assert await stores.fetchval("SELECT count(*) FROM users") == 1


async def test_connections_that_create_at_once_get_the_same_user(stores: Stores) -> None:
    """One of eight calls, each on its own connection as from eight nodes, creates the user; the others get it, and no
    other user remains."""
    outcomes: list[IdentifiedUser] = []

    async def call(name: str) -> None:
        outcomes.append(await created(stores, ADA, name))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(call, f"Name {number}")
    assert len({outcome.user for outcome in outcomes}) == 1
    assert sum(outcome.is_new for outcome in outcomes) == 1
    assert await stores.fetchval("SELECT count(*) FROM users") == 1


async def test_an_identity_stays_with_its_user(stores: Stores) -> None:
    """It is added to a user who is there, and moves to nobody else."""
    first, second = await created(stores, ADA, "Ada"), await created(stores, ADA._replace(external_id="eve"), "Eve")
    device = ExternalIdentity("device", "0" * 64)
    assert await identities.add(stores, device, first.user) == first.user
    assert await identities.add(stores, device, first.user) == first.user
    assert await identities.add(stores, device, second.user) == first.user
    assert await identities.add(stores, ADA._replace(external_id="gone"), uuid4()) is None
    assert {stored.identity.provider for stored in await identities.of_user(stores, first.user)} == {"game", "device"}


async def test_a_deleted_user_has_no_identity(stores: Stores) -> None:
    """The same id then makes another user."""
    made = await created(stores, ADA, "Ada")
    assert await users.delete(stores, made.user, OPERATOR)
    assert await stores.fetchval("SELECT count(*) FROM identities") == 0
    assert (await created(stores, ADA, "Other Ada")).user != made.user


def test_an_identity_hides_its_id() -> None:
    """It may be the hash of a key, or an address."""
    assert "ada-1" not in repr(ADA)
    assert "ada-1" not in repr(IdentifiedUser(UUID(int=1), "Ada"))
