"""Settings: where they come from, which wins, and what is refused in which words."""

import base64
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from scoreboard.domain.errors import SettingsError
from scoreboard.settings.model import Settings, config_file, load_settings

SIGNING = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
PEM = SIGNING.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
MASTER = base64.b64encode(b"m" * 32).decode()
STORES = {"SCOREBOARD_POSTGRES__URL": "postgresql://u:hidden@db/x", "SCOREBOARD_REDIS__URL": "redis://:hidden@cache/0"}
PRODUCTION = {
    **STORES,
    "SCOREBOARD_ENVIRONMENT": "production",
    "SCOREBOARD_SERVER__PUBLIC_URL": "https://board.example/",
    "SCOREBOARD_SECURITY__SIGNING_KEYS": '{"a": "' + PEM.replace("\n", "\\n") + '"}',
    "SCOREBOARD_SECURITY__MASTER_KEYS__1": MASTER,
}


def refused(environ: dict[str, str], flags: dict[str, Any] | None = None, config: Path | None = None) -> str:
    """The one line that a start ends with."""
    with pytest.raises(SettingsError) as caught:
        load_settings(config, flags, environ)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)
    return str(caught.value)


def test_default_toml_says_every_default() -> None:
    """The commented file and the code agree on each setting and its default, and none is missing from the file."""
    written = tomllib.loads(config_file("default.toml").read_text())
    coded = Settings().model_dump(mode="json")
    coded["postgres"]["url"] = coded["redis"]["url"] = ""
    assert written == coded


def test_the_order_of_places(tmp_path: Path) -> None:
    """Configuration file, secrets folder, environment, flags: the later one wins."""
    config, secrets = tmp_path / "site.toml", tmp_path / "secrets"
    secrets.mkdir()
    config.write_text(
        '[server]\nport = 1\nhost = "a"\n[limits]\nip_per_minute = 5\n[redis]\nurl = "redis://file"\n[postgres]\nurl="postgresql://f"\n'
    )
    (secrets / "redis__url").write_text("redis://secret\n")
    (secrets / "postgres__url").write_text("postgresql://secret\n")
    (secrets / "..data").write_text("an orchestrator's own")
    environ = {
        "SCOREBOARD_SECRETS_DIR": str(secrets),
        "SCOREBOARD_POSTGRES__URL": "postgresql://env",
        "SCOREBOARD_SERVER__PORT": "2",
    }
    settings = load_settings(
        None, {"server.port": 3, "server.host": None}, {**environ, "SCOREBOARD_CONFIG": str(config)}
    )
    assert (settings.server.port, settings.server.host, settings.limits.ip_per_minute) == (3, "a", 5)
    assert settings.redis.url.get_secret_value() == "redis://secret"
    assert settings.postgres.url.get_secret_value() == "postgresql://env"
    assert load_settings(config, None, environ).server.port == 2


@pytest.mark.parametrize("given", ['["10.0.0.0/8", "::1/128"]', "10.0.0.0/8, ::1/128", "10.0.0.0/8,::1"])
def test_lists_from_the_environment(given: str) -> None:
    """A list in a variable is JSON or separated by commas."""
    settings = load_settings(environ={**STORES, "SCOREBOARD_SERVER__TRUSTED_PROXIES": given})
    assert settings.server.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1/128"))


