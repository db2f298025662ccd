"""What the page's template is given for its first paint: the present board, the actions, nothing secret.

The route of `/` calls `render_context` and renders `index.html` with it. Pure: reads no store and no settings, knows no
Quart. All text goes through Jinja's escaping; nothing here is marked safe. Tested in tests/web/test_application.py and
in a browser by tests/e2e/test_states.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from scoreboard.domain.boards import TOP_SIZE
from scoreboard.domain.paths import STATIC_PREFIX
from scoreboard.domain.pictures import path
from scoreboard.web.pages.branding import SHIPPED, Branding


class Shown(Protocol):
    """One row of a board, as the API names its members."""

    @property
    def rank(self) -> int: ...
    @property
    def userId(self) -> str: ...  # noqa: N802 - the wire's name
    @property
    def username(self) -> str: ...
    @property
    def score(self) -> int: ...
    @property
    def avatarUrl(self) -> str | None: ...  # noqa: N802 - the wire's name


@dataclass(frozen=True, slots=True)
class PageAction:
    """A button: `points` is text as people read it ("10–50"), `cooldown` is in seconds, `metadata` is sent as it is.

    `started`: seconds from a start to the action, "" for a type without starts. `proof`: "evidence" or "held" for an
    action that waits for a decision, with evidence or without, else "".
    """

    name: str
    title: str
    points: str
    cooldown: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    started: str = ""
    proof: str = ""


def initials(username: str) -> str:
    """One or two letters for a face: of the first two words, or humps, of the name. static/drawing.js does the same."""
    words = "".join(f" {c}" if c.isupper() else c if c.isalnum() else " " for c in username).split()
    return "".join(word[0] for word in words[:2]).upper() or "?"


def score_digits(scores: Iterable[int]) -> int:
    """How many digits the page leaves room for: 4, 7, 10, … as the highest score needs. static/drawing.js does the
    same."""
    longest = max((len(str(abs(score))) for score in scores), default=1)
    return max(4, -(-(longest - 1) // 3) * 3 + 1)


def render_context(
    entries: Sequence[Shown] | None,
    actions: Sequence[PageAction],
    *,
    updated: str = "",
    per_minute: int = 0,
    registration: bool = True,
    guests: bool = False,
    stage: bool = False,
    avatars: bool = True,
    branding: Branding = SHIPPED,
    public_url: str = "",
    log_ins: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The names that `index.html` uses.

    `entries` are the best first, None when no store could be read (the page then waits for the first live board);
    `updated` is the board's last change (RFC 3339), `per_minute` the user limit of actions, 0 when it is off; `guests`:
    whether one may play without an account; `stage`: the board alone; `avatars`: pictures, from this server, else
    initials alone; `branding`: title, logo and colours; `public_url`: where others find it; `log_ins`: title and path
    of each outside issuer that has a button.
    """
    rows: list[dict[str, Any]] = [
        {
            "rank": entry.rank,
            "name": entry.username,
            "score": f"{entry.score:,}",
            "user": entry.userId,
            "initials": initials(entry.username),
            "avatar": path(entry.userId, entry.avatarUrl) if avatars and entry.avatarUrl else None,
        }
        for entry in (entries or ())[:TOP_SIZE]
    ]
    rows += [{"rank": rank} for rank in range(len(rows) + 1, TOP_SIZE + 1)]
    return {
        "rows": rows,
        "shown": TOP_SIZE,
        "digits": score_digits(row.score for row in (entries or ())[:TOP_SIZE]),
        "waiting": entries is None,
        "empty": entries is not None and not entries,
        "updated": updated,
        "log_ins": log_ins,
        "title": branding.title,
        "logo": f"{STATIC_PREFIX}{branding.logo}" if branding.logo else "",
        "theme": branding.has_theme,
        "public_url": public_url,
        "stage": stage,
        "avatars": avatars,
        "per_minute": per_minute,
        "registration": registration,
        "guests": guests,
        "actions": [
            {
                "name": action.name,
                "title": action.title,
                "points": f"+{action.points}",
                "cooldown": action.cooldown,
                "metadata": json.dumps(dict(action.metadata)),
                "started": action.started,
                "proof": action.proof,
            }
            for action in actions
        ],
    }
