"""The console at a port of its own: it is there and nowhere else, and nothing else is there."""

import os
import signal
import socket
from typing import Any

import httpx
from playwright.sync_api import BrowserContext, expect

from tests.e2e.browsing import collect_errors, in_browser
from tests.e2e.console_site import PASSWORD, ConsoleSite, StartNode, log_in
from tests.e2e.server_processes import free_port


def log_in_by_api(url: str, origin: str = "") -> httpx.Response:
    headers = {"origin": origin} if origin else {}
    return httpx.post(f"{url}/api/v1/auth/login", json={"username": "Adam", "password": PASSWORD}, headers=headers)


def test_console_and_admin_api_at_a_port_of_their_own(start_node: StartNode) -> None:
    """On the public port they are 404, with the right token too, and are not in its API document."""
    port = free_port()
    site = ConsoleSite(start_node(console__port=str(port)))
    site.add("Adam", "admin")
    public, console = site.node.url, f"http://127.0.0.1:{port}"
    token = log_in_by_api(public).json()["data"]["accessToken"]
    headers = {"authorization": f"Bearer {token}"}
    own = ("/console", "/api/v1/admin/me", "/api/v1/admin/users", "/api/v1/admin/log", f"/api/v1/admin/users/{port}")
    for path in own:
        assert httpx.get(public + path, headers=headers).status_code == 404
    assert not [path for path in httpx.get(f"{public}/api/v1/openapi.json").json()["paths"] if "/admin" in path]
    answers = [httpx.get(console + path, headers=headers).status_code for path in own]
    assert answers == [200, 200, 200, 200, 404]
    assert httpx.get(f"{console}/api/v1/admin/me").status_code == 401
    assert log_in_by_api(console).status_code == 200
    others = ("/", "/metrics", "/readyz", "/api/v1/scores/leaderboard", "/api/v1/users/me", "/api/v1/openapi.json")
    assert {httpx.get(console + path, headers=headers).status_code for path in others} == {404}
    upgrade: dict[str, Any] = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    key = {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert httpx.get(f"{console}/api/v1/scores/live", headers=upgrade | key).status_code == 404


def test_log_in_from_the_consoles_own_address_alone(start_node: StartNode) -> None:
    """With public URLs each page is known by its own; another site's is refused on both ports."""
    port = free_port()
    site = ConsoleSite(
        start_node(
            console__port=str(port),
            console__public_url="https://console.example",
            server__public_url="http://scores.example",
        )
    )
    site.add("Adam", "admin")
    console = f"http://127.0.0.1:{port}"
    answer = log_in_by_api(console, "https://console.example")
    assert answer.status_code == 200
    assert "Secure" in answer.headers["set-cookie"]
    answer = log_in_by_api(console, "http://scores.example")
    assert "Secure" not in answer.headers["set-cookie"]
    assert log_in_by_api(console, "https://evil.example").status_code == 403


def test_a_connection_to_the_console_does_not_keep_the_node_from_ending(start_node: StartNode) -> None:
    """Nor does a half sent request."""
    port = free_port()
    node = start_node(console__port=str(port))
    with socket.create_connection(("127.0.0.1", port)) as idle, socket.create_connection(("127.0.0.1", port)) as half:
        half.sendall(b"POST /api/v1/auth/login HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{")
        assert node.process is not None
        os.kill(node.process.pid, signal.SIGTERM)
        assert node.process.wait(20) == 0
        assert idle.recv(1) == b""


@in_browser
def test_the_console_works_at_its_own_port(visitor: BrowserContext, start_node: StartNode) -> None:
    port = free_port()
    site = ConsoleSite(start_node(console__port=str(port), console__host="127.0.0.1"))
    site.add("Adam", "admin")
    page = visitor.new_page()
    errors = collect_errors(page)
    page.goto(f"http://127.0.0.1:{port}/console")
    log_in(page, "Adam")
    expect(page.get_by_role("heading", name="Users")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Users")).to_be_visible()
    assert errors == []
