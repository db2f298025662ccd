"""Rotation and revocation of master keys, on a real PostgreSQL: what two nodes accept, and when."""

from uuid import UUID

import pytest
import trio

from scoreboard.domain.errors import StartError
from scoreboard.domain.key_versions import StoredVersion, VersionState, current_version, verifying_versions
from scoreboard.operations import authenticator as authenticator_module
from scoreboard.operations import key_versions
from scoreboard.operations.key_versions import KeyVersions, load_key_versions
from scoreboard.operations.sessions import LoggedIn
from scoreboard.security.issuer import Issuer
from scoreboard.security.signatures import matches, sign
from scoreboard.storage.postgres import master_keys
from tests.operations.people import ISSUER, KEYS, MASTERS, Node, node, refreshed

BODY = b'{"actionId": "1"}'
OVERLAP = 60  # minutes


def issuer_of(someone: Node) -> Issuer:
    return someone.sessions._issuer


def is_accepted(someone: Node, given: LoggedIn, *, named: bool = True) -> bool:
    """Whether that node takes an action signed with these credentials."""
    identity = someone.sessions.authenticate(given.accessToken)
    signature = sign(given.actionSecret.encode(), BODY)
    prefix = f"v{given.actionKeyVersion}." if named else ""
    return identity is not None and matches(prefix + signature, BODY, identity.secrets)


async def read(*nodes: Node) -> None:
    """What `watch` does every 1.5 s."""
    for each in nodes:
        await load_key_versions(each.stores, issuer_of(each))
        each.sessions._verified.clear()


async def pass_activation(someone: Node) -> None:
    await someone.stores.execute("UPDATE master_keys SET active_at = active_at - interval '1 minute'")


async def test_a_session_gets_the_new_secret_with_its_next_refresh(database_url: str, redis_url: str) -> None:
    """Every node takes both secrets meanwhile: no action is lost, whichever node is asked."""
    async with node(database_url, redis_url) as one:
        other = Node(one.stores)
        before = await one.register()
        assert await key_versions.rotate(one.stores, issuer_of(one), OVERLAP) == 3
        await read(one, other)
        assert (await refreshed(one, before.refreshToken)).actionKeyVersion == 2  # other nodes may not have it yet
        await pass_activation(one)
        await read(one)
        after = await refreshed(one, (await refreshed(one, before.refreshToken)).refreshToken)
        assert after.actionKeyVersion == 3
        assert after.actionSecret != before.actionSecret
        for each in (one, other):
            for named in (True, False):
                assert is_accepted(each, before, named=named)
                assert is_accepted(each, after, named=named)


async def test_older_versions_end_with_the_overlap(database_url: str, redis_url: str) -> None:
    """Those of the settings as well. A second rotation gives none of them more time."""
    async with node(database_url, redis_url) as one:
        before = await one.register()
        await key_versions.rotate(one.stores, issuer_of(one), OVERLAP)
        await key_versions.rotate(one.stores, issuer_of(one), 1000 * OVERLAP)
        await one.stores.execute("UPDATE master_keys SET ends_at = ends_at - interval '61 minutes'")
        await pass_activation(one)
        await read(one)
        assert sorted(issuer_of(one).action_keys) == [3, 4]
        assert not is_accepted(one, before)
        assert not is_accepted(one, before, named=False)
        assert is_accepted(one, await refreshed(one, before.refreshToken))


async def test_a_revoked_version_is_refused_by_every_node_within_two_seconds(database_url: str, redis_url: str) -> None:
    """Also for a token that both nodes have verified before; the session goes on with another secret."""
    async with node(database_url, redis_url) as one, trio.open_nursery() as nursery:
        other = Node(one.stores)
        for each in (one, other):
            await nursery.start(each.sessions.watch)
        before = await one.register()
        assert is_accepted(one, before)
        assert is_accepted(other, before)
        done = await key_versions.revoke(one.stores, issuer_of(one), 2)
        assert done is not None
        assert done == (True, None)  # version 1 of the settings is left
        assert authenticator_module.REVOCATION_CHECK_SECONDS < 2
        with trio.fail_after(10):  # bounds a hang
            while is_accepted(one, before) or is_accepted(other, before):
                await trio.sleep(0.01)
        after = await refreshed(other, before.refreshToken)
        assert after.actionKeyVersion == 1
        assert is_accepted(one, after)
        nursery.cancel_scope.cancel()


async def test_when_the_last_version_is_revoked_another_is_used_at_once(database_url: str, redis_url: str) -> None:
    """Refresh tokens and device cookies count on: nobody is logged out."""
    async with node(database_url, redis_url) as one:
        before = await one.register()
        cookie = issuer_of(one).device_cookie(UUID(before.userId), b"n" * 16)
        assert await key_versions.revoke(one.stores, issuer_of(one), 1) == (True, None)
        assert await key_versions.revoke(one.stores, issuer_of(one), 2) == (True, 3)
        assert await key_versions.revoke(one.stores, issuer_of(one), 2) == (False, None)
        assert await key_versions.revoke(one.stores, issuer_of(one), 9) is None
        await read(one)
        assert not is_accepted(one, before)
        after = await refreshed(one, before.refreshToken)
        assert after.actionKeyVersion == 3
        assert is_accepted(one, after)
        assert issuer_of(one).read_device_cookie(cookie) is not None


