"""Requests of a node to servers that its operator has named."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Protocol

import pytest
import trio

from scoreboard.domain.errors import SettingsError
from scoreboard.drivers.https_client import Answer, HttpsClient, RequestFailure, check_url, make_ssl_context, resolve
from tests.https_server import Asked, HttpsServer, Reply, https_server

NAME = "game.example.org"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[HttpsServer]:
    async with https_server(tmp_path, NAME) as made:
        yield made


class MakeClient(Protocol):
    """Makes a client for which the server's name has these addresses."""

    def __call__(self, *addresses: str, private: bool = True, known: bool = True) -> HttpsClient: ...


@pytest.fixture
async def client_of(server: HttpsServer) -> AsyncIterator[MakeClient]:
    """Clients that are closed when the test ends. `known`: names are looked up as the test says, else really."""
    async with AsyncExitStack() as stack:

        def make(*addresses: str, private: bool = True, known: bool = True) -> HttpsClient:
            async def lookup(host: str, port: int) -> list[str]:
                if not known:
                    return await resolve(host, port)
                if host != server.name:
                    raise OSError("no such name")
                return list(addresses or ("127.0.0.1",))

            client = HttpsClient(
                private_hosts=(server.name, "localhost") if private else (),
                ssl_context=server.ssl_context,
                lookup=lookup,
            )
            stack.push_async_callback(client.aclose)
            return client

        yield make


def failure_of(result: Answer | RequestFailure) -> RequestFailure:
    assert isinstance(result, RequestFailure)
    return result


async def test_an_answer_has_status_headers_and_body_and_the_server_saw_the_request(
    server: HttpsServer, client_of: MakeClient
) -> None:
    server.replies["/hook"] = Reply(b'{"ok":true}', 201, (("X-Kind", "test"),))
    client = client_of()
    answer = await client.request("POST", f"{server.url}/hook?a=1", headers={"x-signature": "abc"}, content=b"body")
    assert isinstance(answer, Answer)
    assert (answer.status, answer.headers["x-kind"], answer.content) == (201, "test", b'{"ok":true}')
    (asked,) = server.asked
    assert (asked.method, asked.target, asked.body) == ("POST", "/hook?a=1", b"body")
    assert asked.headers["x-signature"] == "abc"
    assert asked.headers["host"] == f"{NAME}:{server.port}"


async def test_a_redirect_is_an_answer_and_is_not_followed(server: HttpsServer, client_of: MakeClient) -> None:
    server.replies["/hook"] = Reply(b"", 302, (("location", f"{server.url}/other"),))
    answer = await client_of().request("GET", f"{server.url}/hook")
    assert isinstance(answer, Answer)
    assert answer.status == 302
    assert len(server.asked) == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:127.0.0.1"])
async def test_a_host_with_an_address_that_is_not_public_is_never_connected_to(
    server: HttpsServer, client_of: MakeClient, address: str
) -> None:
    """Also if only one of its addresses is not public: which one is used is up to chance."""
    client = client_of("93.184.216.34", address, private=False)
    failure = failure_of(await client.request("GET", f"{server.url}/hook"))
    assert "not public" in failure.why
    assert not failure.may_have_arrived
    assert not server.asked


async def test_a_certificate_of_another_name_is_refused(server: HttpsServer, client_of: MakeClient) -> None:
    failure = failure_of(await client_of(known=False).request("GET", f"https://localhost:{server.port}/hook"))
    assert "certificate" in failure.why
    assert not server.asked


async def test_an_answer_of_too_many_bytes_is_a_failure(server: HttpsServer, client_of: MakeClient) -> None:
    server.replies["/hook"] = Reply(b"x" * 2000)
    failure = failure_of(await client_of().request("GET", f"{server.url}/hook", max_answer_bytes=1999))
    assert "1999" in failure.why


async def test_a_server_that_does_not_answer_in_time_is_a_failure(server: HttpsServer, client_of: MakeClient) -> None:
    async def wait(_: Asked) -> Reply:
        await trio.sleep(5)
        return Reply()

    server.replies["/hook"] = wait
    failure = failure_of(await client_of().request("GET", f"{server.url}/hook", timeout_seconds=0.2))
    assert "within 0.2 s" in failure.why
    assert failure.may_have_arrived


async def test_a_server_that_closes_without_an_answer_is_a_failure_and_the_next_request_works(
    server: HttpsServer, client_of: MakeClient
) -> None:
    async def close(_: Asked) -> None:
        return None

    server.replies |= {"/closes": close, "/hook": Reply()}
    client = client_of()
    assert failure_of(await client.request("POST", f"{server.url}/closes", content=b"x")).may_have_arrived
    assert isinstance(await client.request("GET", f"{server.url}/hook"), Answer)


async def test_a_host_without_an_address_and_a_closed_port_are_failures_that_never_arrived(
    server: HttpsServer, client_of: MakeClient
) -> None:
    client = client_of()
    for url in ("https://unknown.example.org/", f"https://{NAME}:1/"):
        assert not failure_of(await client.request("GET", url)).may_have_arrived


async def test_a_private_host_may_be_asked_without_tls(tmp_path: Path) -> None:
    async with https_server(tmp_path, "127.0.0.1", tls=False) as server:
        server.replies["/hook"] = Reply()
        async with aclosing(HttpsClient(private_hosts=("127.0.0.1",))) as client:
            assert isinstance(await client.request("GET", f"{server.url}/hook"), Answer)
        assert "https" in failure_of(await HttpsClient().request("GET", f"{server.url}/hook")).why
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("https://game.example/hook?a=b", None),
        ("http://inside/hook", None),
        ("http://game.example/", "https://"),
        ("ftp://game.example/", "https://"),
        ("", "https://host/path"),
        ("https:///path", "https://host/path"),
        ("https://a b/", "https://host/path"),
        ("https://a\r\nx: y/", "https://host/path"),
        ("https://ex\u00e4mple.org/", "https://host/path"),
        ("https://user:pass@game.example/", "user name"),
        ("https://game.example:99999/", "URL"),
        ("https://[::1/", "URL"),
        ("https://game.example/#part", "https://host/path"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, wrong: str | None) -> None:
    found = check_url(url, ("inside",))
    assert found is None if wrong is None else found is not None and wrong in found


def test_a_file_without_certificates_is_a_settings_error(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    for path in (file, tmp_path / "absent.pem"):
        with pytest.raises(SettingsError, match=r"outgoing\.ca_file"):
            make_ssl_context(str(path))
