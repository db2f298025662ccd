"""The client over TLS, on both loops: requests and live connections trust the same certificates, through a proxy
too."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from scoreboard.client import Refused, Unreachable
from tests.background_loop import in_background
from tests.client.board_server import BoardServer, board_server, rows
from tests.client.http_proxy import http_proxy
from tests.client.loops import on_both_loops

NAMES = ("localhost", "board.test")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAMES[0])])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in NAMES]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "certificate").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "certificate", folder / "key"


@pytest.fixture
def server(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[BoardServer]:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    with board_server(context) as serving:
        yield serving


@pytest.mark.parametrize("way", ["direct", "proxy"])
@on_both_loops
async def test_a_certificate_of_the_environment_is_trusted(
    client: ModuleType, server: BoardServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """SSL_CERT_FILE counts for the live connection and for requests, on this machine and behind a proxy's tunnel."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with in_background(http_proxy(urlsplit(server.url).port or 0)) as (proxy, _):
        url = server.url if way == "direct" else "https://board.test"
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with anyio.fail_after(20):
            async with client.connect(url) as board:
                await server.show("ab")
                while board.entries != rows("ab"):
                    await board.changed()
            with pytest.raises(Refused):  # the board server has no such route
                async with client.log_in(url, "ada", "a long password"):
                    raise AssertionError("not logged in")
        assert len(proxy.heads) == (0 if way == "direct" else 2)
    assert server.closed == [1000]


@on_both_loops
async def test_a_certificate_that_nobody_knows_is_not_trusted(client: ModuleType, server: BoardServer) -> None:
    """Neither way opens: a request is not answered, a live connection is tried until its caller has waited enough."""
    with anyio.move_on_after(0.5) as scope:
        async with client.connect(server.url):
            raise AssertionError("connected")
    assert scope.cancelled_caught
    with anyio.fail_after(20), pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
        async with client.log_in(server.url, "ada", "a long password", patience=0.0):
            raise AssertionError("not logged in")
    assert server.received == []
