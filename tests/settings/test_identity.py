"""The tables of outside issuers: where they come from, and what is refused in which words."""

from pathlib import Path
from typing import Any

import pytest

from scoreboard.domain.errors import SettingsError
from scoreboard.settings.model import Settings, load_settings

ROOT = Path(__file__).parents[2]
STORES = {"SCOREBOARD_POSTGRES__URL": "postgresql://u:hidden@db/x", "SCOREBOARD_REDIS__URL": "redis://:hidden@cache/0"}
EXCHANGE = {"issuer": "https://game.example", "audience": "board", "jwks_url": "https://game.example/keys"}
LOG_IN = {"issuer": "https://accounts.example", "client_id": "scoreboard", "client_secret": "hidden"}
BOARD = {"server.public_url": "https://board.example"}


def load(tables: dict[str, dict[str, Any]], **flags: Any) -> Settings:
    return load_settings(None, {**BOARD, "identity": tables, **flags}, STORES)


def refused(tables: dict[str, dict[str, Any]], flags: dict[str, Any] | None = None) -> str:
    """The one line that a start ends with."""
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {**BOARD, "identity": tables, **(flags or {})}, STORES)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)
    return str(caught.value)


def test_a_table_from_file_secret_and_variables(tmp_path: Path) -> None:
    """The keys of one table may come from several places; names of claims' values keep their case."""
    config, secrets = tmp_path / "site.toml", tmp_path / "secrets"
    secrets.mkdir()
    config.write_text(
        '[server]\npublic_url = "https://board.example"\n[identity.school]\nissuer = "https://accounts.example"\n'
        'client_id = "board"\nrole_claim = "groups"\n[identity.school.roles]\n"Board-Admins" = "admin"\n'
    )
    (secrets / "identity__school__client_secret").write_text("hidden\n")
    environ = {
        **STORES,
        "SCOREBOARD_SECRETS_DIR": str(secrets),
        "SCOREBOARD_IDENTITY__SCHOOL__AUDIENCE": "board, game",
        "SCOREBOARD_IDENTITY__SCHOOL__ROLES__Referees": "moderator",
    }
    settings = load_settings(config, None, environ)
    table = settings.identity["school"]
    assert table.client_secret.get_secret_value() == "hidden"
    assert table.audience == ("board", "game")
    assert table.roles == {"Board-Admins": "admin", "Referees": "moderator"}
    assert "hidden" not in repr(settings)
    assert settings.origin("identity.school.client_id") == f"file {config}, line 5"


def test_the_example_of_the_readme_is_good(tmp_path: Path) -> None:
    """Its tables are read, together with a secret where README says that it belongs."""
    section = (ROOT / "README.md").read_text().partition("### Log-in by others")[2]
    config, secrets = tmp_path / "site.toml", tmp_path / "secrets"
    config.write_text(section.partition("```toml\n")[2].partition("```")[0])
    secrets.mkdir()
    (secrets / "identity__school__client_secret").write_text("hidden")
    settings = load_settings(config, None, {**STORES, "SCOREBOARD_SECRETS_DIR": str(secrets)})
    school, game = settings.identity["school"], settings.identity["game"]
    assert (school.client_secret.get_secret_value(), school.roles) == ("hidden", {"board-admins": "admin"})
    assert (school.needs_discovery, game.needs_discovery, game.audience) == (True, False, ("scoreboard",))


