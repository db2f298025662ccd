"""The page's modules as files: the client's size, its types, its package, and what TypeScript says of all of them."""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scoreboard import __version__
from scoreboard.web.pages.script_comments import without_comments

STATIC = Path(__file__).parents[2] / "scoreboard" / "web" / "static"
TSC = shutil.which("tsc")
OPTIONS = {
    "noEmit": True,
    "strict": True,
    "noUnusedLocals": True,
    "target": "es2024",
    "lib": ["es2024", "dom", "dom.iterable", "dom.asynciterable"],
    "module": "esnext",
    "moduleResolution": "bundler",
    "types": [],
}

with_typescript = pytest.mark.skipif(
    TSC is None, reason="no TypeScript compiler on this machine (npm install --global typescript)"
)

# What may be written and what may not, as a user's editor would say it.
PROGRAM = """
import {
  connect, exchange, login, startAction, submitAction, resume, type Board, type Held, type Refused, type Session,
} from 'scoreboard';
declare const console: { log(...words: unknown[]): void };
const session: Session = await login({ url: 'https://board.example', username: 'ada', password: 'a long password' });
const live = connect({ url: session.url, token: session.token });
live.addEventListener('board', ({ detail }) => {
  const board: Board = detail;
  console.log(board.leaderboard[0].score + 1);
});
live.addEventListener('personal', ({ detail }) => console.log((detail.rank ?? 0) + (detail.points ?? 0)));
live.addEventListener('state', ({ detail }) =>
  detail.name === 'waiting' && console.log(detail.reason, detail.retryAt - Date.now()));
const { newScore } = await submitAction({ session, actionType: 'task_finish' });
await submitAction({ token: 't', actionSecret: 's', actionType: 'task_finish', metadata: { difficulty: 'hard' } })
  .catch((refused: Refused) => console.log(refused.layer, newScore));
const { startId } = await startAction({ session, actionType: 'riddle_solve' });
const held = await submitAction<Held>({ session, actionType: 'record_claim', startId, evidence: new Uint8Array(5) });
live.addEventListener('rejected', ({ detail }) => console.log(detail.actionId === held.actionId, detail.reason));
console.log((await resume())?.user?.username);
await session.logout();
// @ts-expect-error: a mode that is none
connect({ mode: 'fast' });
// @ts-expect-error: no action type
submitAction({ session });
// @ts-expect-error: no password
login({ username: 'ada' });
exchange({ token: 'a.b.c' }).then(({ user }) => console.log(user?.userId));
// @ts-expect-error: no token
exchange({ url: 'https://board.example' });
// @ts-expect-error: a state that is none
if (live.state.name === 'asleep') live.close();
"""
PAGE = """
import { connect, type Board } from 'scoreboard';
const live = connect();
const stop = new AbortController();
live.addEventListener('board', (event: CustomEvent<Board>) => console.log(event.timeStamp, event.detail.position), {
  signal: stop.signal,
});
live.addEventListener('other', { handleEvent: (event: Event) => console.log(event.type) }, { once: true });
live.dispatchEvent(new Event('other'));
const element: HTMLElement = document.createElement('live-scoreboard');
element.remove();
"""


EQUAL = """
import * as declared from './scoreboard.js';
import * as written from './implementation.js';
export const implemented: typeof declared = written;
export const promised: typeof written = declared;
// @ts-expect-error: types that differ are found
export const wrong: typeof declared & { connect: () => number } = written;
"""

PROJECTS = {  # name → a program's text and the libraries that it knows
    "program_without_page_types": (PROGRAM, ["es2023"]),
    "program_with_page_types": (PROGRAM.replace("declare const console", "declare const unused"), OPTIONS["lib"]),
    "page": (PAGE, OPTIONS["lib"]),
}


