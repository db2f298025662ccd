"""Messages of clients, and texts that are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain import client_messages


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_a_message_or_none(text: str) -> None:
    """No text makes `read_message` raise."""
    client_messages.read_message(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"action":"ping"}', client_messages.Ping()),
        ('{"action":"subscribe","channel":"leaderboard","later":1}', client_messages.Subscribe("leaderboard")),
        (
            '{"mode":"delta","since":"1-2","channel":"x","action":"subscribe"}',
            client_messages.Subscribe("x", "delta", "1-2"),
        ),
        ('{"action":"unsubscribe","channel":"leaderboard"}', client_messages.Unsubscribe("leaderboard")),
        ('{"action":"auth","token":"t"}', client_messages.Auth("t")),
        ('{"action":"dance"}', None),
        ('{"action":"subscribe"}', None),
        ('{"action":"subscribe","channel":7}', None),
        ('["ping"]', None),
        ("{", None),
        ("", None),
        ("[" * 100_000, None),
        ('{"action":"auth","token":"\\ud800"}', None),
    ],
)
def test_only_the_four_actions_are_messages(text: str, message: client_messages.Message | None) -> None:
    """The four actions are read, members of later versions ignored; everything else is no message."""
    assert client_messages.read_message(text) == message


def test_a_token_is_in_no_representation() -> None:
    """Logs and tracebacks show a message by its repr, so the token is left out there."""
    assert "secret" not in repr(client_messages.Auth("secret"))
