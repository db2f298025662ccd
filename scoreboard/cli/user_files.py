"""The commands of `scoreboard users …` that read or write files: `import` and `tokens`.

Tested in tests/cli/test_users.py.
"""

import sys
from itertools import chain
from pathlib import Path

import click

from scoreboard.app.accounts import build_issuer
from scoreboard.cli.options import configured
from scoreboard.cli.run import with_accounts, with_stores
from scoreboard.cli.terminal import (
    BadArgument,
    CommandRefused,
    accepted,
    printable,
    read_file,
    reason,
    shown_name,
    utf8_text,
)
from scoreboard.domain.errors import SettingsError
from scoreboard.drivers.stores import Stores
from scoreboard.operations.admin import provisioning
from scoreboard.operations.admin.import_files import decode, detect_csv, parse_users
from scoreboard.operations.admin.provisioning import Imported
from scoreboard.operations.key_versions import load_key_versions
from scoreboard.settings.model import Settings
from scoreboard.storage.postgres import sessions

MAX_REASON_CHARACTERS = 300  # of why a line is refused: parts of the line may be in it


@click.command("import")
@configured()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "json"]),
    help="What FILE is, if its name and its content do not tell.",
)
@click.option(
    "--encoding", callback=utf8_text, help="How FILE's text is encoded, e.g. latin-1.  [UTF-8, or as the file shows]"
)
def import_users(settings: Settings, file: str, kind: str | None, encoding: str | None) -> None:
    """Create users from FILE, - for standard input: CSV, JSON Lines, a JSON array or one JSON object.

    CSV has a header (username, email, password, avatarUrl), and commas, semicolons or tabs. Whoever is there already,
    with this name and this e-mail address, stays as they are, so an import may be repeated. Of two lines with one name
    or one address the first counts. Each user who is not created is told on standard error, with the line; then the
    command ends with 1, and also when FILE has no users.
    """
    raw, name = read_file(file), shown_name(file)
    decoded = accepted(decode(raw, encoding))
    if decoded.is_guessed:
        click.echo(
            f"{printable(name)} is not UTF-8; read as {decoded.encoding}. If names come out wrong, say --encoding.",
            err=True,
        )
    people = accepted(parse_users(decoded.text, is_csv=kind == "csv" if kind else detect_csv(name, decoded.text)))
    if people.ignored:
        click.echo(printable(f"columns that are not read: {', '.join(people.ignored)}"), err=True)
    first = next(people.lines, None)
    if first is None:
        raise CommandRefused(f"there are no users in {name}")
    lines = chain([first], people.lines)
    done = Imported()
    try:
        with_accounts(settings, lambda stores, accounts: provisioning.import_users(stores, accounts, lines, done))
    except click.Abort:
        raise CommandRefused(
            f"interrupted: {done.created} created, {done.existing} were there; the same import again goes on"
        ) from None
    click.echo(f"{done.created} created, {done.existing} were there, {len(done.refused)} refused")
    for number, why in done.refused:
        click.echo(f"{people.unit} {number}: {printable(why[:MAX_REASON_CHARACTERS])}", err=True)
    if done.refused:
        sys.exit(1)


@click.command("tokens")
@configured()
@click.option("--count", type=click.IntRange(1, 1_000_000), required=True, help="How many users.")
@click.option(
    "--output",
    type=click.Path(allow_dash=True),
    required=True,
    help="Lines of userId, accessToken, actionSecret, keyVersion.",
)
def make_tokens(settings: Settings, count: int, output: str) -> None:
    """Make users with ready tokens for load tests. Refused in production."""
    if settings.production:
        raise SettingsError("environment: tokens for load tests are not made in production")
    keys = settings.security.keys(settings.embedded.data_dir)

    async def work(stores: Stores) -> list[provisioning.DevelopmentToken]:
        issuer = build_issuer(settings, keys)
        await load_key_versions(stores, issuer)
        return await provisioning.development_tokens(
            stores,
            count,
            issuer,
            now=await sessions.now(stores),  # the nodes compare these tokens with PostgreSQL's clock
        )

    lines = "".join(token.line for token in with_stores(settings, work))
    if output == "-":
        click.echo(lines, nl=False)
        return
    try:
        Path(output).write_text(lines, encoding="utf-8")
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        raise BadArgument(f"{output} can't be written: {reason(exc)}") from None