async def test_a_revoked_version_never_comes_back(database_url: str, redis_url: str) -> None:
    """Its key is erased, its number is not used again, and a signature that names it, or none, is refused."""
    async with node(database_url, redis_url) as one:
        await key_versions.rotate(one.stores, issuer_of(one), OVERLAP)
        await pass_activation(one)
        await read(one)
        leaked = await one.register()
        assert leaked.actionKeyVersion == 3
        await key_versions.revoke(one.stores, issuer_of(one), 3)
        assert await one.stores.fetchval("SELECT wrapped FROM master_keys WHERE version = 3") is None
        assert await key_versions.rotate(one.stores, issuer_of(one), OVERLAP) == 4
        await pass_activation(one)
        await read(one)
        assert not is_accepted(one, leaked)
        assert not is_accepted(one, leaked, named=False)
        identity = one.sessions.authenticate(leaked.accessToken)
        assert identity is not None
        for version in (1, 2, 4, 5):  # a downgrade, or another version's name
            assert not matches(f"v{version}.{sign(leaked.actionSecret.encode(), BODY)}", BODY, identity.secrets)


async def test_rotations_at_once_make_different_versions(database_url: str, redis_url: str) -> None:
    """Two operators, or one who is impatient."""
    async with node(database_url, redis_url) as one:
        made = list[int]()

        async def rotate() -> None:
            made.append(await key_versions.rotate(one.stores, issuer_of(one), OVERLAP))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(rotate)
        assert sorted(made) == [3, 4, 5, 6, 7]
        kinds = await one.stores.fetch("SELECT kind, actor FROM audit_events")
        assert [tuple(row) for row in kinds] == [("master_key_rotated", "operator")] * 5


async def test_no_key_is_in_the_database_or_in_a_repr(database_url: str, redis_url: str) -> None:
    """A dump of PostgreSQL has it encrypted; a log line would have none at all."""
    async with node(database_url, redis_url) as one:
        await key_versions.rotate(one.stores, issuer_of(one), OVERLAP)
        stored = await master_keys.read(one.stores)
        await read(one)
        key = issuer_of(one).action_keys[3]
        wrapped = stored[-1].wrapped
        assert wrapped is not None
        assert key not in wrapped
        assert len({*issuer_of(one).action_keys.values()}) == 3
        shown = f"{stored!r}{issuer_of(one)!r}"
        assert repr(wrapped) not in shown
        assert repr(key) not in shown
        assert "details" not in shown


async def test_a_node_with_other_settings_does_not_start(database_url: str, redis_url: str) -> None:
    """It would refuse what the others take. One that runs logs it, and goes on with the versions that it has."""
    async with node(database_url, redis_url) as one:
        await key_versions.rotate(one.stores, issuer_of(one), OVERLAP)
        for masters, current in (({1: b"1" * 32}, 1), ({**MASTERS, 2: b"x" * 32}, 2), ({**MASTERS, 3: b"3" * 32}, 3)):
            wrong = Node(one.stores, master_keys=masters, current_version=current)
            with pytest.raises(StartError, match=r"security\.master_keys"):
                await load_key_versions(one.stores, issuer_of(wrong))
            KeyVersions(issuer_of(wrong)).apply(await master_keys.read(one.stores))
            assert issuer_of(wrong).action_keys == masters
            with pytest.RaisesGroup(StartError):
                async with trio.open_nursery() as nursery:
                    await nursery.start(wrong.sessions.watch)


async def test_an_unchanged_table_keeps_verified_tokens(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is dropped only when other signatures count than before."""
    monkeypatch.setattr(authenticator_module, "REVOCATION_CHECK_SECONDS", 0.01)
    async with node(database_url, redis_url) as one, trio.open_nursery() as nursery:
        await nursery.start(one.sessions.watch)
        given = await one.register()
        first = one.sessions.authenticate(given.accessToken)
        await trio.sleep(0.2)
        assert one.sessions.authenticate(given.accessToken) is first
        await key_versions.rotate(one.stores, issuer_of(one), OVERLAP)
        with trio.fail_after(5):
            while one.sessions.authenticate(given.accessToken) is first:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


LIVE, WAITING, ENDED, REVOKED = VersionState.LIVE, VersionState.WAITING, VersionState.ENDED, VersionState.REVOKED


@pytest.mark.parametrize(
    ("stored", "verifying", "current"),
    [
        ([], {1, 2}, 1),
        ([StoredVersion(3, WAITING, b"w", 1)], {1, 2, 3}, 1),
        ([StoredVersion(3, LIVE, b"w", 1)], {1, 2, 3}, 3),
        ([StoredVersion(1, ENDED), StoredVersion(2, ENDED), StoredVersion(3, LIVE, b"w", 1)], {3}, 3),
        ([StoredVersion(1, REVOKED)], {2}, 2),
        ([StoredVersion(1, REVOKED), StoredVersion(2, REVOKED), StoredVersion(3, WAITING, b"w", 1)], {3}, 3),
        ([StoredVersion(1, LIVE), StoredVersion(3, REVOKED)], {1, 2}, 1),
        ([StoredVersion(1, REVOKED), StoredVersion(2, REVOKED)], set(), 0),
    ],
)
def test_which_versions_count(stored: list[StoredVersion], verifying: set[int], current: int) -> None:
    """Settings with versions 1 and 2, of which they name 1 as the current one."""
    assert verifying_versions((1, 2), stored) == verifying
    assert current_version((1, 2), 1, stored) == current


def test_without_a_live_version_secrets_are_refused() -> None:
    """Only a change of the table by hand leads there: log-ins go on, and no signature counts."""
    issuer = Issuer(ISSUER, KEYS, MASTERS, 2)
    assert KeyVersions(issuer).apply([StoredVersion(1, REVOKED), StoredVersion(2, REVOKED)])
    secret = issuer.action_secret(UUID(int=1), UUID(int=2))
    assert not matches(sign(secret.encode(), BODY), BODY, issuer.action_secrets(UUID(int=1), UUID(int=2)))
