"""One viewer's messages, budgets and deadlines, without a network."""

import json
from typing import Any
from uuid import UUID

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.domain.boards import Board
from scoreboard.domain.client_messages import MAX_MESSAGE_BYTES
from scoreboard.domain.close_codes import CloseCode
from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.framing import PING_FRAME
from scoreboard.domain.protocol import HEARTBEAT_SECONDS
from scoreboard.live.admission import Admission
from scoreboard.live.dependencies import LiveDependencies
from scoreboard.live.hub import Hub
from scoreboard.live.limits import LiveLimits
from scoreboard.live.transports.conversation import CHECK_INTERVAL_SECONDS, Conversation
from scoreboard.storage.board_cache import Standing
from tests.live.boards import BOARD, snapshot
from tests.live.dependencies import FakeAuthenticator, FakeIdentity
from tests.live.messages import kinds, masked, names, one_by_one
from tests.live.viewers import FakeViewer

ANN, BOB = UUID(int=1), UUID(int=2)
SUBSCRIBE = json.dumps({"action": "subscribe", "channel": BOARD.id})


class FakeClient:
    """A conversation and everything around it, which a test controls. Its wall clock begins at 1000 s and goes with
    Trio's."""

    def __init__(self, limits: LiveLimits | None = None) -> None:
        self.hub, self.authenticator, self.away = Hub((BOARD,)), FakeAuthenticator(), False
        self.tokens = self.authenticator.tokens
        self.began, self.refreshed = trio.current_time(), 0
        self.viewer = FakeViewer(self.hub, subscribed=False)
        self.admission = Admission(per_user=3)
        live = LiveDependencies(
            hub=self.hub,
            admission=self.admission,
            batcher=self,  # type: ignore[arg-type]  # `refresh` is all that is asked of it
            authenticator=self.authenticator,
            standings=self,
            clock=self,
        )
        self.conversation = Conversation(self.viewer, live, limits or LiveLimits())
        self.conversation.check_deadlines()

    def now(self) -> float:
        return 1000 + trio.current_time() - self.began

    async def refresh(self, board: Board) -> None:
        self.refreshed += 1
        if self.away:
            raise StorageUnavailable("postgresql", "away")
        await self.hub.publish(board, snapshot("ab", 1))

    async def standing(self, user: UUID) -> Standing:
        if self.away:
            raise StorageUnavailable("postgresql", "away")
        return Standing(40, 7)

    async def send(self, message: object) -> CloseCode | None:
        return await self.conversation.receive(message if isinstance(message, str | bytes) else json.dumps(message))

    async def pass_time(self, seconds: float, *, pongs: bool) -> None:
        """As the sweeper does: asks twice a second whether a deadline has passed. `pongs`: the viewer answers pings."""
        for _ in range(round(seconds * 2)):
            await trio.sleep(0.5)
            if trio.current_time() > self.viewer.fake.deadline:
                pings = self.viewer.fake.accepted.count(PING_FRAME)
                self.viewer.fake.deadline = float("inf")
                self.conversation.check_deadlines()
                if pongs and self.viewer.fake.accepted.count(PING_FRAME) > pings:
                    self.conversation.count_received(masked(10))

    @property
    def events(self) -> list[dict[str, Any]]:
        self.viewer.fake.accepted = [frame for frame in self.viewer.fake.accepted if frame != PING_FRAME]
        return self.viewer.events


# ---- messages --------------------------------------------------------------------------------------------------------


async def test_subscribed_names_the_heartbeat_interval() -> None:
    """`subscribed` has the heartbeat interval if the viewer wants heartbeats; a value other than true or false is a bad
    message."""
    client = FakeClient()
    await client.send({**json.loads(SUBSCRIBE), "heartbeat": True})
    await client.send(SUBSCRIBE)
    promised = [event["data"] for event in client.events if event["event"] == "subscribed"]
    assert promised == [{"channel": BOARD.id, "heartbeatSeconds": HEARTBEAT_SECONDS}, {"channel": BOARD.id}]
    assert not client.viewer.wants_heartbeat
    assert await client.send({**json.loads(SUBSCRIBE), "heartbeat": "yes"}) is CloseCode.BAD_MESSAGE


async def test_subscribe_and_the_board_at_once() -> None:
    """`subscribed`, then a full update. For the first viewer the board is read; the next one gets what is published."""
    client = FakeClient()
    assert await client.send(SUBSCRIBE) is None
    assert kinds(client.events) == ["subscribed", "leaderboard:update"]
    assert (names(client.events[1]), client.refreshed) == ("ab", 1)
    assert await client.send({"action": "unsubscribe", "channel": BOARD.id}) is None
    await client.hub.publish(BOARD, snapshot("ba", 2))
    assert kinds(client.events) == ["subscribed", "leaderboard:update", "unsubscribed"]