@pytest.mark.parametrize("off", ["0", "false", "False"])
@pytest.mark.parametrize(
    "key", ["limits.user_per_minute", "limits.ip_per_minute", "limits.login_per_minute", "limits.server_key_per_minute"]
)
def test_limits_can_be_switched_off(key: str, off: str) -> None:
    """0 and false both switch a limit off, in a variable and in a file."""
    section, name = key.split(".")
    for value in (off, off == "1"):
        settings = load_settings(flags={key: value}, environ=STORES)
        assert getattr(getattr(settings, section), name) == 0
    assert not load_settings(flags={"limits.cooldowns": off}, environ=STORES).limits.cooldowns


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("server.port", "-1"),
        ("server.port", "65536"),
        ("server.port", "80a"),
        ("server.port", True),
        ("server.port", [80]),
        ("server.port", 80.5),
        ("server.host", ""),
        ("server.host", 4),
        ("server.public_url", "board.example"),
        ("server.public_url", "https://board.example/path"),
        ("server.public_url", "https://board.example:99999"),
        ("server.allowed_origins", "*"),
        ("server.allowed_origins", '["https://a.example", 5]'),
        ("server.allowed_origins", "[not json"),
        ("server.trusted_proxies", "10.0.0.1/8"),
        ("server.trusted_proxies", "everybody"),
        ("server.drain_seconds", "-1"),
        ("server.drain_seconds", float("nan")),
        ("live.tick_seconds", "nan"),
        ("live.tick_seconds", float("inf")),
        ("live.tick_seconds", 0),
        ("live.tick_seconds", False),
        ("live.anonymous", "perhaps"),
        ("live.connections_per_ip", -1),
        ("limits.user_per_minute", True),
        ("limits.user_per_minute", "-5"),
        ("limits.user_per_minute", 1.5),
        ("limits.user_per_minute", float("inf")),
        ("limits.user_per_minute", None),
        ("limits.cooldowns", 2),
        ("limits.server_key_per_minute", -1),
        ("limits.server_key_per_minute", 10**9 + 1),
        ("limits.guests_per_hour", -1),
        ("accounts.guests", "some"),
        ("retention.ended_session_days", 1),
        ("retention.ended_session_days", 3651),
        ("postgres.url", "mysql://hidden"),
        ("postgres.pool_size", 0),
        ("redis.url", "hidden"),
        ("security.access_token_seconds", "0"),
        ("security.signing_keys", "hidden"),
        ("security.signing_keys", "{hidden"),
        ("security.signing_keys.a", "hidden"),
        ("security.signing_keys.a", "-----BEGIN PRIVATE KEY-----\nhidden\n-----END PRIVATE KEY-----"),
        ("security.signing_keys.a", base64.b64encode(b"short").decode()),
        ("security.master_keys.1", "hidden"),
        ("security.log_keys.a", "hidden"),
        ("security.current_log_key", "b"),
        ("security.log_name", "two words"),
        ("security.log_name", "x" * 256),
        ("postgres.migrate_url", "mysql://hidden"),
        ("security.master_keys.one", MASTER),
        ("security.current_master_key", 7),
        ("security.current_signing_key", "b"),
        ("log.level", "loud"),
        ("environment", "staging"),
        ("server.prot", "80"),
        ("limit.ip", 5),
        ("server", 5),
    ],
)
def test_bad_values_name_their_key(key: str, value: object, tmp_path: Path) -> None:
    """An unknown key, a value of the wrong type or out of bounds: one line that begins with the key, whatever place it
    is from."""
    if value is None:  # TOML has none, a flag that is None was not given; JSON has it
        config = tmp_path / "c.toml"
        config.write_text('[limits]\nuser_per_minute = ""\n')
        assert refused(STORES, config=config).startswith(key)
        return
    assert refused(STORES, {key: value}).startswith(key)
    if isinstance(value, str):
        name = "SCOREBOARD_" + key.upper().replace(".", "__", 1).replace("_KEYS.", "_KEYS__")
        told = refused({**STORES, name: value})
        assert told.lower().startswith(key.lower())
        assert f"environment variable {name}" in told


