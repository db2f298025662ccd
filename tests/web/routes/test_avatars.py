"""Pictures of users, from this server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from scoreboard.domain.errors import StorageUnavailable
from scoreboard.domain.pictures import path
from scoreboard.operations.pictures import Pictures
from scoreboard.web.headers import PAGE_POLICY
from tests.operations.people import database_url
from tests.operations.pictures import NAMES, PNG, PictureServer, ok, picture_server
from tests.web.site import ROWS, SNAPSHOT, WebServer, serve_web

__all__ = ["database_url"]  # the module's own fixture

URL = f"https://{NAMES[0]}/a.png"
USER = ROWS[1].userId
PICTURE = path(USER, URL)


@asynccontextmanager
async def serving(folder: Path, database_url: str, redis_url: str) -> AsyncIterator[tuple[WebServer, PictureServer]]:
    """A server whose second user has a picture, and the server that it is on."""
    async with picture_server(folder) as server, trio.open_nursery() as nursery:
        server.answers["/a.png"] = ok(PNG, "content-type: text/html")
        pictures = Pictures(fetcher=server.fetcher)
        await nursery.start(pictures.run)
        async with serve_web(database_url, redis_url, pictures=pictures) as web:
            rows = (ROWS[0], msgspec.structs.replace(ROWS[1], avatarUrl=URL), *ROWS[2:])
            web.board = msgspec.structs.replace(SNAPSHOT, rows=rows)
            yield web, server
        nursery.cancel_scope.cancel()


async def test_a_picture_comes_from_here(tmp_path: Path, database_url: str, redis_url: str) -> None:
    """With its media type, for other sites' pages too, cached for an hour; a request with its ETag gets 304."""
    async with serving(tmp_path, database_url, redis_url) as (web, server):
        answer = await web.http.get(PICTURE)
        assert (answer.status_code, answer.content) == (200, PNG)
        headers = answer.headers
        assert headers["content-type"] == "image/png"
        assert headers["cache-control"] == "public, max-age=3600"
        assert headers["cross-origin-resource-policy"] == "cross-origin"
        assert headers["access-control-allow-origin"] == "*"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert (await web.http.get(PICTURE, headers={"if-none-match": headers["etag"]})).status_code == 304
        assert (await web.http.head(PICTURE)).status_code == 200
        assert server.connections == 1


async def test_a_picture_under_another_address_is_not_kept(tmp_path: Path, database_url: str, redis_url: str) -> None:
    """No cache may store this picture under an older or an invented address."""
    async with serving(tmp_path, database_url, redis_url) as (web, _):
        for query in ("", "?v=00000000", PICTURE.partition("?")[2].join(("?", "&x=1"))):
            answer = await web.http.get(f"/avatars/{USER}{query}")
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "name",
    [
        ROWS[2].userId,
        USER[:-1],
        USER + "0",
        "x",
        "",
        "%2e%2e%2fstatic%2fpage.css",
        f"{USER}/",
        "%00",
        "https://pictures.example.org/a.png",
    ],
)
async def test_nobody_else_has_a_picture(tmp_path: Path, database_url: str, redis_url: str, name: str) -> None:
    """A user without a picture, and an id that is not on the board: a problem, and nothing is fetched."""
    async with serving(tmp_path, database_url, redis_url) as (web, server):
        answer = await web.http.get(f"/avatars/{name}")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert server.connections == 0


async def test_a_user_who_left_the_board_has_no_picture(tmp_path: Path, database_url: str, redis_url: str) -> None:
    """Also when the picture is still in the cache."""
    async with serving(tmp_path, database_url, redis_url) as (web, _):
        assert (await web.http.get(PICTURE)).status_code == 200
        web.board = msgspec.structs.replace(SNAPSHOT, rows=ROWS[:1])
        assert (await web.http.get(PICTURE)).status_code == 404
        web.board = StorageUnavailable("postgresql", "gone")
        assert (await web.http.get(PICTURE)).status_code == 503


async def test_a_picture_that_cannot_be_had_is_a_404(tmp_path: Path, database_url: str, redis_url: str) -> None:
    """Then the page shows initials, and does not ask again for a minute."""
    async with serving(tmp_path, database_url, redis_url) as (web, server):
        server.answers["/a.png"] = ok(b"<svg/>", "content-type: image/png")
        answer = await web.http.get(PICTURE)
        assert (answer.status_code, answer.headers.get_list("cache-control")) == (404, ["public, max-age=60"])


@pytest.mark.parametrize("host", [NAMES[0], NAMES[0].upper(), f"{NAMES[0]}:443"])
async def test_a_picture_at_the_requests_own_host_is_not_fetched(
    tmp_path: Path, database_url: str, redis_url: str, host: str
) -> None:
    """NoContent is fetched from a host that may be this server; the 404 is for this client alone, and not cached."""
    async with serving(tmp_path, database_url, redis_url) as (web, server):
        answer = await web.http.get(PICTURE, headers={"host": host})
        assert (answer.status_code, answer.headers.get_list("cache-control"), server.connections) == (
            404,
            ["no-store"],
            0,
        )
        assert (await web.http.get(PICTURE)).status_code == 200


@pytest.mark.parametrize("stored", ["https://[bad", "https://\u2100.example/a.png", "no address", "https://"])
async def test_what_is_no_address_is_a_404(tmp_path: Path, database_url: str, redis_url: str, stored: str) -> None:
    """An invalid address may have been written by plain SQL."""
    async with serving(tmp_path, database_url, redis_url) as (web, server):
        web.board = msgspec.structs.replace(SNAPSHOT, rows=(msgspec.structs.replace(ROWS[1], avatarUrl=stored),))
        answer = await web.http.get(path(USER, stored))
        assert (answer.status_code, answer.headers.get_list("cache-control")) == (404, ["public, max-age=60"])
        assert server.connections == 0


async def test_without_pictures_there_are_none(database_url: str, redis_url: str) -> None:
    """accounts.avatars = false."""
    async with serve_web(database_url, redis_url) as web:
        assert (await web.http.get(path(ROWS[0].userId, str(ROWS[0].avatarUrl)))).status_code == 404


async def test_the_page_names_no_picture_elsewhere(tmp_path: Path, database_url: str, redis_url: str) -> None:
    """Nor may it load one."""
    async with serving(tmp_path, database_url, redis_url) as (web, _):
        page = (await web.http.get("/")).text
        assert f'<img src="{PICTURE}"' in page
        assert "https://" not in page
    assert "img-src 'self' data:;" in PAGE_POLICY
