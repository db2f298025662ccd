"""The operator's own page: title, logo, colours, actions; and which settings are refused."""

import json
import re
import struct
import zlib
from pathlib import Path

import pytest

from scoreboard.domain.colours import contrast
from scoreboard.domain.errors import SettingsError
from scoreboard.settings.model import Page, load_settings
from scoreboard.web.pages.branding import DARK, LIGHT, LOGO_BYTES, load_branding, theme
from tests.operations.people import database_url
from tests.web.site import ROOT, serve_web

__all__ = ["database_url"]  # the module's own fixture

SVG = (
    b'<?xml version="1.0"?><!-- ours -->'
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><path d="M0 0h1v1z"/></svg>'
)
OWN = Page(title="Class 7b \N{EM DASH} <quiz> & more", accent="#0b7a75")


def png(side: int) -> bytes:
    """A picture of that many pixels a side."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * (side + 1) * side)), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


async def test_the_page_is_the_operators_own(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Title, heading, manifest, link preview and icon, escaped; the files are served, and the policy stays as it is."""
    logo = tmp_path / "logo.bin"
    logo.write_bytes(png(4))
    branding = load_branding(OWN.model_copy(update={"logo": str(logo)}))
    async with serve_web(database_url, redis_url, branding=branding, public_url="https://board.example") as server:
        page = await server.http.get("/")
        escaped = "Class 7b \N{EM DASH} &lt;quiz&gt; &amp; more"
        assert f"<title>{escaped}</title>" in page.text
        assert f'<h1><img src="/static/logo.png" alt="">{escaped}</h1>' in page.text
        assert f'<meta property="og:title" content="{escaped}">' in page.text
        assert '<meta property="og:image" content="https://board.example/static/logo.png">' in page.text
        assert '<link rel="icon" href="/static/logo.png">' in page.text
        assert "unsafe" not in page.headers["content-security-policy"]
        assert "style=" not in page.text
        for name in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
            assert (await server.http.get(name)).status_code == 200, name
        served = await server.http.get("/static/logo.png")
        assert (served.headers["content-type"], served.content) == ("image/png", png(4))
        described = await server.http.get("/static/manifest.webmanifest")
        assert described.headers["content-type"] == "application/manifest+json"
        assert (described.json()["name"], described.json()["icons"][0]["src"]) == (OWN.title, "/static/logo.png")
        assert "#0b7a75" in (await server.http.get("/static/theme.css")).text


async def test_without_settings_the_page_is_the_shipped_one(database_url: str, redis_url: str) -> None:
    """No further stylesheet, the shipped title in page and manifest; buttons for the actions that have one."""
    async with serve_web(database_url, redis_url) as server:
        page = (await server.http.get("/")).text
        assert "<title>Scoreboard</title>" in page
        assert "theme.css" not in page
        assert (await server.http.get("/static/theme.css")).status_code == 404
        assert json.loads((await server.http.get("/static/manifest.webmanifest")).content)["name"] == "Scoreboard"
        assert page.count("data-action=") == 6


async def test_buttons_can_be_left_out(database_url: str, redis_url: str) -> None:
    """One action's by its rule, all of them by a setting: then there is no empty box either."""
    shipped = (ROOT / "config/actions.toml").read_text()
    async with serve_web(
        database_url, redis_url, actions=shipped.replace("points = 10\n", "points = 10\nbutton = false\n")
    ) as server:
        page = (await server.http.get("/")).text
        assert page.count("data-action=") == 5
        assert "daily_checkin" not in page
    async with serve_web(database_url, redis_url, buttons=False) as server:
        page = (await server.http.get("/")).text
        assert "data-action=" not in page
        assert 'class="actions"' not in page
        assert "First place is free" in page
        assert "Complete one action" not in page


@pytest.mark.parametrize("accent", ["#ffb51f", "#ffff00", "#000000", "#ffffff", "#7f7f7f", "#0000ff", "#ff0000"])
def test_an_accent_can_be_seen_on_both_backgrounds(accent: str) -> None:
    """Each scheme has a colour with a contrast of 4.5, and text on that colour has it too."""
    found = re.findall(r"--accent:(#[0-9a-f]{6});--on-accent:(#[0-9a-f]{6})", theme(accent))
    assert len(found) == 2
    for (shown, words), backgrounds in zip(found, (LIGHT, DARK), strict=True):
        assert all(contrast(shown, each) >= 4.5 for each in (*backgrounds, words))
    css = (ROOT / "scoreboard/web/static/page.css").read_text()
    for background in (*LIGHT, *DARK):
        assert f": {background};" in css  # of the shipped stylesheet


def test_a_logo_is_a_picture(tmp_path: Path) -> None:
    """Its type is found from its content, whatever its name; its bytes and pixels are limited; SVG is accepted too."""
    file = tmp_path / "logo"
    for content, name in ((SVG, "logo.svg"), (b"\xef\xbb\xbf" + SVG, "logo.svg"), (png(1024), "logo.png")):
        file.write_bytes(content)
        assert load_branding(Page(logo=str(file))).files["theme.css"]
        assert load_branding(Page(logo=str(file))).logo == name
    for content in (b"", b"<html><svg></svg>", b"svg", png(1025), SVG + b" " * LOGO_BYTES, b"<!---->" * 30_000):
        file.write_bytes(content)
        with pytest.raises(SettingsError, match=r"^page\.logo: [^\n]*$"):
            load_branding(Page(logo=str(file)))
    for name in (str(tmp_path), str(tmp_path / "none"), "/dev/zero", "a\0b"):
        with pytest.raises(SettingsError, match=r"^page\.logo: [^\n]*$"):
            load_branding(Page(logo=name))


@pytest.mark.parametrize("title", ["\u3164", "\u2800\u3164 \u115f", "\uffa0"])
def test_a_title_shows_something(title: str, tmp_path: Path) -> None:
    """A title of blank letters alone is refused. The error says where it was set."""
    file = tmp_path / "own.toml"
    file.write_text(f'[page]\nlogo = ""\ntitle = "{title}"\n', "utf-8")
    settings = load_settings(file, environ={}, needs_stores=False)
    with pytest.raises(SettingsError, match=r"^page\.title: must show something \(file [^\n]*own\.toml, line 3\)$"):
        load_branding(settings.page, settings.origin)
    file.write_text('[page]\nlogo = "nothere.png"\n')
    settings = load_settings(file, environ={}, needs_stores=False)
    with pytest.raises(SettingsError, match=r"^page\.logo: nothere\.png [^\n]*\(file [^\n]*own\.toml, line 2\)$"):
        load_branding(settings.page, settings.origin)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("title", title) for title in ("", " ", "x" * 61, "a\nb", "a\u202eb")),
        *(("accent", accent) for accent in ("red", "#fff", "#12345g", "#1234567", "#123456\n")),
        ("actions", "perhaps"),
        ("colour", "#123456"),
    ],
)
def test_what_can_not_be_shown_is_refused(key: str, value: str) -> None:
    """In one line that begins with the key."""
    with pytest.raises(SettingsError, match=rf"^page\.{key}: [^\n]*$"):
        load_settings(flags={f"page.{key}": value}, environ={}, needs_stores=False)
