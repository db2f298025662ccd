"""Every setting with its type, bounds and default; and `load_settings`, which merges them from all places.

From the lowest to the highest precedence:

1. config/default.toml
2. the file of --config or SCOREBOARD_CONFIG
3. the files of the folder SCOREBOARD_SECRETS_DIR (`postgres__url`, `security__signing_keys__<kid>`, …)
4. environment variables SCOREBOARD_<SECTION>__<KEY>
5. flags

An unknown, bad or missing setting raises SettingsError: one line that names the key and where it was set. Secrets are
SecretStr, so they are never printed.
"""

import difflib
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from scoreboard.domain.errors import SettingsError
from scoreboard.domain.toml_lines import shown_keys
from scoreboard.settings import sources
from scoreboard.settings.anomalies import Alerts, Anomalies
from scoreboard.settings.identity import TABLE_NAME, IssuerSettings, check_tables
from scoreboard.settings.keys import KEYS_FILE, Keys, decode_master_key, decode_signing_key, development_keys
from scoreboard.settings.values import (
    Limit,
    Seconds,
    Section,
    Whole,
    access_lines,
    app_origin,
    as_list,
    filled_path,
    network,
    url_of,
    web_origin,
)

# ---- the settings ---------------------------------------------------------------------------------------------------


CONNECTIONS_A_BROWSER = 6  # to one host, over HTTP/1.1: what all browsers agree on


