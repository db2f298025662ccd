"""Log-in by outside issuers over HTTP, with a real provider: what opens a session, and every lie that opens none."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from scoreboard.domain.paths import EXCHANGE_PATH, LOG_IN_FAILED_PATH, REFRESH_PATH, oidc_callback_path, oidc_path
from scoreboard.drivers.https_client import HttpsClient
from scoreboard.operations.outside_log_ins import MAX_REDEMPTIONS, REDEEM_TIMEOUT_SECONDS
from scoreboard.security.log_in_attempts import ATTEMPT_SECONDS
from scoreboard.telemetry import metrics
from tests.https_server import Reply
from tests.oidc_provider import CLIENT, SECRET, OidcProvider, oidc_provider
from tests.operations.people import database_url
from tests.outside_keys import ec_key, ed_key, key_set, rsa_key
from tests.web.site import WebServer, serve_web

__all__ = ["database_url"]  # the module's own fixture

BOARD = "https://board.example"
ATTEMPT = "__Host-scoreboard_oidc"
CALLBACK = oidc_callback_path("school")
GAME_KEY = rsa_key("game")
GAME = {"issuer": "https://game.example", "audience": "board"}


@dataclass
class Browser:
    """A browser on its way from our server to the provider and back. It keeps cookies."""

    server: WebServer
    provider: OidcProvider
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await self.server.http.get(path, headers={"cookie": cookie} | headers)
        for text in answer.headers.get_list("set-cookie"):
            name, _, value = text.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    async def begin(self, name: str = "school") -> str:
        """Where the browser is sent to log in."""
        answer = await self.get(oidc_path(name))
        assert answer.status_code == HTTPStatus.SEE_OTHER, answer.text
        return answer.headers["location"]

    async def authorize(self, url: str) -> str:
        """The path at our server that the provider sends the browser back to."""
        async with httpx.AsyncClient(verify=self.provider.server.ssl_context, trust_env=False) as client:
            answer = await client.get(url)
        assert answer.status_code == HTTPStatus.FOUND, answer.text
        location: str = answer.headers["location"]
        assert location.startswith(BOARD)
        return location.removeprefix(BOARD)

    async def log_in(self) -> httpx.Response:
        """The whole way."""
        return await self.get(await self.authorize(await self.begin()))


def user_of(answer: httpx.Response) -> str:
    """The user whom a callback has logged in."""
    assert (answer.status_code, answer.headers["location"]) == (HTTPStatus.SEE_OTHER, "/")
    named = [text for text in answer.headers.get_list("set-cookie") if text.startswith("__Host-scoreboard_user=")]
    value, _, attributes = named[0].partition("=")[2].partition("; ")
    assert attributes == "Path=/; Max-Age=60; SameSite=Lax; Secure"
    return value


def fault_of(answer: httpx.Response, browser: Browser) -> str:
    """Why a callback has logged nobody in."""
    assert answer.status_code == HTTPStatus.SEE_OTHER
    path, _, query = answer.headers["location"].partition("?")
    assert path == LOG_IN_FAILED_PATH
    assert not any("refresh" in name for name in browser.cookies)
    return parse_qs(query)["reason"][0]


def changed(location: str, **parameters: str | None) -> str:
    """A path with other parameters in its query; one that is None is left out."""
    path, _, query = location.partition("?")
    fields = dict(parse_qsl(query)) | parameters
    return f"{path}?{urlencode({name: value for name, value in fields.items() if value is not None})}"


@asynccontextmanager
async def serving(
    database_url: str, redis_url: str, folder: Path, *, table: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Browser]:
    """A server whose outside issuers are a real provider, and a game by a file of keys."""
    keys = folder / "game.json"
    keys.write_bytes(key_set(GAME_KEY))
    async with oidc_provider(folder, BOARD + CALLBACK) as provider:
        https = HttpsClient(private_hosts={"localhost"}, ssl_context=provider.server.ssl_context)
        tables = {"school": provider.table | (table or {}), "game": GAME | {"jwks_file": str(keys)}}
        async with serve_web(
            database_url, redis_url, public_url=BOARD, identity=tables, https=https, **settings
        ) as server:
            yield Browser(server, provider)
        await https.aclose()


@pytest.fixture
async def browser(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Browser]:
    async with serving(database_url, redis_url, tmp_path) as made:
        yield made


async def sessions_of(browser: Browser) -> int:
    count: int = await browser.server.people.stores.fetchval("SELECT count(*) FROM sessions")
    return count


# ---- a browser's log-in ---------------------------------------------------------------------------------------------


async def test_a_browser_logs_in(browser: Browser) -> None:
    """Discovery, authorization, code, ID token: then the browser has a session of a new user, and the page's refresh
    finds it. The next log-in finds the same user."""
    answer = await browser.log_in()
    user = user_of(answer)
    assert browser.cookies[ATTEMPT] == ""
    cookie = f"__Secure-scoreboard_refresh={browser.cookies['__Secure-scoreboard_refresh']}"
    refreshed = await browser.server.http.post(
        REFRESH_PATH, json={"userId": user}, headers={"cookie": cookie, "origin": BOARD}
    )
    assert refreshed.status_code == HTTPStatus.OK
    assert refreshed.json()["data"]["username"] == "Ada"
    assert user_of(await browser.log_in()) == user
    assert user_of(await Browser(browser.server, browser.provider).log_in()) == user
    browser.provider.subject = "user-2"
    assert user_of(await browser.log_in()) != user


async def test_the_request_for_authorization(browser: Browser) -> None:
    """Everything that protects a log-in is in the first redirect, and its values are new each time."""
    first, second = [parse_qs(urlsplit(await browser.begin()).query) for _ in range(2)]
    assert first["response_type"] == ["code"]
    assert first["client_id"] == [CLIENT]
    assert first["redirect_uri"] == [BOARD + CALLBACK]
    assert first["scope"] == ["openid profile"]
    assert first["code_challenge_method"] == ["S256"]
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name][0]) == 43
        assert first[name] != second[name]


async def test_the_cookie_of_an_attempt(browser: Browser) -> None:
    """It is for this host alone, for scripts not at all, and is sent when the browser comes from another site."""
    answer = await browser.get(oidc_path("school"))
    (cookie,) = answer.headers.get_list("set-cookie")
    name, _, attributes = cookie.partition("=")
    assert name == ATTEMPT
    assert attributes.split("; ")[1:] == ["Path=/", "Secure", f"Max-Age={ATTEMPT_SECONDS}", "HttpOnly", "SameSite=Lax"]
    assert answer.headers["cache-control"] == "no-store"


async def test_the_callback_keeps_no_code(browser: Browser) -> None:
    """The answer to the callback is a redirect that is not stored, so that no address with a code stays behind."""
    answer = await browser.log_in()
    assert answer.headers["cache-control"] == "no-store"
    assert "code" not in answer.headers["location"]
    assert answer.content == b""


async def test_two_nodes_share_a_log_in(browser: Browser, database_url: str, redis_url: str, tmp_path: Path) -> None:
    """The browser may come back to another node: the first one keeps nothing."""
    url = await browser.begin()
    https = HttpsClient(private_hosts={"localhost"}, ssl_context=browser.provider.server.ssl_context)
    tables = {"school": browser.provider.table}
    async with serve_web(database_url, redis_url, public_url=BOARD, identity=tables, https=https) as other:
        second = Browser(other, browser.provider, browser.cookies)
        assert user_of(await second.get(await second.authorize(url)))
    await https.aclose()


async def test_a_public_client(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Without a secret the client is proven by the verifier alone."""
    async with serving(database_url, redis_url, tmp_path, table={"client_secret": ""}) as browser:
        browser.provider.client_secret = ""
        assert user_of(await browser.log_in())


