"""Messages of the outbox reach a real HTTPS server: in each form, once for two nodes, and whatever that server does."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
import trio
from structlog.testing import capture_logs

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.outgoing_messages import MAX_TRIES, Channel, OutgoingMessage
from scoreboard.drivers.https_client import HttpsClient
from scoreboard.drivers.stores import Stores
from scoreboard.operations import send_messages
from scoreboard.operations.send_messages import MAX_MESSAGES_AT_ONCE, Form, MessageSender, Receiver, render, retry_after
from scoreboard.storage.postgres import outgoing_messages
from scoreboard.storage.postgres.outgoing_messages import ClaimedMessage
from scoreboard.telemetry import metrics
from scoreboard.workers import message_sender
from tests.https_server import Asked, HttpsServer, Reply, https_server
from tests.storage.conftest import stores

__all__ = ["stores"]  # the fixture

SECRET, PATH = "shared-secret", "/hooks/private-part"
MESSAGE = OutgoingMessage(Channel.ALERTS, "anomaly", "flag-1", "Anomaly points_jump: user 1", {"flagId": 1})


@asynccontextmanager
async def sender_to(stores: Stores, server: HttpsServer, form: Form = Form.JSON) -> AsyncIterator[MessageSender]:
    """A node's sender, with connections of its own."""
    client = HttpsClient(private_hosts=[server.name], ssl_context=server.ssl_context)
    receiver = Receiver(server.url + PATH, form, SECRET)
    try:
        yield MessageSender(stores, client, {Channel.ALERTS: receiver}, lambda: 1_700_000_000.5)
    finally:
        with trio.CancelScope(shield=True):
            await client.aclose()


async def add(stores: Stores, *keys: str) -> None:
    await stores.in_transaction(outgoing_messages.add_aio, [MESSAGE._replace(key=key) for key in keys])


async def end_waits(stores: Stores) -> None:
    await stores.execute("UPDATE outgoing_messages SET due_at = now() - interval '1 second' WHERE state = 'pending'")


async def outcome(stores: Stores) -> tuple[str, int, str | None]:
    row = await stores.fetchrow("SELECT state, tries, last_error FROM outgoing_messages")
    assert row is not None
    return row["state"], row["tries"], row["last_error"]


async def test_a_program_gets_a_signed_message(stores: Stores, tmp_path: Path) -> None:
    """With an id that it can know again, and a signature over time and body. Then it is sent no more."""
    async with https_server(tmp_path) as server:
        server.replies[PATH] = Reply(b"", 204)
        await add(stores, "flag-1")
        async with sender_to(stores, server) as sender:
            assert await sender.send_due() == 1
            assert await sender.send_due() == 0
        (asked,) = server.asked
    message = json.loads(asked.body)
    assert message["id"] == asked.headers["idempotency-key"]
    assert {name: message[name] for name in ("channel", "kind", "summary", "data")} == {
        "channel": "alerts",
        "kind": "anomaly",
        "summary": MESSAGE.summary,
        "data": {"flagId": 1},
    }
    expected = hmac.new(SECRET.encode(), b"1700000000." + asked.body, hashlib.sha256).hexdigest()
    assert asked.headers["x-scoreboard-signature"] == f"t=1700000000,v1={expected}"
    assert await outcome(stores) == ("sent", 1, None)


@pytest.mark.parametrize("form", [Form.DISCORD, Form.SLACK])
async def test_a_chat_gets_its_own_form(stores: Stores, tmp_path: Path, form: Form) -> None:
    """The text alone, and no signature, which it would not check."""
    async with https_server(tmp_path) as server:
        server.replies[PATH] = Reply(b"ok")
        await add(stores, "flag-1")
        async with sender_to(stores, server, form) as sender:
            await sender.send_due()
        (asked,) = server.asked
    assert "x-scoreboard-signature" not in asked.headers
    text = json.loads(asked.body)["text" if form is Form.SLACK else "content"]
    assert text.replace("\\", "") == MESSAGE.summary


HOSTILE = '@everyone <!channel> <@1> [x](https://evil.example) `*_~` & "\\ \n$data $id'