def test_only_what_is_missing_is_discovered() -> None:
    """A table with keys and endpoints of its own asks for no discovery document."""
    ends = {"authorization_endpoint": "https://accounts.example/a", "token_endpoint": "https://accounts.example/t"}
    keys = {"jwks_url": "https://accounts.example/keys"}
    tables = {
        "a": LOG_IN | {"issuer": "https://a.example"},
        "b": LOG_IN | ends | {"issuer": "https://b.example"},
        "c": LOG_IN | keys | {"issuer": "https://c.example"},
        "d": LOG_IN | keys | ends | {"issuer": "any"},
        "e": EXCHANGE,
    }
    assert [table.needs_discovery for table in load(tables).identity.values()] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"issuer": ""}, "issuer"),
        ({"issuer": "https://with space.example"}, "issuer"),
        ({"issuer": 5}, "issuer"),
        ({"issuer": "x" * 513}, "issuer"),
        ({"audience": ""}, "audience"),
        ({"audience": ["a b"]}, "audience"),
        ({"audience": ["a"] * 21}, "audience"),
        ({"jwks_url": "ftp://game.example/keys"}, "jwks_url"),
        ({"jwks_url": "https://user:pw@game.example/keys"}, "jwks_url"),
        ({"jwks_url": "https://game.example:99999/keys"}, "jwks_url"),
        ({"jwks_url": "http://game.example/keys"}, "jwks_url"),
        ({"jwks_url": "", "issuer": "game"}, "issuer"),
        ({"jwks_url": "", "issuer": "http://game.example"}, "issuer"),
        ({"jwks_file": "/keys.json"}, "jwks_file"),
        ({"algorithms": []}, "algorithms"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": "none"}, "algorithms"),
        ({"user_id_claim": ""}, "user_id_claim"),
        ({"user_id_claim": "email"}, "user_id_claim"),
        ({"user_id_claim": "preferred_username"}, "user_id_claim"),
        ({"name_claim": "a\nb"}, "name_claim"),
        ({"role_claim": "groups"}, "roles"),
        ({"roles": {"a": "admin"}}, "role_claim"),
        ({"role_claim": "groups", "roles": {"a": "owner"}}, "roles.a"),
        ({"client_secret": "hidden"}, "client_id"),
        ({"title": "x" * 41}, "title"),
        ({"title": "a\tb"}, "title"),
        ({"isuer": "x"}, "isuer"),
    ],
)
def test_bad_values_name_their_key(change: dict[str, Any], key: str) -> None:
    """A value out of bounds, or one that fits no other, stops the start with one line that begins with the key."""
    assert refused({"game": EXCHANGE | change}).startswith(f"identity.game.{key}")


@pytest.mark.parametrize(
    ("change", "flags", "key"),
    [
        ({"token_endpoint": "https://accounts.example/t"}, {}, "identity.school.authorization_endpoint"),
        ({"authorization_endpoint": "https://accounts.example/a"}, {}, "identity.school.token_endpoint"),
        (
            {"authorization_endpoint": "http://accounts.example/a", "token_endpoint": "https://accounts.example/t"},
            {},
            "identity.school.authorization_endpoint",
        ),
        ({"scopes": "profile"}, {}, "identity.school.scopes"),
        ({"scopes": ["openid", "a b"]}, {}, "identity.school.scopes"),
        ({}, {"server.public_url": ""}, "identity.school.client_id"),
        ({}, {"server.public_url": "board"}, "server.public_url"),
    ],
)
def test_what_a_log_in_needs(change: dict[str, Any], flags: dict[str, Any], key: str) -> None:
    """OpenID Connect needs both endpoints or neither, its scope, and our own public address."""
    assert refused({"school": LOG_IN | change}, flags).startswith(key)


@pytest.mark.parametrize("name", ["School", "1st", "a_b", "a" * 32, "-a", "ä", "device", "server"])
def test_the_names_of_tables(name: str) -> None:
    """A name is a part of paths: lower-case letters, digits and hyphens, 31 at most. Identities of guests and of server
    keys have names of their own, which no issuer can have."""
    assert refused({name: EXCHANGE}).startswith("identity.")


def test_an_issuer_has_one_table() -> None:
    """A token's issuer selects the table, so two tables can't have the same."""
    told = refused({"a": EXCHANGE, "b": EXCHANGE | {"audience": "other"}})
    assert told.startswith("identity.b.issuer: is that of identity.a too")


def test_there_are_at_most_twenty_tables() -> None:
    tables = {f"i{n}": EXCHANGE | {"issuer": f"https://{n}.example"} for n in range(21)}
    assert len(load(dict(list(tables.items())[:20])).identity) == 20
    assert refused(tables).startswith("identity: must have at most 20")


def test_private_hosts_may_be_asked_without_tls() -> None:
    """As in all requests of a node."""
    table = EXCHANGE | {"jwks_url": "http://game-server/keys"}
    assert load({"game": table}, **{"outgoing.private_hosts": "game-server"}).identity["game"].jwks_url


def test_a_misspelt_key_gets_a_suggestion() -> None:
    assert "did you mean identity.game.audience?" in refused({"game": EXCHANGE | {"audiences": "x"}})