async def test_a_provider_that_takes_the_secret_in_the_body(browser: Browser) -> None:
    browser.provider.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    assert user_of(await browser.log_in())


async def test_endpoints_of_the_settings(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """With keys and endpoints in the settings no discovery document is asked for."""
    table: dict[str, Any] = {}
    async with serving(database_url, redis_url, tmp_path, table=table) as first:
        base = first.provider.issuer
        ends = {"authorization_endpoint": f"{base}/authorize?tenant=a", "token_endpoint": f"{base}/token"}
        tables = {"school": first.provider.table | ends | {"jwks_url": f"{base}/keys"}}
        https = HttpsClient(private_hosts={"localhost"}, ssl_context=first.provider.server.ssl_context)
        async with serve_web(database_url, redis_url, public_url=BOARD, identity=tables, https=https) as server:
            browser = Browser(server, first.provider)
            url = await browser.begin()
            assert "?tenant=a&response_type=code&" in url
            assert user_of(await browser.get(await browser.authorize(url)))
            assert first.provider.count("/.well-known/openid-configuration") == 0
        await https.aclose()


@pytest.mark.parametrize("path", [oidc_path("other"), oidc_path("game"), oidc_path("school") + "/x", oidc_path("")])
async def test_other_names_are_not_found(browser: Browser, path: str) -> None:
    """A name that is not configured, and an issuer without log-in."""
    for tried in (path, path + "/callback"):
        assert (await browser.get(tried)).status_code == HTTPStatus.NOT_FOUND


# ---- what a provider, or somebody in between, may send ---------------------------------------------------------------

LIES = {
    "wrong_nonce": "refused",
    "no_nonce": "refused",
    "wrong_audience": "refused",
    "many_audiences": "refused",
    "another_party": "refused",
    "swapped_issuer": "refused",
    "expired": "refused",
    "of_tomorrow": "refused",
    "no_subject": "refused",
    "empty_subject": "refused",
    "long_subject": "refused",
    "subject_of_another_type": "refused",
    "subject_with_nul": "refused",
    "alg_none": "refused",
    "alg_none_signed": "refused",
    "hs256_with_public_key": "refused",
    "hs256_with_client_secret": "refused",
    "unknown_kid": "refused",
    "another_key": "refused",
    "key_of_another_type": "refused",
    "own_key_in_header": "refused",
    "changed_after_signing": "refused",
    "no_id_token": "refused",
    "id_token_no_text": "refused",
    "not_json": "refused",
    "redirect": "refused",
    "no_iss": "refused",
    "iss_of_another": "refused",
    "huge": "unavailable",
    "hang_up": "unavailable",
    "server_error": "unavailable",
    "keys_huge": "unavailable",
    "keys_hang_up": "unavailable",
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_opens_no_session(browser: Browser, lie: str) -> None:
    """Whatever a provider lies about, nobody is logged in and no user is made. After it an honest answer counts."""
    browser.provider.lies = {lie}
    answer = await browser.log_in()
    assert fault_of(answer, browser) == LIES[lie]
    assert await sessions_of(browser) == 0
    assert await browser.server.people.stores.fetchval("SELECT count(*) FROM users") == 0
    assert browser.cookies[ATTEMPT] == ""


async def test_a_slow_provider_is_given_up(browser: Browser) -> None:
    browser.provider.lies = {"slow"}
    with trio.fail_after(REDEEM_TIMEOUT_SECONDS + 2):
        assert fault_of(await browser.log_in(), browser) == "unavailable"


async def test_slow_providers_hold_few_log_ins(browser: Browser) -> None:
    """While MAX_REDEMPTIONS codes wait for a provider, the next log-in is refused at once. Browsers that leave give
    their places back."""
    browser.provider.lies = {"slow"}
    waiting = [Browser(browser.server, browser.provider) for _ in range(MAX_REDEMPTIONS)]
    async with trio.open_nursery() as nursery:
        for each in waiting:
            nursery.start_soon(each.log_in)
        with trio.fail_after(10):
            while browser.provider.count("/token") < MAX_REDEMPTIONS:
                await trio.sleep(0.01)
        assert fault_of(await browser.log_in(), browser) == "unavailable"
        assert browser.provider.count("/token") == MAX_REDEMPTIONS
        nursery.cancel_scope.cancel()
    browser.provider.lies = set()
    with trio.fail_after(10):
        while "refresh" not in "".join(browser.cookies):
            await browser.log_in()
    assert await sessions_of(browser) == 1


async def test_an_outage_of_the_database_is_told_on_a_page(browser: Browser) -> None:
    """Nobody is logged in, and the next attempt counts."""
    stores = browser.server.people.stores
    await stores.execute("ALTER TABLE identities RENAME TO identities_away")
    try:
        assert fault_of(await browser.log_in(), browser) == "outage"
        assert (await exchange(browser, game_token())).status_code == HTTPStatus.SERVICE_UNAVAILABLE
    finally:
        await stores.execute("ALTER TABLE identities_away RENAME TO identities")
    assert user_of(await browser.log_in())


async def test_the_document_of_another_issuer_is_not_used(browser: Browser) -> None:
    """A discovery document must name the configured issuer: else it could send codes elsewhere (mix-up)."""
    browser.provider.lies = {"discovery_of_another_issuer"}
    answer = await browser.get(oidc_path("school"))
    assert answer.headers["location"] == f"{LOG_IN_FAILED_PATH}?reason=unavailable"


@pytest.mark.parametrize(
    "endpoint",
    ["http://evil.example/authorize", "javascript:alert(1)", "https://a:b@evil.example/", "//evil.example", 5],
)
async def test_an_endpoint_that_is_no_https_address_is_not_used(browser: Browser, endpoint: object) -> None:
    browser.provider.metadata["authorization_endpoint"] = endpoint
    answer = await browser.get(oidc_path("school"))
    assert answer.headers["location"] == f"{LOG_IN_FAILED_PATH}?reason=unavailable"


@pytest.mark.parametrize(("member", "path"), [("jwks_uri", "/keys"), ("token_endpoint", "/token")])
async def test_a_document_leads_to_no_private_address(browser: Browser, member: str, path: str) -> None:
    """An issuer can't have this node ask servers of the operator's own network (SSRF)."""
    browser.provider.metadata[member] = f"https://127.0.0.1:{browser.provider.server.port}{path}"
    assert fault_of(await browser.log_in(), browser) == "unavailable"
    assert browser.provider.count(path) == 0


async def test_an_issuer_is_not_asked_for_keys_at_each_log_in(browser: Browser) -> None:
    """A key that is made within a minute of the last question is not known yet. How it becomes known is in
    tests/operations/test_outside_issuers.py."""
    assert user_of(await browser.log_in())
    browser.provider.key = ec_key("rotated")
    browser.provider.published = [browser.provider.key]
    other = Browser(browser.server, browser.provider)
    for _ in range(3):
        assert fault_of(await other.log_in(), other) == "refused"
    assert browser.provider.count("/keys") == 1


async def test_a_code_counts_once(browser: Browser) -> None:
    """Cookie and address of a finished log-in, presented again: the provider refuses the code."""
    back = await browser.authorize(await browser.begin())
    before = dict(browser.cookies)
    assert user_of(await browser.get(back))
    thief = Browser(browser.server, browser.provider, before)
    assert fault_of(await thief.get(back), thief) == "refused"
    assert await sessions_of(browser) == 1


# ---- what another site, or another person, may try ------------------------------------------------------------------


async def test_log_in_csrf_opens_no_session(browser: Browser) -> None:
    """A victim's browser is sent to the callback with the attacker's code: it has no cookie of that attempt, or that of
    an own one."""
    attacker = Browser(browser.server, browser.provider)
    back = await attacker.authorize(await attacker.begin())
    assert fault_of(await browser.get(back), browser) == "expired"
    await browser.begin()
    mine = browser.cookies[ATTEMPT]
    assert fault_of(await browser.get(back), browser) == "expired"
    assert browser.cookies[ATTEMPT] == mine  # the attempt in this browser goes on
    assert await sessions_of(browser) == 0


async def test_a_stolen_code_can_not_be_injected(browser: Browser) -> None:
    """An attacker puts a victim's code into an attempt of his own: the code was made for another verifier. A provider
    that does not compare verifiers is still found out by the nonce."""
    back = await browser.authorize(await browser.begin())
    stolen = dict(parse_qsl(urlsplit(back).query))["code"]
    attacker = Browser(browser.server, browser.provider)
    own = await attacker.authorize(await attacker.begin())
    assert fault_of(await attacker.get(changed(own, code=stolen)), attacker) == "refused"
    own = await attacker.authorize(await attacker.begin())
    own_grant = browser.provider.grants[dict(parse_qsl(urlsplit(own).query))["code"]]
    browser.provider.grants[stolen].challenge = own_grant.challenge  # as if verifiers were not compared
    assert fault_of(await attacker.get(changed(own, code=stolen)), attacker) == "refused"
    assert await sessions_of(browser) == 0


async def test_a_mix_up_of_issuers_is_noticed(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """An attempt with one issuer can't be finished at the callback of another."""
    async with serving(database_url, redis_url, tmp_path) as browser:
        tables = {
            "school": browser.provider.table,
            "evil": browser.provider.table | {"issuer": "https://evil.example", "token_endpoint": "https://evil.example/t",
                                              "authorization_endpoint": "https://evil.example/a"},
        }  # fmt: skip
        https = HttpsClient(private_hosts={"localhost"}, ssl_context=browser.provider.server.ssl_context)
        async with serve_web(database_url, redis_url, public_url=BOARD, identity=tables, https=https) as server:
            victim = Browser(server, browser.provider)
            back = await victim.authorize(await victim.begin())
            elsewhere = back.replace(CALLBACK, oidc_callback_path("evil"))
            assert fault_of(await victim.get(elsewhere), victim) == "expired"
        await https.aclose()


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({"state": None}, "expired"),
        ({"state": ""}, "expired"),
        ({"state": "ä"}, "expired"),
        ({"code": None}, "refused"),
        ({"code": ""}, "refused"),
        ({"code": "x" * 4097}, "refused"),
        ({"code": "unknown"}, "refused"),
        ({"code": "x" * 9000}, "expired"),
        ({"iss": "https://evil.example"}, "refused"),
        ({"error": "server_error"}, "refused"),
        ({"error": "access_denied"}, "cancelled"),
        ({"error": "<script>", "error_description": "<script>"}, "refused"),
        ({f"more{n}": "x" for n in range(20)}, "expired"),
    ],
)
async def test_changed_answers(browser: Browser, parameters: dict[str, str | None], fault: str) -> None:
    """No session is opened. What can't be read may be anybody's, so it does not end the attempt."""
    back = await browser.authorize(await browser.begin())
    assert fault_of(await browser.get(changed(back, **parameters)), browser) == fault
    assert await sessions_of(browser) == 0


async def test_a_repeated_parameter_is_refused(browser: Browser) -> None:
    """Two readers could take different ones. The attempt goes on: any page could have made such a link."""
    back = await browser.authorize(await browser.begin())
    assert fault_of(await browser.get(back + "&code=other"), browser) == "expired"
    assert user_of(await browser.get(back))


async def test_failures_are_logged_once_a_minute_and_counted(browser: Browser) -> None:
    """With the reason, and without tokens, codes or texts that a browser has brought."""

    def count(outcome: str) -> float:
        labels = {"issuer": "school", "outcome": outcome}
        return metrics.REGISTRY.get_sample_value("scoreboard_outside_log_ins_total", labels) or 0.0

    before = count("refused"), count("logged_in")
    with capture_logs() as logs:
        browser.provider.client_secret = "another one"
        for _ in range(3):
            await browser.log_in()
        for error in ("server_error", "server_error", "<script>", "other\ntext"):
            back = await browser.authorize(await browser.begin())
            await browser.get(changed(back, error=error))
        browser.provider.client_secret = SECRET
        await browser.log_in()
    failures = [line for line in logs if line["event"] == "outside_log_in_failed"]
    assert [line["why"] for line in failures] == [
        "status 401, invalid_client",
        "server_error",
        "an error code that is not known",
    ]
    assert {line["issuer"] for line in failures} == {"school"}
    assert (count("refused") - before[0], count("logged_in") - before[1]) == (7, 1)


async def test_a_title_is_text(database_url: str, redis_url: str, tmp_path: Path) -> None:
    async with serving(database_url, redis_url, tmp_path, table={"title": '"><b>A & B'}) as browser:
        page = (await browser.server.http.get("/")).text
        assert "Log in with &#34;&gt;&lt;b&gt;A &amp; B</a>" in page


@pytest.mark.parametrize(
    "path", [f"{oidc_path('school')}?next=//evil.example", f"{oidc_path('school')}?redirect_uri=https://evil.example"]
)
async def test_there_is_no_open_redirect(browser: Browser, path: str) -> None:
    """Parameters do not change where a browser is sent, at the beginning or at the end."""
    answer = await browser.get(path)
    assert "evil" not in answer.headers["location"]
    back = await browser.authorize(answer.headers["location"])
    finished = await browser.get(back + "&next=https://evil.example")
    assert user_of(finished)


@pytest.mark.parametrize("value", ["", "x", "A" * 96, "../../x"])
async def test_an_invented_cookie_is_no_attempt(browser: Browser, value: str) -> None:
    back = await browser.authorize(await browser.begin())
    browser.cookies[ATTEMPT] = value
    assert fault_of(await browser.get(back), browser) == "expired"


async def test_a_cookie_without_the_prefix_does_not_count(browser: Browser) -> None:
    """Any page on plain http, or a sibling domain, may have set such a cookie."""
    back = await browser.authorize(await browser.begin())
    browser.cookies = {"scoreboard_oidc": browser.cookies[ATTEMPT], "x__Host-scoreboard_oidc": browser.cookies[ATTEMPT]}
    assert fault_of(await browser.get(back), browser) == "expired"


async def test_an_attempt_ends_after_ten_minutes(browser: Browser) -> None:
    back = await browser.authorize(await browser.begin())
    browser.server.people.ahead = ATTEMPT_SECONDS + 1.0
    assert fault_of(await browser.get(back), browser) == "expired"


@pytest.mark.parametrize(
    ("mode", "dest", "is_allowed"),
    [
        ("navigate", "document", True),
        ("navigate", "iframe", False),
        ("no-cors", "image", False),
        ("cors", "empty", False),
    ],
)
async def test_how_another_site_may_send_a_browser(browser: Browser, mode: str, dest: str, *, is_allowed: bool) -> None:
    """Only a person whose window goes to the callback comes through, no frame or picture of another site. No other site
    can begin a log-in."""
    fetch = {"sec-fetch-site": "cross-site", "sec-fetch-mode": mode, "sec-fetch-dest": dest}
    back = await browser.authorize(await browser.begin())
    answer = await browser.get(back, **fetch)
    assert (answer.status_code == HTTPStatus.SEE_OTHER) is is_allowed
    assert (await browser.get(oidc_path("school"), **fetch)).status_code == HTTPStatus.FORBIDDEN


async def test_log_ins_of_an_address_are_limited(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A browser's log-ins and exchanged tokens count with all other log-ins of the address. A refused one asks
    nobody."""
    async with serving(database_url, redis_url, tmp_path, login_per_minute=2) as browser:
        assert user_of(await browser.log_in())
        assert user_of(await browser.log_in())
        other = Browser(browser.server, browser.provider)
        assert fault_of(await other.log_in(), other) == "limited"
        assert browser.provider.count("/token") == 2
        answer = await browser.server.http.post(EXCHANGE_PATH, json={"token": game_token()})
        assert answer.status_code == HTTPStatus.TOO_MANY_REQUESTS
        assert answer.json()["layer"] == "login"


@pytest.mark.parametrize(
    ("reason", "status", "words"),
    [
        ("expired", 401, "expired"),
        ("cancelled", 401, "cancelled"),
        ("refused", 401, "could not be verified"),
        ("unavailable", 503, "cannot be reached"),
        ("outage", 503, "Nobody can log in"),
        ("limited", 429, "Too many log-ins"),
        ("<script>alert(1)</script>", 401, "could not be verified"),
        ("", 401, "could not be verified"),
    ],
)
async def test_the_page_of_a_failure(browser: Browser, reason: str, status: int, words: str) -> None:
    """One plain sentence by reason; an invented reason shows nothing of it."""
    path = f"{LOG_IN_FAILED_PATH}?{urlencode({'reason': reason})}"
    answer = await browser.server.http.get(path, headers={"accept": "text/html"})
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert words in answer.text
    assert "<script>" not in answer.text
    assert (await browser.server.http.get(path)).json()["success"] is False


async def test_the_page_has_a_button_for_each_issuer(browser: Browser) -> None:
    """Issuers whose tokens are only exchanged have none."""
    page = await browser.server.http.get("/")
    assert f'href="{oidc_path("school")}">Log in with School</a>' in page.text
    assert oidc_path("game") not in page.text


# ---- exchange --------------------------------------------------------------------------------------------------------


def game_token(**claims: Any) -> str:
    now = int(time.time())
    own = {"iss": GAME["issuer"], "aud": "board", "sub": "player-7", "exp": now + 60, "preferred_username": "Grace"}
    return GAME_KEY.sign({name: value for name, value in (own | claims).items() if value is not None})


async def exchange(browser: Browser, token: str, **headers: str) -> httpx.Response:
    return await browser.server.http.post(EXCHANGE_PATH, json={"token": token}, headers=headers)


async def test_a_token_is_exchanged(browser: Browser) -> None:
    """The answer is that of a log-in, and the same token gives the same user again until it expires."""
    answer = await exchange(browser, game_token())
    assert answer.status_code == HTTPStatus.OK, answer.text
    data = answer.json()["data"]
    assert set(data) == {
        "userId", "username", "accessToken", "expiresIn", "actionSecret", "actionKeyVersion", "actionSecretExpiresAt",
        "refreshToken",
    }  # fmt: skip
    assert data["username"] == "Grace"
    me = await browser.server.http.get("/api/v1/users/me", headers={"authorization": f"Bearer {data['accessToken']}"})
    assert (me.json()["data"]["userId"], me.json()["data"]["email"]) == (data["userId"], None)
    assert (await exchange(browser, game_token())).json()["data"]["userId"] == data["userId"]
    assert (await exchange(browser, game_token(sub="player-8"))).json()["data"]["userId"] != data["userId"]


async def test_a_browser_gets_the_refresh_token_as_a_cookie(browser: Browser) -> None:
    answer = await exchange(browser, game_token(), origin=BOARD)
    assert "refreshToken" not in answer.json()["data"]
    assert any("__Secure-scoreboard_refresh" in text for text in answer.headers.get_list("set-cookie"))
    assert (await exchange(browser, game_token(), origin="https://evil.example")).status_code == HTTPStatus.FORBIDDEN


async def test_the_session_names_its_client(browser: Browser) -> None:
    """The user's list of sessions shows by which browser a log-in came."""
    firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
    await exchange(browser, game_token(), **{"user-agent": firefox})
    back = await browser.authorize(await browser.begin())
    assert user_of(await browser.get(back, **{"user-agent": firefox}))
    clients = await browser.server.people.stores.fetch("SELECT client FROM sessions")
    assert [row["client"] for row in clients] == ["Firefox on Linux"] * 2


async def test_requests_at_once_make_one_user(browser: Browser) -> None:
    """Those that wait for the first one too long, on a slow machine, are told to try again, and then find its user."""
    found = []

    async def ask() -> None:
        with trio.fail_after(30):
            while (answer := await exchange(browser, game_token(sub="twice"))).status_code != HTTPStatus.OK:
                assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE, answer.text
        found.append(answer.json()["data"]["userId"])

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(ask)
    assert len(found) == 6
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": "https://game.example/"},
        {"iss": None},
        {"iss": ["https://game.example"]},
        {"aud": "another"},
        {"aud": None},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"sub": "a\nb"},
    ],
)
async def test_a_token_with_wrong_claims_is_refused(browser: Browser, claims: dict[str, Any]) -> None:
    """One answer for every fault: it does not tell which issuers, keys or audiences there are."""
    answer = await exchange(browser, game_token(**claims))
    assert answer.status_code == HTTPStatus.UNAUTHORIZED
    assert answer.json()["detail"] == "This token is not accepted here."
    assert await sessions_of(browser) == 0


