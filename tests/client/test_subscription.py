"""The subscription without a connection: delta mode ends with the same board as full mode, whatever messages are
lost."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoreboard.client.errors import Refused
from scoreboard.client.subscription import PERSONAL_EVENTS, SubscriptionState
from scoreboard.domain.boards import Entry
from tests.client.board_server import answer_to, delta_frame, frame, rows, update_frame

SUBSCRIBED = frame("subscribed", channel="leaderboard")
USERS = "abcdefghijklmn"


def receive(subscription: SubscriptionState, *texts: str) -> list[dict[str, Any]]:
    return [json.loads(reply) for text in texts for reply in subscription.receive(text)]


def entries(order: list[str], bonus: int, names: str) -> tuple[Entry, ...]:
    """Ten rows; scores change without the order, names without either."""
    return tuple(
        Entry(rank, user, user * 2 if user in names else user, 1000 - rank * 20 + bonus)
        for rank, user in enumerate(order[:10], 1)
    )


boards = st.builds(
    entries,
    st.permutations(USERS).flatmap(lambda p: st.integers(0, 14).map(lambda n: list(p[:n]))),
    st.integers(0, 9),
    st.text(USERS),
)
# What happens to each board on its way to the delta subscription.
fates = st.sampled_from(["delta", "delta", "lost", "update", "twice", "answer late", "reconnect"])


@settings(max_examples=300)
@given(steps=st.lists(st.tuples(boards, fates), max_size=25))
def test_a_delta_follower_has_the_full_board(steps: list[tuple[tuple[Entry, ...], str]]) -> None:
    """A delta subscription always shows the server's board of its position. Once all is answered, it shows the board of
    the full subscription. Deltas may be lost, repeated, replaced by a whole board, or arrive before an answer."""
    shown: list[tuple[str, tuple[Entry, ...]]] = [("1-0", ())]
    delta, full = SubscriptionState(mode="delta"), SubscriptionState(mode="full")
    questions = [json.loads(text) for text in delta.opening(None)]
    receive(full, *[text for message in full.opening(None) for text in answer_to(shown, json.loads(message))])

    def answer() -> None:
        while questions:
            questions.extend(receive(delta, SUBSCRIBED, *answer_to(shown, questions.pop(0))))

    answer()
    for number, (board, fate) in enumerate(steps, 1):
        shown.append((f"1-{number}", board))
        receive(full, update_frame(*shown[-1]))
        text = delta_frame(*shown[-2:])
        if fate == "reconnect":
            questions = [json.loads(message) for message in delta.opening(None)]
        elif fate != "lost":
            texts = {"update": [update_frame(*shown[-1])], "twice": [text, text]}.get(fate, [text])
            questions.extend(receive(delta, *texts))
        if fate != "answer late":
            answer()
        assert delta.board.entries == dict(shown)[delta.board.position]
    shown.append(("1-last", entries(list(USERS), 3, "")))
    receive(full, update_frame(*shown[-1]))
    questions.extend(receive(delta, delta_frame(*shown[-2:])))
    answer()
    assert delta.board == full.board


def test_it_resumes_from_its_position() -> None:
    """A new connection begins with the token, then asks for what came after the position that is known; a first one has
    none."""
    subscription = SubscriptionState()
    assert [json.loads(text) for text in subscription.opening("t")] == [
        {"action": "auth", "token": "t"},
        {"action": "subscribe", "channel": "leaderboard", "mode": "delta", "heartbeat": True},
    ]
    assert not receive(subscription, SUBSCRIBED)
    assert subscription.board.position == ""
    receive(subscription, update_frame("1-3", rows("ab")))
    assert json.loads(subscription.opening(None)[0])["since"] == "1-3"
    before = subscription.is_subscribed
    receive(subscription, SUBSCRIBED)  # nothing more comes: it is the newest
    assert (before, subscription.is_subscribed) == (False, True)


def test_a_full_follower_asks_for_whole_boards() -> None:
    """In full mode neither mode nor position is named."""
    subscription = SubscriptionState(mode="full")
    receive(subscription, update_frame("1-3", rows("ab")))
    assert [json.loads(text) for text in subscription.opening(None)] == [
        {"action": "subscribe", "channel": "leaderboard", "heartbeat": True}
    ]


def test_a_gap_is_asked_about_once_and_then_without_presuming() -> None:
    """Deltas that were under way do not make more questions; if the answer doesn't fit either, the whole board is asked
    for."""
    subscription, shown = SubscriptionState(), [(f"1-{number}", rows("abc"[:number])) for number in range(4)]
    receive(subscription, update_frame(*shown[0]))
    assert [
        question["since"] for question in receive(subscription, delta_frame(*shown[1:3]), delta_frame(*shown[2:4]))
    ] == ["1-0"]
    (question,) = receive(subscription, SUBSCRIBED, delta_frame(*shown[2:4]))
    assert "since" not in question
    assert not receive(subscription, SUBSCRIBED, update_frame(*shown[3]), delta_frame(shown[3], ("1-4", rows("cab"))))
    assert subscription.board.entries == rows("cab")


def test_what_else_is_told_is_remembered() -> None:
    """Standing, personal events (the newest 16), viewers and staleness; the next frame ends the latter; unknown events
    are passed over."""
    subscription = SubscriptionState()
    receive(
        subscription,
        frame("authenticated", userId="a", score=None, rank=None),
        frame("viewers", count=7),
        frame("news", text="!"),
        '{"event":"pong"}',
    )
    assert (subscription.viewers, subscription.is_authenticated) == (7, True)
    for score in range(PERSONAL_EVENTS + 2):
        receive(
            subscription,
            frame(
                "score:personal",
                previousScore=0,
                newScore=score,
                pointsAwarded=1,
                rank=2,
                position="1-1",
                timestamp="now",
            ),
        )
    assert [event.newScore for event in subscription.personal] == list(range(2, PERSONAL_EVENTS + 2))
    assert subscription.standing is not None
    assert (subscription.standing.score, subscription.standing.rank) == (PERSONAL_EVENTS + 1, 2)
    receive(subscription, frame("leaderboard:stale", since="then"))
    assert subscription.stale_since == "then"
    receive(subscription, update_frame("1-1", rows("a")))
    assert not subscription.stale_since


def test_what_silence_means_is_promised_anew_on_each_connection() -> None:
    """`subscribed` says how long the server may be silent; one that does not know of heartbeats promises nothing."""
    subscription = SubscriptionState()
    receive(subscription, frame("subscribed", channel="leaderboard", heartbeatSeconds=3.5), '{"event":"heartbeat"}')
    assert subscription.heartbeat_seconds == 3.5
    subscription.opening(None)
    assert subscription.heartbeat_seconds == 0
    receive(subscription, SUBSCRIBED)
    assert subscription.heartbeat_seconds == 0


def test_an_unknown_channel_is_an_error() -> None:
    """An unknown channel raises Refused."""
    with pytest.raises(Refused, match="UNKNOWN_CHANNEL"):
        SubscriptionState("nowhere").receive(frame("error", code="UNKNOWN_CHANNEL", message="there is no such channel"))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"event":"leaderboard:update","data":{"position":7}}', '{"event":"leaderboard:delta"}']
)
def test_nonsense_is_no_frame(text: str) -> None:
    """What is not the protocol raises, and the connection is given up; the board stays."""
    subscription = SubscriptionState()
    receive(subscription, update_frame("1-1", rows("a")))
    with pytest.raises(msgspec.MsgspecError):
        subscription.receive(text)
    assert subscription.board.entries == rows("a")