def claimed(summary: str) -> ClaimedMessage:
    return ClaimedMessage(UUID(int=1), Channel.ALERTS, "anomaly", summary, {"a": "$id"}, 1, 0)


def test_a_text_means_nothing_to_a_chat() -> None:
    """It mentions nobody, links nowhere, and can't replace another part of the form."""
    discord = json.loads(render(claimed(HOSTILE), Form.DISCORD))
    assert discord["allowed_mentions"] == {"parse": []}
    assert discord["content"].startswith("\\@everyone \\<!channel\\>")
    assert "[x](" not in discord["content"]
    assert json.loads(render(claimed(HOSTILE), Form.SLACK)) == {
        "text": HOSTILE.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    }
    whole = json.loads(render(claimed(HOSTILE), Form.JSON))
    assert (whole["summary"], whole["data"], whole["createdAt"]) == (HOSTILE, {"a": "$id"}, "1970-01-01T00:00:00.000Z")
    assert len(json.loads(render(claimed("*" * 1000), Form.DISCORD))["content"]) <= 2000


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(b"", 500), "the receiver answered 500"),
        (Reply(b"", 404), "the receiver answered 404"),
        (Reply(b"", 302, (("location", "http://127.0.0.1/"),)), "the receiver answered 302"),
        (Reply(b"x" * (send_messages.MAX_ANSWER_BYTES + 1)), "the answer has more than 16384 bytes"),
    ],
)
async def test_a_failure_is_tried_again_later(stores: Stores, tmp_path: Path, reply: Reply, why: str) -> None:
    """Also a redirect, which is not followed, and an answer without end."""
    async with https_server(tmp_path) as server:
        server.replies[PATH] = reply
        await add(stores, "flag-1")
        async with sender_to(stores, server) as sender:
            assert await sender.send_due() == 1
            assert await outcome(stores) == ("pending", 1, why)
            assert await sender.send_due() == 0
            server.replies[PATH] = Reply()
            await end_waits(stores)
            await sender.send_due()
        assert await outcome(stores) == ("sent", 2, None)
        assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1


async def test_retry_after_is_honoured(stores: Stores, tmp_path: Path) -> None:
    """A chat that asks for a minute is given it."""
    async with https_server(tmp_path) as server:
        server.replies[PATH] = Reply(b"", 429, (("retry-after", "90"),))
        await add(stores, "flag-1")
        async with sender_to(stores, server) as sender:
            await sender.send_due()
    wait = await stores.fetchval("SELECT extract(epoch FROM due_at - clock_timestamp())::float FROM outgoing_messages")
    assert 80 < wait <= 90
    assert [retry_after({"retry-after": given}) for given in ("nan", "-1", "soon", "")] == [None] * 4