async def test_an_issuer_without_audience_exchanges_nothing(browser: Browser) -> None:
    """An ID token that a browser's log-in has brought is no token for the exchange, unless the settings say so."""
    now = int(time.time())
    claims = {"iss": browser.provider.issuer, "aud": CLIENT, "sub": "user-1", "exp": now + 60, "iat": now}
    assert (await exchange(browser, ed_key().sign(claims))).status_code == HTTPStatus.UNAUTHORIZED


async def test_our_own_access_token_is_refused(browser: Browser) -> None:
    mine = (await browser.server.register())["accessToken"]
    assert (await exchange(browser, mine)).status_code == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b'{"token": 5}', 400),
        (b'{"token": ""}', 400),
        (b'{"token": "a", "more": 1}', 400),
        (b'{"token": "a", "token": "b"}', 400),
        (json.dumps({"token": "a" * 16_385}).encode(), 413),
        (b'{"token": "not a token"}', 401),
        (b'{"token": "a.b.c"}', 401),
    ],
)
async def test_bodies_that_are_no_exchange(browser: Browser, body: bytes, status: int) -> None:
    answer = await browser.server.http.post(EXCHANGE_PATH, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status


async def test_keys_that_can_not_be_had_are_an_outage(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """503, and not 401: the client's token may be good. Nothing is counted against its address."""
    async with serving(database_url, redis_url, tmp_path, table={"audience": "board"}) as browser:
        browser.provider.server.replies["/keys"] = Reply(b"", 500)
        now = int(time.time())
        claims = {"iss": browser.provider.issuer, "aud": "board", "sub": "user-1", "exp": now + 60}
        answer = await exchange(browser, ed_key().sign(claims))
        assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert answer.headers["retry-after"] == "5"


async def test_a_flood_of_unknown_keys_asks_the_issuer_once(database_url: str, redis_url: str, tmp_path: Path) -> None:
    async with serving(database_url, redis_url, tmp_path, table={"audience": "board"}) as browser:
        now = int(time.time())
        claims = {"iss": browser.provider.issuer, "aud": "board", "sub": "user-1", "exp": now + 60}
        for n in range(20):
            assert (await exchange(browser, ed_key("unknown").sign(claims, kid=str(n)))).status_code == 401
        assert browser.provider.count("/keys") == 1


# ---- roles -----------------------------------------------------------------------------------------------------------


async def test_a_role_claim_decides_at_each_log_in(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """The highest mapped value gives the role; without one it is taken. Each change is in the log of the audit."""
    table = {"role_claim": "realm.roles", "roles": {"referees": "moderator", "press": "viewer"}}
    async with serving(database_url, redis_url, tmp_path, table=table) as browser:
        stores = browser.server.people.stores
        user, roles = "", []
        for claims in (
            {"realm": {"roles": ["press", "referees", "other"]}},
            {"realm": {"roles": ["press", "referees", "other"]}},
            {"realm": {"roles": "press"}},
            {"realm": {"roles": "admin"}},
            {},
        ):
            browser.provider.claims = claims
            user = user_of(await browser.log_in())
            roles.append(await stores.fetchval("SELECT role FROM users WHERE id = $1", user))
        assert roles == ["moderator", "moderator", "viewer", None, None]
        events = await stores.fetch("SELECT actor FROM audit_events WHERE subject = $1", user)
        assert [event["actor"] for event in events] == ["system"] * 3


async def test_without_a_role_claim_roles_stay_as_they_are(browser: Browser) -> None:
    user = user_of(await browser.log_in())
    stores = browser.server.people.stores
    await stores.execute("UPDATE users SET role = 'viewer' WHERE id = $1", user)
    browser.provider.claims = {"roles": ["admin"], "role": "admin"}
    assert user_of(await browser.log_in()) == user
    assert await stores.fetchval("SELECT role FROM users WHERE id = $1", user) == "viewer"


# ---- the new user ----------------------------------------------------------------------------------------------------


async def test_a_name_that_is_taken_or_an_address_is_changed(browser: Browser) -> None:
    """An account of somebody else is never taken over by its name, and no address becomes a public name."""
    taken = await browser.server.register("Ada")
    user = user_of(await browser.log_in())
    assert user != taken["userId"]
    stores = browser.server.people.stores
    assert (await stores.fetchval("SELECT username FROM users WHERE id = $1", user)).startswith("Ada-")
    browser.provider.subject, browser.provider.claims = "user-9", {"preferred_username": "grace@example.org"}
    other = user_of(await browser.log_in())
    assert "@" not in await stores.fetchval("SELECT username FROM users WHERE id = $1", other)


async def test_an_address_links_no_accounts(browser: Browser) -> None:
    """An issuer that states the address of a user here does not log in as that user."""
    mine = await browser.server.register("Ada")
    browser.provider.claims = {"email": "ada@example.org", "email_verified": True, "sub": mine["userId"]}
    assert user_of(await browser.log_in()) != mine["userId"]


async def test_pictures_are_taken_only_where_the_settings_say_so(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """And only those that a user may have."""
    async with serving(database_url, redis_url, tmp_path, table={"picture_claim": "picture"}) as browser:
        stores, found = browser.server.people.stores, []
        pictures = ("https://pictures.example.org/a.png", "http://10.0.0.1/", f"{BOARD}/x", 5, "x" * 3000)
        for number, picture in enumerate(pictures):
            browser.provider.subject, browser.provider.claims = f"user-{number}", {"picture": picture}
            user = user_of(await browser.log_in())
            found.append(await stores.fetchval("SELECT avatar_url FROM users WHERE id = $1", user))
        assert found == [pictures[0], None, None, None, None]
