"""Errors as HTML pages, for people who open an address in a browser. A program gets problem+json.

`ErrorPages.of` is called for each response of 400 and more, of any handler. Responses of the API are not changed.
"""

import re

import msgspec
from jinja2 import Environment, PackageLoader

from scoreboard.domain.paths import STATIC_PREFIX
from scoreboard.http.request import Request, Response
from scoreboard.web.cors import API
from scoreboard.web.pages.branding import Branding

PROBLEM = b"content-type: application/problem+json"
PAGE = b"content-type: text/html; charset=utf-8\r\ncache-control: no-store\r\nvary: accept\r\n"
ACCEPT_BYTES = 1_024  # of an Accept field; browsers send some 150
KINDS = 32  # media types in it that are read

_HTML = frozenset({b"text/html", b"application/xhtml+xml"})
_JSON = frozenset({b"application/json", b"application/problem+json"})
_RETRY_AFTER = re.compile(rb"(?:^|\n)retry-after: ([0-9]{1,9})\r").search
_NEXT = re.compile(r" Next in \d+ s\.$")  # the page has its own sentence for it


class _Problem(msgspec.Struct):
    title: str
    status: int
    detail: str
    requestId: str


_decode = msgspec.json.Decoder(_Problem).decode


def wants_page(request: Request) -> bool:
    """Whether a browser opens an address: its Accept field prefers HTML to JSON, or weighs them alike."""
    accept = request.header(b"accept").lower()
    if b"html" not in accept or len(accept) > ACCEPT_BYTES or request.path.startswith(API):
        return False
    weights = {True: 0.0, False: 0.0}
    for offer in accept.split(b",", KINDS)[:KINDS]:
        kind, _, parameters = offer.partition(b";")
        if (is_html := kind.strip() in _HTML) or kind.strip() in _JSON:
            weights[is_html] = max(weights[is_html], _weight(parameters))
    return weights[True] > 0 and weights[True] >= weights[False]


def _weight(parameters: bytes) -> float:
    """`q`, 1 unless it is given and a number (RFC 9110 section 12.4.2)."""
    for parameter in parameters.split(b";"):
        name, _, value = parameter.strip().partition(b"=")
        if name == b"q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


class ErrorPages:
    """The pages, with the operator's title and colours."""

    def __init__(self, branding: Branding) -> None:
        self._branding = branding
        self._template = Environment(loader=PackageLoader("scoreboard.web"), autoescape=True).get_template("error.html")

    def of(self, request: Request, answer: Response) -> Response:
        """The response as a page, if it is a problem and `wants_page`; else the response itself. Other fields stay."""
        if not answer.fields.startswith(PROBLEM) or not wants_page(request):
            return answer
        said = _decode(answer.body)
        wait = _RETRY_AFTER(answer.fields)
        content = self._template.render(
            title=self._branding.title,
            icon=f"{STATIC_PREFIX}{self._branding.logo or 'favicon.svg'}",
            theme=self._branding.has_theme,
            heading=said.title,
            detail=_NEXT.sub("", said.detail),
            status=said.status,
            request_id=said.requestId,
            wait=int(wait[1]) if wait else 0,
        )
        lines = answer.fields.splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith((b"content-type:", b"cache-control:"))]
        return Response(answer.status, content.encode(), PAGE + b"".join(kept))
