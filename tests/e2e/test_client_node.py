"""The client where there is no page: in node, in a worker of a browser, and in a bundle with a component of React.

Node 22 has a WebSocket of its own, node 20 behind a flag; without one the client watches by Server-Sent Events.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from scoreboard.cli import demo
from tests.e2e.browsing import PAGE_TIMEOUT_MS, in_browser

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "scoreboard" / "web" / "static"
NODE, NPM, TSC = shutil.which("node"), shutil.which("npm"), shutil.which("tsc")
HANG_SECONDS = 60  # bounds a hang, measures nothing

with_node = pytest.mark.skipif(NODE is None, reason="no node on this machine")

PROGRAM = """
import { connect, login, submitAction } from %(module)s;
const url = %(url)s;
const session = await login({ url, username: %(username)s, password: %(password)s });
const live = connect({ url, token: session.token });
const once = (name) => new Promise((done) => live.addEventListener(name, ({ detail }) => done(detail), { once: true }));
const [board, personal] = await Promise.all([once('board'), once('personal')]);
const counted = once('personal');
const metadata = { difficulty: 'easy', timeSpent: 60 };
const scored = await submitAction({ session, actionType: 'task_finish', metadata });
const { points, score } = await counted;
const renewed = await session.token(true);
const request = {
  method: 'POST', headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({ username: %(username)s, password: %(password)s }),
};
const { data } = await (await fetch(url + '/api/v1/auth/login', request)).json();
const { accessToken: token, actionSecret } = data;
const byHand = await submitAction({ url, token, actionSecret, actionType: 'task_finish' });
const report = {
  rows: board.leaderboard.length, before: personal.score, scored, points, score, transport: live.state.transport,
  user: session.user, isRenewed: Boolean(renewed), byHand,
};
live.close();
await session.logout();
report.after = [session.user, await session.token()];
"""


def run(program: str, *flags: str, folder: Path) -> Any:
    """The program's last line, which is JSON. It must end by itself."""
    assert NODE is not None
    file = folder / "program.mjs"
    file.write_text(program)
    done = subprocess.run([NODE, *flags, str(file)], capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def program(url: str, player: tuple[str, str], module: str) -> str:
    values = {"url": url, "username": player[0], "password": player[1], "module": module}
    return PROGRAM % {name: json.dumps(value) for name, value in values.items()}


def is_right(report: Any, username: str) -> None:
    assert report["rows"] == 10
    assert report["user"]["username"] == username
    assert report["scored"]["previousScore"] == report["before"]
    assert report["scored"]["newScore"] == report["score"] == report["before"] + report["points"]
    assert report["isRenewed"]
    assert report["byHand"]["previousScore"] == report["score"]
    assert report["after"] == [None, None]


@with_node
@pytest.mark.parametrize(
    ("flag", "transport"), [("--experimental-websocket", "WebSocket"), ("--no-experimental-websocket", "SSE")]
)
def test_in_node_it_logs_in_watches_and_acts(live_server: Any, tmp_path: Path, flag: str, transport: str) -> None:
    """With the WebSocket of node or, without one, over a stream. A program that has closed everything ends."""
    player = live_server.user(demo.HANDLES[11])
    code = (
        program(live_server.url, player, (STATIC / "scoreboard.js").as_uri()) + "console.log(JSON.stringify(report));"
    )
    report = run(code, flag, "--no-warnings", folder=tmp_path)
    is_right(report, player[0])
    assert report["transport"] == transport


GUEST = """
import { guest, login } from %(module)s;
const url = %(url)s;
const first = await guest({ url, username: 'Nora' });
const key = first.deviceKey;
const { newScore } = await first.submitAction('task_finish');
await first.logout();
const again = await guest({ url, deviceKey: key });
const [name, isSame] = [again.user.username, again.user.userId];
const account = { username: 'Nora Nord', email: 'nora@example.org' };
const taken = await again.link({ ...account, password: 'short' }).catch(({ errors }) => errors[0].field);
await again.link({ ...account, password: 'three blind mice' });
const linked = [again.user.username, again.deviceKey, (await again.submitAction('task_finish')).previousScore];
const late = await guest({ url, deviceKey: key }).catch(({ status }) => status);
const known = await login({ url, username: 'Nora Nord', password: 'three blind mice' });
const users = new Set([isSame, again.user.userId, known.user.userId]).size;
await Promise.all([again.logout(), known.logout()]);
console.log(JSON.stringify({ keyLength: key.length, newScore, name, taken, linked, late, users }));
"""


@with_node
def test_a_guest_in_node_comes_back_and_becomes_an_account(start_node: Any, tmp_path: Path) -> None:
    """By the device key that the program keeps; the session goes on with the account."""
    node = start_node(accounts__guests="true")
    values = {"module": json.dumps((STATIC / "scoreboard.js").as_uri()), "url": json.dumps(node.url)}
    report = run(GUEST % values, "--no-warnings", folder=tmp_path)
    assert report == {
        "keyLength": 48,
        "newScore": report["newScore"],
        "name": "Nora",
        "taken": "password",
        "linked": ["Nora Nord", "", report["newScore"]],
        "late": 401,
        "users": 1,
    }


@with_node
def test_in_node_the_server_must_be_named(tmp_path: Path) -> None:
    """Importing needs no page. What has no default there, or is no address, is named at once."""
    module = json.dumps((STATIC / "scoreboard.js").as_uri())
    code = f"""
        const client = await import({module});
        const why = (act) => {{ try {{ act(); }} catch (error) {{ return error.name + ': ' + error.message; }} }};
        const rejected = (promise) => promise.then(() => '', (error) => error.name + ': ' + error.message);
        const server = 'http://127.0.0.1:9';
        console.log(JSON.stringify([
            why(() => client.connect()),
            why(() => client.connect({{ url: 'board.example' }})),
            why(() => client.connect({{ url: server, mode: 'fast' }})),
            await rejected(client.login({{ username: 'demo', password: 'x' }})),
            await rejected(client.login({{ url: server, username: 'demo' }})),
            await rejected(client.exchange({{ url: server }})),
            await rejected(client.register({{ url: server, username: 'demo', password: 'x' }})),
            await rejected(client.login({{ url: server, username: 'demo', password: 'x' }})),
            await client.resume({{ url: server }}),
        ]));"""
    assert run(code, folder=tmp_path) == [
        "TypeError: url is missing: which server?",
        "TypeError: url is no http address: board.example",
        "TypeError: mode is delta or full, not fast",
        "TypeError: url is missing: which server?",
        "TypeError: login: password is missing",
        "TypeError: exchange: token is missing",
        "TypeError: register: email is missing",
        "Refused: The server does not answer.",
        None,
    ]


@with_node
def test_the_example_of_the_readme_runs(live_server: Any, tmp_path: Path) -> None:
    """As it stands, with the package installed, against a server that scripts/run has started."""
    example = (ROOT / "README.md").read_text().partition("```js\n")[2].partition("```")[0]
    assert "http://127.0.0.1:8000" in example
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "scoreboard").symlink_to(STATIC)
    reported = "\nconsole.log(JSON.stringify([pointsAwarded, live.state.name]));"
    points, _ = run(example.replace("http://127.0.0.1:8000", live_server.url) + reported, folder=tmp_path)
    assert points > 0


