"""The load balancers of config/, run as an operator runs them, before real nodes; and browsers' side of them: TLS,
addresses, no cookies.

`Balancer` takes the shipped file and changes nothing but what is the machine's: addresses, ports, paths, the account.
Clients come from addresses of their own in 127.0.0.0/8, so that each test has its own share of every limit that counts
addresses.
"""

import os
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from pathlib import Path

import h11
import httpx
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.e2e.server_processes import ServerProcess, Viewer, free_port, watching
from tests.websockets import open_websocket

PROGRAMS = {"nginx": "nginx-light", "haproxy": "haproxy"}  # → Debian's package
PUBLIC_URL = "https://scoreboard.test"
# not on everybody's PATH
SEARCHED = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"))
CONFIG = Path(__file__).parents[2] / "config"
START_SECONDS = 10.0
STOP_SECONDS = 10.0


class Certificate:
    """A self-signed one for 127.0.0.1, and who believes in it."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "scoreboard.test")])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("scoreboard.test")]),
                False,
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.certificate, self.key, self.both = folder / "certificate.pem", folder / "key.pem", folder / "both.pem"
        text = made.public_bytes(serialization.Encoding.PEM)
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.certificate.write_bytes(text)
        self.key.write_bytes(secret)
        self.both.write_bytes(text + secret)
        self.context = ssl.create_default_context(cafile=str(self.certificate))


class Balancer:
    """One of the programs with its shipped configuration, before these nodes. Skips the test when the program is not
    installed."""

    def __init__(self, program: str, folder: Path, certificate: Certificate, nodes: list[ServerProcess]) -> None:
        found = shutil.which(program, path=SEARCHED)
        if found is None:
            pytest.skip(f"{program} is not installed (Debian's package {PROGRAMS[program]})")
        self.program, self.folder, self.certificate = program, folder, certificate
        self.port, self.plain_port, self._names = (
            free_port(),
            free_port(),
            {f"127.0.0.1:{node.port}": node for node in nodes},
        )
        self.url = f"https://127.0.0.1:{self.port}"
        self.log = folder / "requests.log"
        self._output = folder / "output.log"
        config = folder / {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[program]
        text = (CONFIG / config.name).read_text("utf-8")
        if program == "nginx":
            config.write_text(self._nginx(text, list(self._names)))
            self._command = [found, "-p", str(folder), "-e", str(self._output), "-c", str(config), "-g", "daemon off;"]
        else:
            self.log = self._output
            config.write_text(self._haproxy(text, list(self._names)))
            self._names = {f"node{number}": node for number, node in enumerate(nodes, 1)}
            self._command = [found, "-db", "-f", str(config)]
        self.process: subprocess.Popen[bytes] | None = None

    def _nginx(self, text: str, nodes: list[str]) -> str:
        changes = self._listeners(r"listen \[::\]:{}", r"listen {}") | {
            r"10\.0\.0\.11:8000": nodes[0],
            r"10\.0\.0\.12:8000": nodes[1],
            "/etc/ssl/scoreboard/fullchain.pem": str(self.certificate.certificate),
            "/etc/ssl/scoreboard/privkey.pem": str(self.certificate.key),
            "/run/nginx.pid": str(self.folder / "nginx.pid"),
            "/var/log/nginx/access.log": str(self.log),
            "/var/log/nginx/error.log": str(self._output),
            r"(?m)^http \{$": "http {\n" + "".join(
                f"    {kind}_temp_path {self.folder / kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ),
        }  # fmt: skip
        if os.geteuid():
            changes["(?m)^user .*$"] = ""
        return _changed(text, changes)

    def _haproxy(self, text: str, nodes: list[str]) -> str:
        changes = self._listeners(r"bind \[::\]:{} v6only", r"bind 0\.0\.0\.0:{}") | {
            r"10\.0\.0\.11:8000": nodes[0],
            r"10\.0\.0\.12:8000": nodes[1],
            "/etc/haproxy/certs/scoreboard.pem": str(self.certificate.both),
            "/run/haproxy/admin.sock": str(self.folder / "admin.sock"),
        }
        if os.geteuid():
            changes["(?m)^    (?:user|group) haproxy$"] = ""
        return _changed(text, changes)

    def _listeners(self, *forms: str) -> dict[str, str]:
        """The pattern of each address to listen on → one of this machine. IPv6 is not everywhere: its lines get another
        IPv4 port."""
        v6, v4 = forms
        word = v4.partition(" ")[0]
        ports = {
            v6.format(80): free_port(),
            v4.format(80): self.plain_port,
            v6.format(443): free_port(),
            v4.format(443): self.port,
        }
        return {rf"{pattern}\b": f"{word} 127.0.0.1:{port}" for pattern, port in ports.items()}

    def start(self) -> "Balancer":
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(self._command, stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                httpx.get(f"{self.url}/livez", verify=self.certificate.context, timeout=5)
                return self
            except httpx.HTTPError:
                time.sleep(0.02)
        raise AssertionError(f"{self.program} does not start: {self._output.read_text()[-3000:]}")

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    # ---- as browsers see it -----------------------------------------------------------------------------------------

    def client(self, address: str, *, keeps_cookies: bool = False) -> httpx.AsyncClient:
        """A client of that address. Without cookies it is not sticky: each request may be answered by another node."""
        client = httpx.AsyncClient(
            base_url=self.url,
            timeout=30,
            transport=httpx.AsyncHTTPTransport(verify=self.certificate.context, local_address=address),
        )
        if not keeps_cookies:
            client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return client

    async def raw(self, path: str, request_id: str) -> bytes:
        """The answer to a GET of exactly this path: a client's library would tidy it up."""
        head = (
            f"GET {path} HTTP/1.1\r\nHost: scoreboard.test\r\nX-Request-ID: {request_id}\r\nConnection: close\r\n\r\n"
        )
        async with await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", self.port, ssl_context=self.certificate.context, https_compatible=True
        ) as stream:
            await stream.send_all(head.encode())
            return bytes(await stream.receive_some(65_536))

    @asynccontextmanager
    async def viewer(
        self, *, token: str = "", subscribe: bool = True, origin: str = PUBLIC_URL
    ) -> AsyncIterator[Viewer]:
        """A browser's WebSocket."""
        opened = open_websocket(
            self.port, "/api/v1/scores/live", tls=self.certificate.context, headers=[("origin", origin)]
        )
        async with opened as socket, watching(socket, token=token, subscribe=subscribe) as made:
            yield made

    @asynccontextmanager
    async def streaming(self, **headers: str) -> AsyncIterator["Events"]:
        """An event stream; `last_event_id` resumes it after that position."""
        async with await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", self.port, ssl_context=self.certificate.context, https_compatible=True
        ) as stream:
            events = Events(stream)
            await events.open({name.replace("_", "-"): value for name, value in headers.items()})
            yield events

    # ---- as its operator sees it ------------------------------------------------------------------------------------

    async def nodes_of(self, request_id: str) -> list[ServerProcess]:
        """Which nodes were asked for that request, in order, as the balancer's log tells; retries of HAProxy show the
        last one only."""
        with trio.fail_after(10):
            while not (found := re.search(rf"id={re.escape(request_id)} node=(\S+(?:, \S+)*)", self.log.read_text())):
                await trio.sleep(0.02)
        return [self._names[name] for name in found[1].split(", ")]

    async def asks_no_node(self, request_id: str) -> bool:
        """Whether the balancer answered that request itself."""
        with trio.fail_after(10):
            while not (found := re.search(rf"id={re.escape(request_id)} node=(\S+)", self.log.read_text())):
                await trio.sleep(0.02)
        return found[1] in {"-", "<NOSRV>"}

    async def balances(self, client: httpx.AsyncClient) -> None:
        """Returns when both nodes are given requests, as they are some time after a node came back."""
        with trio.fail_after(30):
            seen: set[int] = set()
            while len(seen) < len(self._names):
                answer = await client.get("/livez")
                assert answer.status_code == httpx.codes.OK, answer.text
                seen.add((await self.nodes_of(answer.headers["x-request-id"]))[-1].port)
                # for as long as a node is thought to be gone: the limit of an address is 1000 a minute
                await trio.sleep(0.05)