async def test_a_slow_receiver_delays_nobody_else(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its messages end with their time; those beside them, of the same claim, have gone out."""
    monkeypatch.setattr(send_messages, "SEND_SECONDS", 0.5)

    async def first_hangs(asked: Asked) -> Reply:
        if json.loads(asked.body)["data"]["flagId"] == 0:
            await trio.sleep_forever()
        return Reply()

    async with https_server(tmp_path) as server:
        server.replies[PATH] = first_hangs
        messages = [MESSAGE._replace(key=str(number), data={"flagId": number}) for number in range(4)]
        await stores.in_transaction(outgoing_messages.add_aio, messages)
        async with sender_to(stores, server) as sender:
            with trio.fail_after(5):
                assert await sender.send_due() == 4
    states = await stores.fetch("SELECT state, last_error FROM outgoing_messages ORDER BY key")
    assert [row["state"] for row in states] == ["pending", "sent", "sent", "sent"]
    assert states[0]["last_error"] == "no answer within 0.5 s"


async def test_two_nodes_send_each_message_once(stores: Stores, tmp_path: Path) -> None:
    """They claim different ones, at most so many at once."""
    async with https_server(tmp_path) as server:
        server.replies[PATH] = Reply()
        await add(stores, *[str(number) for number in range(30)])
        sizes = list[int]()

        async def run_node() -> None:
            async with sender_to(stores, server) as sender:
                while sent := await sender.send_due():
                    sizes.append(sent)

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(run_node)
        ids = [asked.headers["idempotency-key"] for asked in server.asked]
    assert len(ids) == len({*ids}) == 30
    assert max(sizes) <= MAX_MESSAGES_AT_ONCE


async def test_a_node_that_dies_while_it_sends_leaves_the_message_to_another(stores: Stores, tmp_path: Path) -> None:
    """It goes out again under the same id when the claim ends: at least once."""
    async with https_server(tmp_path) as server:
        arrived = trio.Event()

        async def answer_never(_: Asked) -> Reply:
            arrived.set()
            await trio.sleep(60)
            return Reply()

        server.replies[PATH] = answer_never
        await add(stores, "flag-1")
        async with sender_to(stores, server) as dying, trio.open_nursery() as nursery:
            nursery.start_soon(dying.send_due)
            await arrived.wait()
            nursery.cancel_scope.cancel()
        server.replies[PATH] = Reply()
        async with sender_to(stores, server) as other:
            assert await other.send_due() == 0
            await end_waits(stores)
            assert await other.send_due() == 1
        assert await outcome(stores) == ("sent", 2, None)
        assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1


async def test_no_secret_is_logged_or_stored(stores: Stores, tmp_path: Path) -> None:
    """Neither the URL's path nor the secret, when nobody answers and the message dies; and no repr has them."""
    async with https_server(tmp_path) as server:
        url = server.url
    client = HttpsClient(private_hosts=["localhost"])
    receiver = Receiver(url + PATH, Form.JSON, SECRET)
    sender = MessageSender(stores, client, {Channel.ALERTS: receiver})
    before = metrics.REGISTRY.get_sample_value(
        "scoreboard_outgoing_messages_total", {"channel": "alerts", "result": "dead"}
    )
    await add(stores, "flag-1")
    with capture_logs() as lines:
        for _ in range(MAX_TRIES):
            await sender.send_due()
            await end_waits(stores)
    assert (await outcome(stores))[0] == "dead"
    await client.aclose()
    assert [line["event"] for line in lines] == ["message_dead"]
    shown = f"{lines} {await outcome(stores)} {receiver!r}"
    assert PATH not in shown
    assert SECRET not in shown
    after = metrics.REGISTRY.get_sample_value(
        "scoreboard_outgoing_messages_total", {"channel": "alerts", "result": "dead"}
    )
    assert after == (before or 0) + 1


async def test_an_address_of_the_own_network_is_refused(stores: Stores, tmp_path: Path) -> None:
    """Unless the operator names the host."""
    async with https_server(tmp_path) as server:
        server.replies[PATH] = Reply()
        await add(stores, "flag-1")
        client = HttpsClient(ssl_context=server.ssl_context)
        await MessageSender(stores, client, {Channel.ALERTS: Receiver(server.url + PATH)}).send_due()
        await client.aclose()
        assert server.asked == []
    assert "not public" in ((await outcome(stores))[2] or "")


async def test_the_worker_sends_and_outlives_an_outage(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning; then the message goes out."""
    monkeypatch.setattr(message_sender, "RUN_INTERVAL_SECONDS", 0.01)
    failures, send_due = 0, MessageSender.send_due

    async def flaky(sender: MessageSender) -> int:
        nonlocal failures
        if failures < 5:
            failures += 1
            raise StorageUnavailable("postgresql", "gone")
        return await send_due(sender)

    monkeypatch.setattr(MessageSender, "send_due", flaky)
    async with https_server(tmp_path) as server:
        server.replies[PATH] = Reply()
        await add(stores, "flag-1")
        with capture_logs() as lines:
            async with sender_to(stores, server) as sender, trio.open_nursery() as nursery:
                await nursery.start(message_sender.run_message_sender, stores, sender)
                with trio.fail_after(10):
                    while not server.asked:
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
    assert [line["event"] for line in lines] == ["messages_not_read"]
