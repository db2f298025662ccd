"""How the page presents itself: the title, the logo and the accent colour of the settings, as files that the page
loads.

`load_branding` is called once, when a node starts or the settings are checked. The page's policy allows no inline
style, so the colours are a stylesheet of their own, `theme.css`, after the shipped one.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from scoreboard.domain.colours import readable_on, text_on
from scoreboard.domain.errors import SettingsError
from scoreboard.domain.names import is_visible
from scoreboard.domain.paths import STATIC_PREFIX
from scoreboard.domain.picture_formats import MAX_SIDE_PIXELS, checked_media_type
from scoreboard.settings.model import Page

LOGO_BYTES = 262_144  # as of a user's picture; every visitor loads it
THEME, MANIFEST = "theme.css", "manifest.webmanifest"

# The page's two backgrounds, paper and card, in both colour schemes: --paper and --card of static/page.css.
LIGHT, DARK = ("#f6f4ee", "#fffefa"), ("#12110d", "#1c1a15")

SVG = "image/svg+xml"
SUFFIXES = {
    SVG: "svg",
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/avif": "avif",
}
# An SVG document: an XML declaration, comments and a DOCTYPE may come first. Scripts never run in an <img>, nor may a
# file of ours run any.
_SVG = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?>(?><\?xml[^>]*\?>|<!--.*?-->|<!DOCTYPE[^>\[]*>)\s*)*+<svg[\s>]", re.DOTALL
).match

_LOGO_STYLE = (
    "h1::before{display:none}"
    "h1 img{position:static;width:auto;height:1.75em;max-width:8em;object-fit:contain;"
    "margin-inline-end:.5em;vertical-align:middle}"
)
_TITLE_STYLE = "h1{min-width:0;overflow-wrap:anywhere}"


class Branding(NamedTuple):
    """What the page's template and its files need."""

    title: str = "Scoreboard"
    logo: str = ""  # the name of its file; "": none
    files: dict[str, bytes] = {}  # noqa: RUF012 – never changed; name → content, served beside the page's own

    @property
    def has_theme(self) -> bool:
        return THEME in self.files


SHIPPED = Branding()


def load_branding(page: Page, origin: Callable[[str], str] = lambda _: "") -> Branding:
    """The title, logo and colours of these settings. Raises SettingsError: one line that names the key, and where it
    was set.

    `origin` returns where a key was set, "" if that is not known.
    """
    try:
        return _load(page)
    except SettingsError as exc:
        where = origin(str(exc).partition(":")[0])
        raise SettingsError(f"{exc} ({where})" if where else str(exc)) from None


def _load(page: Page) -> Branding:
    if not is_visible(page.title):
        raise SettingsError("page.title: must show something")
    files: dict[str, bytes] = {}
    logo = ""
    if page.logo:
        content, kind = _read_logo(Path(page.logo))
        logo = f"logo.{SUFFIXES[kind]}"
        files[logo] = content
    if style := theme(page.accent, has_logo=bool(logo), has_title=page.title != Page().title):
        files[THEME] = style.encode()
    return Branding(page.title, logo, files)


def theme(accent: str, *, has_logo: bool = False, has_title: bool = False) -> str:
    """The stylesheet for these; "" when the shipped one is enough."""
    style = (_TITLE_STYLE if has_title else "") + (_LOGO_STYLE if has_logo else "")
    if accent:
        light, dark = shown_accents(accent)
        style += f":root{{{_colours(light)}}}@media(prefers-color-scheme:dark){{:root{{{_colours(dark)}}}}}"
    return style


def shown_accents(accent: str) -> tuple[str, str]:
    """The accent as it is shown on light and on dark: with enough contrast against both of the page's backgrounds."""
    return readable_on(accent, LIGHT), readable_on(accent, DARK)


def _colours(accent: str) -> str:
    return f"--accent:{accent};--on-accent:{text_on(accent)}"


def manifest(shipped: bytes | None, branding: Branding) -> bytes:
    """The web application manifest with our title and logo, over the shipped one if there is one."""
    if shipped and branding == SHIPPED:
        return shipped
    described = json.loads(shipped) if shipped else {"start_url": "/", "display": "standalone"}
    described |= {"name": branding.title, "short_name": branding.title[:20].strip()}
    if branding.logo or "icons" not in described:
        described["icons"] = [{"src": f"{STATIC_PREFIX}{branding.logo or 'favicon.svg'}", "sizes": "any"}]
    return json.dumps(described, ensure_ascii=False).encode()


def _read_logo(file: Path) -> tuple[bytes, str]:
    """The file's content and its media type, found from its content and not from its name."""
    try:
        if file.exists() and not file.is_file():
            raise SettingsError(f"page.logo: {file} is not a file")
        with file.open("rb") as opened:
            content = opened.read(LOGO_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        raise SettingsError(
            f"page.logo: {file} can't be read: {exc.strerror if isinstance(exc, OSError) else exc}"
        ) from None
    if len(content) > LOGO_BYTES:
        raise SettingsError(f"page.logo: {file} has more than {LOGO_BYTES // 1024} KiB")
    kind = SVG if _SVG(content) else checked_media_type(content)
    if kind is None:
        raise SettingsError(
            f"page.logo: {file} must be an SVG, PNG, JPEG, GIF, WebP or AVIF of at most {MAX_SIDE_PIXELS} pixels a side"
        )
    return content, kind