async def test_a_board_that_no_store_gives_is_stale() -> None:
    """A viewer that subscribes while it can't be read gets the stale event, and the board when it can be read."""
    client = FakeClient()
    client.away = True
    await client.send(SUBSCRIBE)
    await client.hub.publish(BOARD, snapshot("ab", 1))
    assert kinds(client.events) == ["subscribed", "leaderboard:stale", "leaderboard:update"]


async def test_the_end_of_staleness_is_sent() -> None:
    """Even if nothing has changed: the whole board, under the position that it had."""
    client = FakeClient()
    client.away = True
    await client.send({"action": "subscribe", "channel": BOARD.id, "since": "1-1", "mode": "delta"})
    await client.hub.publish(BOARD, snapshot("ab", 1))
    assert kinds(client.events) == ["subscribed", "leaderboard:stale", "leaderboard:update"]


async def test_an_old_board_is_sent_before_the_stale_event() -> None:
    """An update after the stale event would say that the board is live."""
    client = FakeClient()
    await client.hub.publish(BOARD, snapshot("ab", 1))
    client.away = True
    await client.send(SUBSCRIBE)
    await client.hub.publish(BOARD, snapshot("ba", 2))
    assert kinds(client.events) == ["subscribed", "leaderboard:update", "leaderboard:stale", "leaderboard:update"]


async def test_another_mode_is_refused_and_the_connection_stays() -> None:
    """Whole boards or deltas; the error says so and nothing is subscribed to."""
    client = FakeClient()
    assert await client.send({"action": "subscribe", "channel": BOARD.id, "mode": "other"}) is None
    assert [event["data"]["code"] for event in client.events] == ["UNSUPPORTED_MODE"]
    assert client.hub.watched_boards() == []


async def test_deltas_from_the_position_that_the_viewer_has() -> None:
    """With `since`: the difference from it, nothing when it is current, the whole board when it is not known; then
    deltas."""
    client = FakeClient()
    other = FakeViewer(client.hub)
    await client.hub.publish(BOARD, snapshot("ab", 1))
    await client.hub.publish(BOARD, snapshot("ba", 2))
    subscribe = {"action": "subscribe", "channel": BOARD.id, "mode": "delta"}
    for since in ("1-1", "1-2", "1-9", "x" * 4000, ""):
        assert await client.send(subscribe | {"since": since}) is None
    events = client.events
    assert kinds(events) == ["subscribed", "leaderboard:delta", "subscribed"] + ["subscribed", "leaderboard:update"] * 3
    assert events[1]["data"]["previousPosition"] == "1-1"
    await client.hub.publish(BOARD, snapshot("ab", 3))
    assert kinds(client.events)[len(events) :] == ["leaderboard:delta"]
    assert kinds(other.events) == ["leaderboard:update"] * 3


async def test_another_mode_replaces_the_previous_one() -> None:
    """Subscribing again changes the format; in full mode the whole board comes at once, with `since` or without."""
    client = FakeClient()
    await client.send({"action": "subscribe", "channel": BOARD.id, "mode": "delta"})
    await client.send({"action": "subscribe", "channel": BOARD.id, "mode": "full", "since": "1-1"})
    await client.hub.publish(BOARD, snapshot("ba", 2))
    assert kinds(client.events) == [
        "subscribed",
        "leaderboard:update",
        "subscribed",
        "leaderboard:update",
        "leaderboard:update",
    ]


async def test_connections_of_a_user_are_capped() -> None:
    """One more than allowed ends with 1013; renewing a token is no other connection."""
    client = FakeClient()
    client.tokens["t"] = FakeIdentity(ANN, 1, 2000)
    client.admission.identify(ANN)
    client.admission.identify(ANN)
    assert await client.send({"action": "auth", "token": "t"}) is None
    assert await client.send({"action": "auth", "token": "t"}) is None
    client.admission.identify(ANN)
    assert await client.send({"action": "auth", "token": "t"}) is None
    late = FakeClient()
    late.tokens["t"] = FakeIdentity(ANN, 1, 2000)
    for _ in range(3):
        late.admission.identify(ANN)
    assert await late.send({"action": "auth", "token": "t"}) is CloseCode.OVERLOADED
    assert late.viewer.user is None