@with_node
def test_an_action_with_missing_parts_says_which(tmp_path: Path) -> None:
    """Nothing is sent: the promise is rejected with a TypeError that names the part."""
    module = json.dumps((STATIC / "scoreboard.js").as_uri())
    code = f"""
        const {{ submitAction }} = await import({module});
        globalThis.fetch = () => {{ throw new Error('something was sent'); }};
        const good = {{ url: 'http://127.0.0.1:9', actionType: 'task_finish', token: 't', actionSecret: 's' }};
        const without = (name, more = {{}}) => submitAction({{ ...good, [name]: undefined, ...more }});
        const tried = [
            submitAction(), without('actionType'), without('token'), without('actionSecret'), without('url'),
            without('token', {{ credentials: 'mine' }}), without('token', {{ credentials: () => null }}),
            without('token', {{ credentials: async () => ({{ token: 't' }}) }}),
            without('', {{ metadata: 'hard' }}), without('', {{ metadata: null }}),
        ];
        const words = tried.map((each) => each.then(() => 'done', ({{ name, message }}) => name + ': ' + message));
        console.log(JSON.stringify(await Promise.all(words)));"""
    assert run(code, folder=tmp_path) == [
        "TypeError: submitAction: actionType is missing",
        "TypeError: submitAction: actionType is missing",
        "TypeError: submitAction: token is missing, or session, or credentials",
        "TypeError: submitAction: actionSecret is missing",
        "TypeError: url is missing: which server?",
        "TypeError: submitAction: credentials is no function",
        "TypeError: submitAction: token of the credentials is missing",
        "TypeError: submitAction: secret of the credentials is missing",
        "TypeError: submitAction: metadata is no object",
        "TypeError: submitAction: metadata is no object",
    ]


@pytest.fixture
def bare_page(browser: Browser, live_server: Any) -> Iterator[Page]:
    """A page of the server's origin with nothing on it, whose policy lets the test load what it likes."""
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(f"{live_server.url}/livez")
    yield page
    context.close()


