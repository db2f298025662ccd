"""Many users at once: imports, and users with ready tokens. On a real PostgreSQL."""

import pytest

from scoreboard.domain.errors import Refusal
from scoreboard.operations.admin import provisioning
from scoreboard.operations.admin.import_files import parse_users
from scoreboard.operations.admin.provisioning import Imported, development_tokens
from scoreboard.operations.sessions import LoggedIn
from scoreboard.security.issuer import Issuer
from scoreboard.storage.postgres import users
from tests.operations.people import (
    ISSUER,
    KEYS,
    MASTERS,
    PASSWORD,
    Node,
    database_url,
    node,
)

__all__ = ["database_url"]  # the module's own fixture

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


async def import_users(one: Node, text: str, *, is_csv: bool) -> Imported:
    people, done = parse_users(text, is_csv=is_csv), Imported()
    assert not isinstance(people, Refusal)
    await provisioning.import_users(one.stores, one.accounts, people.lines, done)
    return done


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
        assert isinstance(
            await users.change_profile(one.stores, ada[0], "Lovelace", None, set_avatar=False), users.Changed
        )
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