def test_unknown_variables_are_refused_but_not_kubernetes_own() -> None:
    """A misspelt variable is refused with a suggestion; those that Kubernetes makes for a service called scoreboard are
    not ours."""
    assert "did you mean server.port?" in refused({**STORES, "SCOREBOARD_SERVER__PROT": "1"})
    assert refused({**STORES, "SCOREBOARD_ENVIROMENT": "production"}) == (
        "enviroment: unknown setting; did you mean environment? (environment variable SCOREBOARD_ENVIROMENT)"
    )
    assert refused({**STORES, "SCOREBOARD_PORT": "8080"}).startswith("port")
    kubernetes = [
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT_8000_TCP",
        "PORT_8000_TCP_ADDR",
        "REDIS_SERVICE_HOST",
    ]
    load_settings(
        environ={
            **STORES,
            **{f"SCOREBOARD_{name}": "x" for name in kubernetes},
            "SCOREBOARD_PORT": "tcp://10.0.0.1:8000",
        }
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A configuration file or secrets folder that is missing or broken is named."""
    assert str(tmp_path / "no.toml") in refused(STORES, config=tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("port = = 1")
    assert "bad.toml is not valid TOML" in refused(STORES, config=tmp_path / "bad.toml")
    assert "SCOREBOARD_SECRETS_DIR" in refused({**STORES, "SCOREBOARD_SECRETS_DIR": str(tmp_path / "no")})
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "redis__ulr").write_text("redis://hidden")
    told = refused({**STORES, "SCOREBOARD_SECRETS_DIR": str(tmp_path / "secrets")})
    assert told.startswith("redis.ulr: unknown setting; did you mean redis.url?")
    (tmp_path / "secrets" / "redis__ulr").write_bytes(b"\xff\xfe")
    assert "is not text" in refused({**STORES, "SCOREBOARD_SECRETS_DIR": str(tmp_path / "secrets")})


def test_without_stores_a_start_says_what_to_do() -> None:
    """In development the embedded servers stand in for the two URLs, when asked for."""
    assert refused({}) == "postgres.url, redis.url: missing; name a server, or start the embedded ones (--embedded)"
    assert load_settings(flags={"embedded.enabled": True}).embedded.data_dir == Path(".data")


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("SCOREBOARD_POSTGRES__URL", "postgres.url"),
        ("SCOREBOARD_REDIS__URL", "redis.url"),
        ("SCOREBOARD_SERVER__PUBLIC_URL", "server.public_url"),
        ("SCOREBOARD_SECURITY__SIGNING_KEYS", "security.signing_keys"),
        ("SCOREBOARD_SECURITY__MASTER_KEYS__1", "security.master_keys"),
    ],
)
def test_production_needs_its_secrets(variable: str, key: str) -> None:
    """In production each missing secret is named, and given as an empty one it is missing too."""
    assert refused({name: value for name, value in PRODUCTION.items() if name != variable}).startswith(key)
    assert refused({**PRODUCTION, variable: ""}).startswith(key)


def test_production_refuses_the_embedded_servers() -> None:
    """Embedded servers never serve production."""
    assert refused(PRODUCTION, {"embedded.enabled": True}).startswith("embedded.enabled")


def test_production_keys(tmp_path: Path) -> None:
    """Keys come as PEM or base64, from variables or files; the current one is the only one, or the one named, or the
    highest version."""
    settings = load_settings(environ=PRODUCTION)
    keys = settings.security.keys(tmp_path)
    assert (keys.signing, keys.current_signing, keys.master, keys.current_master) == (
        {"a": b"s" * 32},
        "a",
        {1: b"m" * 32},
        1,
    )
    assert list(tmp_path.iterdir()) == []
    assert settings.issuer == settings.server.url == "https://board.example"
    two = {**PRODUCTION, "SCOREBOARD_SECURITY__SIGNING_KEYS__B": MASTER, "SCOREBOARD_SECURITY__MASTER_KEYS__2": MASTER}
    assert refused(two).startswith("security.current_signing_key: must say")
    keys = load_settings(environ={**two, "SCOREBOARD_SECURITY__CURRENT_SIGNING_KEY": "a"}).security.keys(tmp_path)
    assert (sorted(keys.signing), keys.current_signing, keys.current_master) == (["B", "a"], "a", 2)


def test_secrets_do_not_print() -> None:
    """Neither repr nor str nor a dump of the settings shows a secret."""
    settings = load_settings(environ=PRODUCTION)
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "hidden" not in shown
    assert MASTER not in shown
    assert "PRIVATE KEY" not in shown


def test_where_the_server_is() -> None:
    """Without a public URL the server is called as somebody on this machine would call it."""
    for host, url in {
        "0.0.0.0": "http://127.0.0.1:8000",
        "::": "http://[::1]:8000",
        "fe80::1": "http://[fe80::1]:8000",
    }.items():
        assert load_settings(flags={"server.host": host}, environ=STORES).server.url == url


def test_limits_of_an_address_follow_those_of_one() -> None:
    """Of its connections: six for each viewer that it may have. Of its log-ins: as many as one account has. Off with
    them."""
    for per_ip, viewers, most in ((2000, 300, 2000), (2000, 500, 3000), (20, 3, 20), (0, 300, 0), (2000, 0, 0)):
        assert (
            load_settings(flags={"server.connections_per_ip": per_ip}, environ=STORES).server.most_connections_per_ip(
                viewers
            )
            == most
        )
    for account, address, most in ((10, 300, 300), (500, 300, 500), (0, 300, 0), (10, 0, 0)):
        flags = {"limits.login_per_minute": account, "limits.login_ip_per_minute": address}
        assert load_settings(flags=flags, environ=STORES).limits.login_ip == most


@pytest.mark.parametrize(
    "origin",
    [
        "file:///x",
        "null",
        "*",
        "javascript://x",
        "data://x",
        "ws://x",
        "myapp://",
        "capacitor:localhost",
        "tauri://localhost/x",
        "x://localhost",
    ],
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    """The line says how one looks, and which schemes an app's may have; a public URL has none of these."""
    told = refused(STORES, {"server.allowed_origins": [origin]})
    assert told.startswith("server.allowed_origins")
    assert "capacitor" in told
    assert refused(STORES, {"server.public_url": "capacitor://localhost"}).startswith(
        "server.public_url: must look like https://"
    )


@pytest.mark.parametrize(
    ("key", "good"), [("server.allowed_origins", "https://a.example"), ("server.trusted_proxies", "::1/128")]
)
def test_the_bad_entry_of_a_list_is_numbered(key: str, good: str) -> None:
    """Wherever the list comes from, which is said, too."""
    assert refused(STORES, {key: [good, "hidden", good]}).startswith(f"{key}: entry 2 ")
    variable = f"SCOREBOARD_{key.upper().replace('.', '__')}"
    told = refused(STORES | {variable: f"{good}, {good}, hidden"}, {})
    assert told.startswith(f"{key}: entry 3 ")
    assert variable in told


def test_a_check_needs_no_stores() -> None:
    """In development the embedded ones may come with a flag; in production what is missing is missing."""
    assert load_settings(environ={}, needs_stores=False).environment == "development"
    with pytest.raises(SettingsError, match=r"postgres\.url"):
        load_settings(environ={"SCOREBOARD_ENVIRONMENT": "production"}, needs_stores=False)


def test_a_configuration_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """As some editors write it."""
    config = tmp_path / "c.toml"
    config.write_text("[server]\nport = 4\n", "utf-8-sig")
    assert load_settings(config, None, STORES).server.port == 4


def test_a_file_in_another_encoding_is_told_with_the_line(tmp_path: Path) -> None:
    """What to do about it, too, as for the actions file."""
    (tmp_path / "own.toml").write_bytes('# A class\n[page]\ntitle = "Höhle"\n'.encode("latin-1"))
    told = refused(STORES, config=tmp_path / "own.toml")
    assert told == f"the configuration file {tmp_path / 'own.toml'} is not UTF-8 text; save it as UTF-8 (line 3)"


def test_a_bad_value_of_a_file_is_told_with_the_line(tmp_path: Path) -> None:
    """Whichever way the file is written; a key that nobody needs to read to its end is shortened."""
    for text, key, line in (
        ('[page]\ntitle = "A"\naccent = "red"\n', "page.accent", 3),
        ('\r\n[page]\r\naccent = "red"\r\n', "page.accent", 3),
        ('page = { title = "A", accent = "red" }\n', "page.accent", 1),
        ('page.title = "A"\npage.accent = "red"\n', "page.accent", 2),
        ("[server]\nport = 1\nportt = 1\n", "server.portt", 3),
    ):
        (tmp_path / "own.toml").write_bytes(text.encode())
        told = refused(STORES, config=tmp_path / "own.toml")
        assert told.startswith(f"{key}: ")
        assert told.endswith(f"(file {tmp_path / 'own.toml'}, line {line})")
    (tmp_path / "own.toml").write_text(f"[server]\n{'x' * 5000} = 1\n")
    assert len(refused(STORES, config=tmp_path / "own.toml")) < 300


def test_settings_know_where_they_were_given(tmp_path: Path) -> None:
    """For those who find out later that a value can't be used."""
    (tmp_path / "own.toml").write_text('[page]\nlogo = "a.png"\n')
    settings = load_settings(tmp_path / "own.toml", {"page.accent": "#0b7a75"}, STORES)
    assert settings.origin("page.logo") == f"file {tmp_path / 'own.toml'}, line 2"
    assert settings.origin("page.accent") == "command line"


def test_a_data_folder_has_a_name() -> None:
    """An empty one would be the present folder."""
    assert "embedded.data_dir: must not be empty" in refused({**STORES, "SCOREBOARD_EMBEDDED__DATA_DIR": ""})