@pytest.mark.parametrize("action", ["subscribe", "unsubscribe"])
async def test_an_unknown_channel_is_an_error_and_the_connection_stays(action: str) -> None:
    """A channel that names no board."""
    client = FakeClient()
    assert await client.send({"action": action, "channel": "nothing"}) is None
    assert [event["data"]["code"] for event in client.events] == ["UNKNOWN_CHANNEL"]
    assert await client.send({"action": "ping"}) is None
    assert kinds(client.events) == ["error", "pong"]


@pytest.mark.parametrize("message", ["{", "[]", "7", '{"action":"dance"}', '{"action":7}', b'{"action":"ping"}', ""])
async def test_a_bad_message_ends_it_with_an_error_event(message: str | bytes) -> None:
    """Not JSON, not an object, no such action, binary: an error event, then 4400."""
    client = FakeClient()
    assert await client.send(message) is CloseCode.BAD_MESSAGE
    assert [event["data"]["code"] for event in client.events] == ["BAD_MESSAGE"]


async def test_a_message_is_measured_in_bytes() -> None:
    """4 KiB are accepted, a byte more is too big, also when the characters are fewer."""
    client = FakeClient()
    frame = json.dumps({"action": "ping", "x": ""})
    assert await client.send(frame.replace('""', f'"{"x" * (MAX_MESSAGE_BYTES - len(frame))}"')) is None
    assert (
        await client.send(frame.replace('""', f'"{"x" * (MAX_MESSAGE_BYTES - len(frame) + 1)}"')) is CloseCode.TOO_BIG
    )
    assert await client.send(frame.replace('""', f'"{"é" * (MAX_MESSAGE_BYTES // 2)}"')) is CloseCode.TOO_BIG


async def test_authenticated_has_score_and_rank() -> None:
    """From then on personal events come too."""
    client = FakeClient()
    client.tokens["t"] = FakeIdentity(ANN, 1, 2000)
    assert await client.send({"action": "auth", "token": "t"}) is None
    assert client.events == [{"event": "authenticated", "data": {"userId": str(ANN), "score": 40, "rank": 7}}]
    assert (client.viewer.user, client.viewer.sid) == (ANN, UUID(int=1))


async def test_authenticated_without_stores_has_the_user_alone() -> None:
    """Authentication does not depend on the stores."""
    client = FakeClient()
    client.tokens["t"], client.away = FakeIdentity(ANN, 1, 2000), True
    assert await client.send({"action": "auth", "token": "t"}) is None
    assert client.events[0]["data"] == {"userId": str(ANN), "score": None, "rank": None}


async def test_a_token_that_is_not_valid_or_another_user_s_ends_it() -> None:
    """An error event, then 4401."""
    client = FakeClient()
    assert await client.send({"action": "auth", "token": "nonsense"}) is CloseCode.TOKEN
    client = FakeClient()
    client.tokens |= {"a": FakeIdentity(ANN, 1, 2000), "b": FakeIdentity(BOB, 2, 2000)}
    await client.send({"action": "auth", "token": "a"})
    assert await client.send({"action": "auth", "token": "b"}) is CloseCode.TOKEN
    assert kinds(client.events) == ["authenticated", "error"]
    assert client.viewer.user == ANN


@given(st.text(max_size=30) | st.binary(max_size=30))
def test_no_message_raises(message: str | bytes) -> None:
    """Whatever is sent: it is answered or ends the connection."""

    async def scenario() -> None:
        await FakeClient().send(message)

    trio.run(scenario)


# ---- deadlines and budgets -------------------------------------------------------------------------------------------


async def test_who_answers_pings_stays_and_who_is_silent_goes(autojump_clock: trio.testing.MockClock) -> None:
    """A ping every 20 s; the connection of a viewer that answers lives on, that of a silent one ends with 4408 after 60
    s."""
    client = FakeClient()
    await client.pass_time(600, pongs=True)
    assert client.viewer.fake.accepted.count(PING_FRAME) in {28, 29, 30}
    assert client.viewer.ends == []
    await client.pass_time(59 - 20, pongs=False)
    assert client.viewer.ends == []
    await client.pass_time(21 + CHECK_INTERVAL_SECONDS + 1, pongs=False)
    assert client.viewer.ends == [CloseCode.SILENT]


async def test_a_token_that_expires_ends_it_unless_it_is_renewed(autojump_clock: trio.testing.MockClock) -> None:
    """4401 at the moment of expiry; a newer token of the same user moves that moment."""
    client = FakeClient()
    client.tokens |= {"old": FakeIdentity(ANN, 1, 1100), "new": FakeIdentity(ANN, 2, 1200)}
    await client.send({"action": "auth", "token": "old"})
    await client.pass_time(95, pongs=True)
    await client.send({"action": "auth", "token": "new"})
    await client.pass_time(100, pongs=True)
    assert (client.viewer.ends, client.viewer.sid) == ([], UUID(int=2))
    await client.pass_time(6, pongs=True)
    assert client.viewer.ends == [CloseCode.TOKEN]