@in_browser
def test_in_a_worker_it_does_the_same(bare_page: Page, live_server: Any) -> None:
    """A worker has no document, no HTMLElement and no storage."""
    player = live_server.user(demo.HANDLES[12])
    code = (
        program(live_server.url, player, f"{live_server.url}/scoreboard.js")
        + "report.document = typeof document; postMessage(report);"
    )
    report = bare_page.evaluate(
        """(code) => new Promise((done, failed) => {
          const script = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
          const worker = new Worker(script, { type: 'module' });
          worker.onmessage = ({ data }) => done(data);
          worker.onerror = ({ message }) => failed(new Error(message));
        })""",
        code,
    )
    is_right(report, player[0])
    assert (report["document"], report["transport"]) == ("undefined", "WebSocket")


# ---- in a bundle --------------------------------------------------------------------------------------------------

PACKAGES = ("esbuild", "react", "react-dom", "@types")
APP = """
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { Leaderboard } from './useLeaderboard.js';
const root = createRoot(document.body);
const show = (count) => root.render(
  <StrictMode>
    {Array.from({ length: count }, (_, place) => <Leaderboard key={place} url={location.origin} />)}
  </StrictMode>);
Object.assign(window, { show });
show(2);
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the client as a package, and the component that the documentation gives."""
    found = (
        subprocess.run([NPM, "root", "--global"], capture_output=True, text=True, check=False).stdout.strip()
        if NPM
        else ""
    )
    missing = [name for name in PACKAGES if not found or not (Path(found) / name).is_dir()]
    if missing:
        pytest.skip(
            f"no {', '.join(missing)} on this machine (npm install --global esbuild react react-dom @types/react)"
        )
    folder = tmp_path_factory.mktemp("react")
    modules = folder / "node_modules"
    modules.mkdir()
    for name in PACKAGES:
        (modules / name).symlink_to(Path(found) / name)
    (modules / "scoreboard").symlink_to(STATIC)
    shutil.copy(ROOT / ".github" / "useLeaderboard.tsx", folder)
    (folder / "app.jsx").write_text(APP)
    return folder


@pytest.mark.skipif(TSC is None, reason="no TypeScript compiler on this machine (npm install --global typescript)")
def test_the_component_of_the_documentation_has_right_types(project: Path) -> None:
    """TypeScript, strict, finds the client's types by its package.json."""
    assert TSC is not None
    flags = [
        "--strict",
        "--noEmit",
        "--jsx",
        "react-jsx",
        "--module",
        "esnext",
        "--moduleResolution",
        "bundler",
        "--target",
        "es2022",
    ]
    checked = subprocess.run(
        [TSC, *flags, "useLeaderboard.tsx"], cwd=project, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


@in_browser
def test_components_of_a_bundle_share_a_connection(bare_page: Page, live_server: Any, project: Path) -> None:
    """Bundled with React, in its strict mode: three components show every change over one WebSocket, and the last one
    ends it."""
    bundler = project / "node_modules" / "esbuild" / "bin" / "esbuild"
    flags = ["app.jsx", "--bundle", "--format=esm", "--jsx=automatic", "--outfile=app.js", "--log-level=warning"]
    bundled = subprocess.run([bundler, *flags], cwd=project, capture_output=True, text=True, check=False)
    assert (bundled.returncode, bundled.stderr) == (0, "")
    page = bare_page
    sockets: list[Any] = []
    page.on("websocket", lambda socket: sockets.append(socket))
    page.add_script_tag(path=project / "app.js", type="module")
    expect(page.locator("ol[aria-busy=false]")).to_have_count(2, timeout=PAGE_TIMEOUT_MS)
    expect(page.locator("ol").first.locator("li")).to_have_count(10, timeout=PAGE_TIMEOUT_MS)
    page.evaluate("show(3)")  # a late one is given the board that the others have
    expect(page.locator("ol").nth(2).locator("li")).to_have_count(10, timeout=PAGE_TIMEOUT_MS)
    leader = page.locator("ol").first.locator("li").first.inner_text().partition(":")[0]
    total = page.evaluate(
        """async ([username, password]) => {
          const { login } = await import('/scoreboard.js');
          const session = await login({ username, password });
          return (await session.submitAction('task_finish', { difficulty: 'easy', timeSpent: 60 })).newScore;
        }""",
        live_server.user(leader),
    )
    for place in range(3):
        expect(page.locator("ol").nth(place)).to_contain_text(f"{leader}: {total}", timeout=PAGE_TIMEOUT_MS)
    assert len(sockets) == 1
    with sockets[0].expect_event("close"):
        page.evaluate("show(0)")
