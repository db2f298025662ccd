"""The commands `alerts …`: messages to other servers, and those that could not be delivered.

Tested by tests/cli/test_alerts.py.
"""

from secrets import token_hex
from uuid import UUID

import click

from scoreboard.app.anomalies import build_receivers
from scoreboard.cli.options import configured
from scoreboard.cli.run import with_stores
from scoreboard.cli.terminal import BadArgument, CommandRefused, printable
from scoreboard.domain.outgoing_messages import Channel, OutgoingMessage
from scoreboard.drivers.stores import Stores
from scoreboard.settings.model import Settings
from scoreboard.storage.postgres import outgoing_messages

TEST = "test"  # the kind of a message that an operator has asked for


@click.group()
def alerts() -> None:
    """Messages to the servers that the settings name."""


@alerts.command("list")
@configured()
@click.option("--dead", "only_dead", is_flag=True, help="Only those that could not be delivered.")
def list_alerts(settings: Settings, only_dead: bool) -> None:
    """Print the newest messages: time, state, number of tries, what they say, and the last error."""
    state = "dead" if only_dead else ""
    for message in with_stores(settings, lambda stores: outgoing_messages.list_messages(stores, state)):
        error = f" ({message.last_error})" if message.last_error else ""
        words = f"{message.created:%Y-%m-%dT%H:%M:%SZ}  {message.state}  {message.tries}  {message.summary}{error}"
        click.echo(f"{message.id}  {printable(words)}")


@alerts.command("retry")
@configured()
@click.argument("message", required=False)
def retry_alerts(settings: Settings, message: str | None) -> None:
    """Try dead messages again: all of them, or the one with the id MESSAGE."""
    try:
        wanted = None if message is None else UUID(message)
    except ValueError:
        raise BadArgument("MESSAGE: is not an id of a message; `scoreboard alerts list --dead` has them") from None
    number = with_stores(settings, lambda stores: outgoing_messages.retry(stores, wanted))
    if wanted is not None and not number:
        raise CommandRefused(f"there is no dead message {wanted}")
    click.echo(f"{number} messages are tried again")


@alerts.command("test")
@configured()
def test_alerts(settings: Settings) -> None:
    """Put a test message into the outbox. A running node sends it within seconds."""
    if Channel.ALERTS not in build_receivers(settings):
        raise CommandRefused("alerts.url is not set: nobody would receive it")
    message = OutgoingMessage(Channel.ALERTS, TEST, f"test-{token_hex(8)}", "A test of scoreboard's alerts", {})

    async def work(stores: Stores) -> int:
        return await stores.in_transaction(outgoing_messages.add_aio, [message])

    if not with_stores(settings, work):
        raise CommandRefused("the outbox is full: the receiver has been away for long (`scoreboard alerts list`)")
    click.echo("a test message is in the outbox; `scoreboard alerts list` shows what became of it")