async def test_a_revoked_session_is_noticed_without_a_message(autojump_clock: trio.testing.MockClock) -> None:
    """At the next check, from what the node knows; no store is called."""
    client = FakeClient()
    client.tokens["t"] = FakeIdentity(ANN, 1, 9000)
    await client.send({"action": "auth", "token": "t"})
    client.authenticator.mark_revoked(UUID(int=1))
    await client.pass_time(CHECK_INTERVAL_SECONDS + 1, pongs=True)
    assert client.viewer.ends == [CloseCode.TOKEN]


async def test_without_anonymous_viewers_one_has_ten_seconds_to_log_in(autojump_clock: trio.testing.MockClock) -> None:
    """Until then it gets no board; after ten seconds it is closed with 4401. Once logged in, it stays."""
    client = FakeClient(LiveLimits(anonymous=False))
    assert await client.send(SUBSCRIBE) is None
    assert [event["data"]["code"] for event in client.events] == ["UNAUTHORIZED"]
    await client.pass_time(9.5, pongs=True)
    assert client.viewer.ends == []
    await client.pass_time(1, pongs=True)
    assert client.viewer.ends == [CloseCode.TOKEN]

    client = FakeClient(LiveLimits(anonymous=False))
    client.tokens["t"] = FakeIdentity(ANN, 1, 9000)
    await client.send({"action": "auth", "token": "t"})
    await client.send(SUBSCRIBE)
    await client.pass_time(60, pongs=True)
    assert (kinds(client.events), client.viewer.ends) == (["authenticated", "subscribed", "leaderboard:update"], [])


async def test_too_many_messages_end_it_and_a_pause_is_forgiven(autojump_clock: trio.testing.MockClock) -> None:
    """N in ten seconds are accepted, one more is 1008; in the next ten seconds N are accepted again."""
    rules = LiveLimits()
    client = FakeClient(rules)
    for _ in range(3):
        assert [await client.send({"action": "ping"}) for _ in range(rules.max_messages)] == [None] * rules.max_messages
        await trio.sleep(rules.window_seconds)
        client.conversation.count_received(masked(10))
    assert [await client.send({"action": "ping"}) for _ in range(rules.max_messages)] == [None] * rules.max_messages
    assert await client.send({"action": "ping"}) is CloseCode.POLICY


async def test_bytes_are_counted_whatever_they_are(autojump_clock: trio.testing.MockClock) -> None:
    """So many in ten seconds may be parsed, one more is 1008; in the next ten seconds so many again."""
    client = FakeClient(LiveLimits(max_received_bytes=1000))
    for _ in range(3):
        assert client.conversation.count_received(masked(1, b"x" * 992)) == masked(1, b"x" * 992)
        await trio.sleep(10)
    assert client.conversation.count_received(masked(1, b"x" * 992)) == masked(1, b"x" * 992)
    assert client.conversation.count_received(b"\x81") is CloseCode.POLICY


@pytest.mark.parametrize("frame", [masked(9), masked(10), masked(9, b"x" * 125), masked(1), masked(2)])
async def test_frames_are_counted_whatever_they_are(frame: bytes, autojump_clock: trio.testing.MockClock) -> None:
    """A window's worth may be parsed, one more is 1008, in one read or in many; in the next window as many again."""
    rules = LiveLimits()
    client = FakeClient(rules)
    assert client.conversation.count_received(frame * rules.max_frames) == frame * rules.max_frames
    await trio.sleep(rules.window_seconds)
    assert [client.conversation.count_received(frame) for _ in range(rules.max_frames)] == [frame] * rules.max_frames
    assert client.conversation.count_received(frame) is CloseCode.POLICY
    assert FakeClient(rules).conversation.count_received(frame * (rules.max_frames + 1)) is CloseCode.POLICY


async def test_reads_are_counted_however_little_they_bring(autojump_clock: trio.testing.MockClock) -> None:
    """A client that sends single bytes has so many reads in a window; a browser needs at most two a message."""
    rules = LiveLimits(max_reads=10)
    client = FakeClient(rules)
    for _ in range(2):
        assert [client.conversation.count_received(byte) for byte in one_by_one(masked(9, b"four"))] == [b""] * 9 + [
            masked(9, b"four")
        ]
        await trio.sleep(rules.window_seconds)
    assert [client.conversation.count_received(byte) for byte in one_by_one(masked(9, b"fives"))][
        -1
    ] is CloseCode.POLICY