def write_project(folder: Path, files: list[Path], **options: Any) -> None:
    """The settings of a TypeScript project of these files."""
    settings = {"compilerOptions": OPTIONS | options, "files": sorted(map(str, files))}
    (folder / "tsconfig.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def objections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What TypeScript objects to in each project, one run for all of them: its start takes longer than its work."""
    assert TSC is not None
    root = tmp_path_factory.mktemp("typescript")
    modules = root / "modules"
    modules.mkdir()
    for file in (*STATIC.glob("*.js"), STATIC / "scoreboard.d.ts"):
        shutil.copy(file, modules)
    # beside its declaration, TypeScript would not read it
    shutil.copy(STATIC / "scoreboard.js", modules / "implementation.js")
    (modules / "equal.ts").write_text(EQUAL)
    write_project(modules, [modules / "equal.ts", *modules.glob("*.js")], allowJs=True, checkJs=True)
    for name, (text, lib) in PROJECTS.items():
        folder = root / name
        (folder / "node_modules").mkdir(parents=True)
        (folder / "node_modules" / "scoreboard").symlink_to(STATIC)
        (folder / "package.json").write_text('{"type": "module"}')
        (folder / "program.ts").write_text(text)
        node = {"module": "nodenext", "moduleResolution": "nodenext", "target": "es2023"}
        write_project(folder, [folder / "program.ts"], **node, lib=lib, noUnusedLocals=False)
    projects = ("modules", *PROJECTS)
    built = subprocess.run(
        [TSC, "--build", "--pretty", "false", *projects], cwd=root, capture_output=True, text=True, check=False
    )
    lines = built.stdout.splitlines() + built.stderr.splitlines()
    found = {project: [line for line in lines if line.startswith(f"{project}/")] for project in projects}
    # an error that belongs to no file (of the settings, say) is every project's
    others = [line for line in lines if line.strip() and not any(line in of_one for of_one in found.values())]
    assert built.returncode == 0 or lines, "tsc has failed without a word"
    return {project: of_one + others for project, of_one in found.items()}


def exports(text: str) -> set[str]:
    """The values that a module exports, by name."""
    return set(re.findall(r"^export (?:async )?(?:function|const|class) (\w+)", text, re.MULTILINE))


def imports(text: str) -> set[str]:
    """The modules that a module loads, now or later; not those of which it knows only types."""
    return set(re.findall(r"(?:from |[^{]import\()'\./([\w.]+)'", re.sub(r"/\*\*.*?\*/", "", text, flags=re.DOTALL)))


def test_the_client_stays_small() -> None:
    """scoreboard.js travels in 6 kB, all that is fetched to watch and to act in 9; log-in is 3 more: gzipped and
    without comment lines, as it is sent."""
    sizes = {
        name: len(gzip.compress(without_comments((STATIC / f"{name}.js").read_bytes())))
        for name in ("scoreboard", "fallback", "actions", "account")
    }
    assert sizes["scoreboard"] < 6_300
    assert sizes["scoreboard"] + sizes["fallback"] + sizes["actions"] < 9_500
    assert sizes["account"] < 3_500


def test_what_is_declared_is_what_is_exported() -> None:
    """scoreboard.d.ts names every value that scoreboard.js exports, and no other."""
    declared, exported = (exports((STATIC / f"scoreboard.{kind}").read_text()) for kind in ("d.ts", "js"))
    assert declared == exported
    assert {"connect", "login", "register", "exchange", "resume", "logout", "submitAction"} <= exported


def test_no_module_loads_one_that_loads_it() -> None:
    """The modules' imports have no circle, whether they are loaded at once or later."""
    loads = {file.name: imports(file.read_text()) for file in STATIC.glob("*.js")}
    assert {"actions.js", "account.js"} <= loads["scoreboard.js"]
    while loads:
        leaves = {name for name, loaded in loads.items() if not loaded & loads.keys()}
        assert leaves, f"a circle among {sorted(loads)}"
        loads = {name: loaded for name, loaded in loads.items() if name not in leaves}


@with_typescript
def test_types_are_right(objections: dict[str, list[str]]) -> None:
    """TypeScript, strict, has no objection to any module of the page, and scoreboard.d.ts declares for each export the
    type that it has."""
    assert objections["modules"] == []


@with_typescript
@pytest.mark.parametrize("project", PROJECTS)
def test_a_program_in_typescript_compiles(project: str, objections: dict[str, list[str]]) -> None:
    """A project that has the package finds its types, and is told of what can't be; it need not know those of a page or
    of node."""
    assert objections[project] == []


def test_the_package_is_whole() -> None:
    """package.json beside the module has our version and names every file that the client loads; none of the page's is
    among them."""
    package = json.loads((STATIC / "package.json").read_text())
    assert (package["name"], package["version"], package["license"], package["type"]) == (
        "scoreboard",
        __version__,
        "MIT",
        "module",
    )
    entry = package["exports"]["."]
    assert entry == {"types": "./scoreboard.d.ts", "default": "./scoreboard.js"}
    assert package["sideEffects"] == ["./scoreboard.js"]  # it defines <live-scoreboard>
    needed, found = set[str](), {"scoreboard.js"}
    while found - needed:
        name = (found - needed).pop()
        needed.add(name)
        found |= imports((STATIC / name).read_text())
    assert set(package["files"]) == needed | {"scoreboard.d.ts"}