class Events:
    """The Server-Sent Events of an open stream. (httpx warns when the body of a response is not read to its end; this
    one has none.)"""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream, self._http, self._rest = stream, h11.Connection(h11.CLIENT), ""

    async def open(self, fields: Mapping[str, str]) -> None:
        request = h11.Request(
            method="GET", target="/api/v1/scores/stream", headers=[("host", "scoreboard.test"), *fields.items()]
        )
        await self._stream.send_all(self._http.send(request) + self._http.send(h11.EndOfMessage()))
        response = await self._next()
        assert isinstance(response, h11.Response)
        assert response.status_code == httpx.codes.OK
        assert (b"content-type", b"text/event-stream") in [
            (name, value.partition(b";")[0]) for name, value in response.headers
        ]

    async def next(self, name: str) -> dict[str, str]:
        """The fields of the next event of that name; comments and other events are passed over."""
        with trio.fail_after(20):
            while True:
                while "\n\n" not in self._rest:
                    data = await self._next()
                    assert isinstance(data, h11.Data), f"the stream has ended without {name}"
                    self._rest += data.data.decode()
                event, _, self._rest = self._rest.partition("\n\n")
                lines = [line.partition(":") for line in event.splitlines()]
                fields = {field: value.removeprefix(" ") for field, _, value in lines if field}
                if fields.get("event") == name:
                    return fields

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self._stream.receive_some()))
        return event


def _changed(text: str, changes: Mapping[str, str]) -> str:
    """Every pattern of `changes` must be there: else the shipped file has changed under this test."""
    for pattern, replacement in changes.items():
        text, count = re.subn(pattern, lambda _, new=replacement: new, text)  # type: ignore[misc]
        assert count, f"{pattern} is not in the shipped file"
    return text