class Server(Section):
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[Whole, Field(ge=0, le=65535)] = 8000  # 0: any free port
    public_url: str = ""  # scheme://host[:port] that browsers see
    allowed_origins: Annotated[tuple[Annotated[str, AfterValidator(app_origin)], ...], BeforeValidator(as_list)] = ()
    trusted_proxies: Annotated[
        tuple[Annotated[IPv4Network | IPv6Network, BeforeValidator(network)], ...], BeforeValidator(as_list)
    ] = ()
    drain_seconds: Annotated[Seconds, Field(ge=0, le=300)] = 0.0
    connections_per_ip: Limit = 2000
    metrics_host: str = ""  # "": as `host`
    metrics_port: Annotated[Whole, Field(ge=0, le=65535)] = 0  # 0: /metrics is served on `port`

    _check_public_url = field_validator("public_url")(lambda value: web_origin(value) if value else "")

    def most_connections_per_ip(self, viewers: int) -> int:
        """How many connections one address may have at once; 0: no limit. Large enough for `viewers` of them (0: any
        number) and their other requests."""
        return (
            max(self.connections_per_ip, CONNECTIONS_A_BROWSER * viewers) if self.connections_per_ip and viewers else 0
        )

    @property
    def url(self) -> str:
        """`public_url`, else the server's address on this machine."""
        return self.public_url or self.local_url(self.port)

    def local_url(self, port: int) -> str:
        """The server's address on this machine, with the port that it listens on."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 – compared, not bound
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Console(Section):
    host: str = ""  # "": as `server.host`
    port: Annotated[Whole, Field(ge=0, le=65535)] = 0  # 0: the console is served on `server.port`
    public_url: str = ""  # scheme://host[:port] of the console's port, as browsers see it

    _check_public_url = field_validator("public_url")(lambda value: web_origin(value) if value else "")


class Postgres(Section):
    url: SecretStr = SecretStr("")
    migrate_url: SecretStr = SecretStr("")  # of the role that owns the tables; "": `url`
    pool_size: Annotated[Whole, Field(ge=1, le=1000)] = 8
    pgbouncer: bool = False

    _check_url = field_validator("url", "migrate_url")(url_of("postgresql", "postgres"))


class Redis(Section):
    url: SecretStr = SecretStr("")
    prefix: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9:._-]*$")] = ""  # begins every key and the channel

    _check_url = field_validator("url")(url_of("redis", "rediss", "unix"))


class Embedded(Section):
    enabled: bool = False
    data_dir: Annotated[Path, BeforeValidator(filled_path)] = Path(".data")
    demo_accounts: bool = True


class Security(Section):
    signing_keys: dict[str, SecretStr] = Field(default_factory=dict)
    current_signing_key: str = ""
    master_keys: dict[Annotated[int, Field(ge=1)], SecretStr] = Field(default_factory=dict)
    current_master_key: Annotated[Whole, Field(ge=0)] = 0  # 0: the highest version
    log_keys: dict[str, SecretStr] = Field(default_factory=dict)
    current_log_key: str = ""
    log_name: Annotated[str, Field(max_length=255, pattern=r"^[^\s+]*$")] = ""  # "": the host of the public URL
    issuer: str = ""
    access_token_seconds: Annotated[Whole, Field(ge=10, le=86_400)] = 900
    refresh_days: Annotated[Whole, Field(ge=1, le=3650)] = 30

    @model_validator(mode="after")
    def _check_keys(self) -> "Security":
        for name, keys, decode in (
            ("signing_keys", self.signing_keys, decode_signing_key),
            ("master_keys", self.master_keys, decode_master_key),
            ("log_keys", self.log_keys, decode_signing_key),
        ):
            for key, value in keys.items():
                try:
                    decode(value.get_secret_value())
                except ValueError as exc:
                    raise ValueError(f"security.{name}.{key} {exc}") from None
        for kind, known, current in (
            ("signing_key", self.signing_keys, self.current_signing_key),
            ("log_key", self.log_keys, self.current_log_key),
        ):
            if current and current not in known:
                raise ValueError(f"security.current_{kind} names none of security.{kind}s")
            if len(known) > 1 and not current:
                raise ValueError(f"security.current_{kind} must say which of security.{kind}s signs")
        if self.current_master_key and self.current_master_key not in self.master_keys:
            raise ValueError("security.current_master_key names none of security.master_keys")
        return self

    def keys(self, data_dir: Path) -> Keys:
        """The keys from the settings. In development a kind that is not set comes from the data folder. Raises
        StartError."""
        made = development_keys(data_dir) if not self.signing_keys or not self.master_keys else None
        signing = {kid: decode_signing_key(key.get_secret_value()) for kid, key in self.signing_keys.items()}
        master = {version: decode_master_key(key.get_secret_value()) for version, key in self.master_keys.items()}
        current_signing, current_master = (
            self.current_signing_key or next(iter(signing), ""),
            self.current_master_key or max(master, default=0),
        )
        if made and not signing:
            signing, current_signing = dict(made.signing), made.current_signing
        if made and not master:
            master, current_master = dict(made.master), made.current_master
        log = self._given_log_keys() or dict(made.log if made else {})
        return Keys(
            signing=signing,
            current_signing=current_signing,
            master=master,
            current_master=current_master,
            log=log,
            current_log=self.current_log_key or next(iter(log), ""),
        )

    def known_log_keys(self, data_dir: Path) -> dict[str, bytes]:
        """The keys of the transparency log, without making any. Raises StartError."""
        given = self._given_log_keys()
        return given or (dict(development_keys(data_dir).log) if (data_dir / KEYS_FILE).exists() else {})

    def _given_log_keys(self) -> dict[str, bytes]:
        return {name: decode_signing_key(key.get_secret_value()) for name, key in self.log_keys.items()}


class Limits(Section):
    user_per_minute: Limit = 10
    ip_per_minute: Limit = 1000
    login_per_minute: Limit = 10
    login_ip_per_minute: Limit = 300
    profile_changes_per_hour: Limit = 20
    guests_per_hour: Limit = 60
    server_key_per_minute: Limit = 6000
    cooldowns: bool = True

    @property
    def login_ip(self) -> int:
        """Log-ins a minute of one address: at least as many as of one account; 0 (no limit) if either has no limit."""
        return (
            max(self.login_ip_per_minute, self.login_per_minute)
            if self.login_ip_per_minute and self.login_per_minute
            else 0
        )


class Live(Section):
    tick_seconds: Annotated[Seconds, Field(ge=0.01, le=10)] = 0.1
    anonymous: bool = True
    connections_per_ip: Limit = 300
    connections_per_user: Limit = 20
    connections: Limit = 20_000
    slow_reader_seconds: Annotated[Seconds, Field(ge=0.5, le=300)] = 4.0


class Actions(Section):
    file: Annotated[str, Field(max_length=4096)] = ""  # "": the packaged config/actions.toml


_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}").fullmatch


class Page(Section):
    """The look of the page. web.pages.branding checks the content of the logo's file, and whether the title is
    visible."""

    title: Annotated[str, Field(min_length=1, max_length=60)] = "Scoreboard"
    logo: Annotated[str, Field(max_length=4096)] = ""  # a file; "": none
    accent: str = ""  # "": the shipped amber
    actions: bool = True  # whether it has buttons for actions

    @field_validator("accent")
    @classmethod
    def _check_accent(cls, value: str) -> str:
        if value and not _COLOUR(value):
            raise ValueError('must be a colour such as "#0b7a75"')
        return value.lower()

    @field_validator("title")
    @classmethod
    def _check_title(cls, value: str) -> str:
        if not value.isprintable() or not value.strip():
            raise ValueError("must be text that can be printed, in one line")
        return value.strip()


class Accounts(Section):
    registration: bool = True
    guests: bool = False
    avatars: bool = True


class Retention(Section):
    """How long rows are kept that nothing needs any more. The action log is kept for ever: totals are proven by it."""

    ended_session_days: Annotated[Whole, Field(ge=2, le=3650)] = 2


class Outgoing(Section):
    """Requests of the node to other servers: webhooks, alerts, keys of outside issuers (drivers.https_client)."""

    # hosts of the operator's own network, as in URLs: they may have private addresses, and be asked without TLS
    private_hosts: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=253), AfterValidator(str.lower)], ...],
        BeforeValidator(as_list),
    ] = ()
    ca_file: Annotated[str, Field(max_length=4096)] = ""  # further certificate authorities; "": the public ones alone


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    access: Annotated[str | int, BeforeValidator(access_lines)] = "errors"


class Settings(Section):
    """All settings. `load_settings` makes them at a start."""

    environment: Literal["development", "production"] = "development"
    server: Server = Server()
    console: Console = Console()
    postgres: Postgres = Postgres()
    redis: Redis = Redis()
    embedded: Embedded = Embedded()
    security: Security = Security()
    limits: Limits = Limits()
    live: Live = Live()
    actions: Actions = Actions()
    page: Page = Page()
    accounts: Accounts = Accounts()
    retention: Retention = Retention()
    outgoing: Outgoing = Outgoing()
    anomalies: Anomalies = Anomalies()
    alerts: Alerts = Alerts()
    # after `server` and `outgoing`, which its check reads
    identity: dict[Annotated[str, Field(pattern=TABLE_NAME)], IssuerSettings] = Field(default_factory=dict)
    log: Log = Log()
    _sources: sources.Sources = PrivateAttr(default_factory=sources.Sources)

    @field_validator("console")
    @classmethod
    def _check_console(cls, console: Console, info: ValidationInfo) -> Console:
        server = info.data.get("server")
        if console.port and not console.public_url and server is not None and server.public_url:
            raise ValueError("console.public_url is missing: with server.public_url, log-ins at console.port need it")
        return console

    @field_validator("identity")
    @classmethod
    def _check_identity(cls, tables: dict[str, IssuerSettings], info: ValidationInfo) -> dict[str, IssuerSettings]:
        server, outgoing = info.data.get("server"), info.data.get("outgoing")
        if server is not None and outgoing is not None:  # else they have a fault of their own, which is reported
            check_tables(tables, public_url=server.public_url, private_hosts=outgoing.private_hosts)
        return tables

    def origin(self, key: str) -> str:
        """Where `section.key` was set, as text: a file and its line, a variable, the command line; "" for a default."""
        return self._sources.origin(tuple(key.split(".")))

    @property
    def production(self) -> bool:
        return self.environment == "production"

    @property
    def issuer(self) -> str:
        """The issuer in access tokens. It is the same on every node."""
        return self.security.issuer or self.server.public_url or "scoreboard"

    @property
    def log_name(self) -> str:
        """The name of the transparency log in its checkpoints. It is the same on every node."""
        return self.security.log_name or urlsplit(self.server.public_url).netloc or "scoreboard"

    def missing(self) -> list[str]:
        """The settings that a start needs and that are not set."""
        wanted: dict[str, object] = (
            {}
            if self.embedded.enabled
            else {key: getattr(self, key).url.get_secret_value() for key in ("postgres", "redis")}
        )
        wanted = {f"{key}.url": value for key, value in wanted.items()}
        if self.production:
            wanted |= {
                "security.signing_keys": self.security.signing_keys,
                "security.master_keys": self.security.master_keys,
            }
            wanted |= {"server.public_url": self.server.public_url}
        return [key for key, value in wanted.items() if not value]


# ---- reading them ---------------------------------------------------------------------------------------------------


def config_file(name: str) -> Path:
    """The path of a file of config/, which is beside the package in a checkout, and inside it in a wheel."""
    package = Path(__file__).parent.parent
    inside = package / "config" / name
    return inside if inside.exists() else package.parent / "config" / name


def load_settings(
    config: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    needs_stores: bool = True,
) -> Settings:
    """Reads and merges all places, and checks the result. `flags` maps `section.key` to a value; None: the flag was not
    used.

    `needs_stores`: False for a check alone, since in development `--embedded` may provide the stores later.

    Raises SettingsError: one line that names the key, what is wrong, and where it was set.
    """
    environ = {} if environ is None else environ
    read = sources.Sources()
    for file in (config_file("default.toml"), config or environ.get(sources.CONFIG)):
        if file:
            read.put_toml(Path(file))
    if folder := environ.get(sources.SECRETS_DIR):
        for given in sources.read_secrets(Path(folder)):
            read.put(*given)
    for given in sources.read_environment(environ):
        read.put(*given)
    for key, value in (flags or {}).items():
        if value is not None:
            read.put(tuple(key.split(".")), value, "command line")
    try:
        settings = Settings.model_validate(read.tree)
        settings._sources = read  # noqa: SLF001 – pydantic sets no private attribute by itself
    except ValidationError as exc:
        raise SettingsError(
            "; ".join(_describe(error["loc"], error["type"], error["msg"], read) for error in exc.errors())
        ) from None
    if settings.production and settings.embedded.enabled:
        raise SettingsError(
            "embedded.enabled: the embedded servers are for development; name your own in postgres.url and redis.url"
        )
    if (missing := settings.missing()) and (needs_stores or settings.production):
        hint = (
            "production needs it" if settings.production else "name a server, or start the embedded ones (--embedded)"
        )
        raise SettingsError(f"{', '.join(missing)}: missing; {hint}")
    return settings


def _describe(loc: tuple[int | str, ...], kind: str, message: str, read: sources.Sources) -> str:
    """One error of pydantic as a message that names the key and its origin."""
    message = message.removeprefix("Value error, ").replace("Input should be", "must be")
    if loc and isinstance(number := loc[-1], int):  # an entry of a list, which was set as a whole
        loc, message = loc[:-1], f"entry {number + 1} {message}"
    path = tuple(str(part) for part in loc if part != "[key]")
    if message.startswith(f"{'.'.join(path)}."):  # from the check of a whole section, which names the key itself
        named, message = message.split(maxsplit=1)
        path = tuple(named.split(".", maxsplit=2))
    if kind == "extra_forbidden":
        path = read.leaf(path)
        close = difflib.get_close_matches(".".join(path), _known(path), n=1)
        message = "unknown setting" + (f"; did you mean {close[0]}?" if close else "")
    origin = read.origin(path)
    return f"{shown_keys(path)}: {message}" + (f" ({origin})" if origin else "")


def _known(path: tuple[str, ...]) -> list[str]:
    """All keys that there are; in a table of outside issuers those of that table."""
    if path[0] == "identity" and len(path) > 2:
        return [f"identity.{path[1]}.{key}" for key in IssuerSettings.model_fields]
    defaults = Settings()
    return ["environment"] + [
        f"{name}.{key}" for name, part in defaults if isinstance(part, Section) for key in type(part).model_fields
    ]
