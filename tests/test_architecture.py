"""The directions of imports, read from the syntax trees: a folder is a layer, and a layer knows only what lies below it."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 450  # lines a file; about 300 is usual. Longer ones stop having a first screen that is their map

# What a layer may import of ours, besides itself. Files on top (app, cli, demo, user_commands) may import everything below.
BELOW = {
    "domain": (),
    "runtime": ("domain.errors", "domain.toml_lines"),
    "security": ("domain", "runtime"),
    "storage": ("domain", "runtime"),
    "operations": ("storage", "security", "domain", "runtime"),
    "live": ("storage.bus", "storage.board", "domain", "runtime"),
    "web": ("operations", "storage", "security", "domain", "runtime"),
    "client": ("domain", "security"),
}
# Who may import a library: the second event loop, and each framework, stay in one place.
ONLY = {
    **dict.fromkeys(("trio_asyncio", "asyncpg", "redis"), ("storage",)),
    "asyncio": ("storage", "client.asyncio"),
    "websockets": ("client.asyncio",),
    **dict.fromkeys(("quart", "quart_trio", "quart_schema"), ("web",)),
    "hypercorn": ("runtime",),
    "trio_websocket": ("live", "client"),
}
TOP = ("__init__", "__main__", "app", "cli", "demo", "user_commands")
ASYNC_NODES = (ast.Await, ast.AsyncFor, ast.AsyncFunctionDef, ast.AsyncWith)


def imports(module: str, tree: ast.AST, modules: set[str]) -> set[str]:
    """Dotted names that a module imports; one of ours is named as the module that it is, not as the name in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = ["scoreboard", *module.split(".")][: -node.level or None] if node.level else []
            source = ".".join([*here, node.module] if node.module else here)
            inner = {f"{source}.{alias.name}" for alias in node.names}
            found |= {name if name.removeprefix("scoreboard.") in modules else source for name in inner}
    return found


def faults(sources: dict[str, str]) -> list[str]:
    """Everything wrong with a package given as module name (without `scoreboard.`) → source."""
    found, graph = [], {}
    for module, source in sources.items():
        tree, layer = ast.parse(source), module.split(".", maxsplit=1)[0]
        used = imports(module, tree, set(sources))
        ours = {name.removeprefix("scoreboard.") for name in used if name.startswith("scoreboard.")}
        graph[module] = ours & set(sources) - {module}
        if layer in BELOW:
            allowed = (layer, *BELOW[layer])
            found += [f"{module} imports {name}" for name in ours if not any(f"{name}.".startswith(f"{part}.") for part in allowed)]
        elif module not in TOP:
            found.append(f"{module} is in no layer")
        for library, places in ONLY.items():
            if any(name.split(".")[0] == library for name in used) and not {layer, module} & set(places):
                found.append(f"{module} imports {library}")
        for node in ast.walk(tree):
            if layer == "domain" and isinstance(node, ASYNC_NODES):
                found.append(f"{module} line {node.lineno} is async")
            runs = isinstance(node, ast.Attribute) and node.attr == "run" and isinstance(node.value, ast.Name) and node.value.id == "trio"
            runs = runs or (isinstance(node, ast.ImportFrom) and node.module == "trio" and any(a.name == "run" for a in node.names))
            if runs and module not in {"cli", "user_commands", "__main__"}:
                found.append(f"{module} calls trio.run")
        if (length := source.count("\n")) > LONGEST:
            found.append(f"{module} has {length} lines")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        found.append("cycle: " + " → ".join(exc.args[1]))
    return found


def test_imports_go_one_way() -> None:
    """No layer imports from above it, no module is part of a cycle, no file is longer than its first screen can tell."""
    files = (ROOT / "scoreboard").rglob("*.py")
    names = {path: ".".join(path.relative_to(ROOT / "scoreboard").with_suffix("").parts) for path in files}
    assert faults({name.removesuffix(".__init__"): path.read_text() for path, name in names.items()}) == []


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        ({"domain.a": "from scoreboard.web.b import c", "web.b": ""}, "domain.a imports web.b"),
        ({"runtime.a": "import scoreboard.domain.boards", "domain.boards": ""}, "runtime.a imports domain.boards"),
        ({"live.a": "from scoreboard.storage import users", "storage.users": ""}, "live.a imports storage.users"),
        ({"live.a": "from ..web import b", "web.b": ""}, "live.a imports web.b"),
        ({"operations.a": "import asyncio.events"}, "operations.a imports asyncio"),
        ({"client.a": "import asyncio"}, "client.a imports asyncio"),
        ({"app": "from hypercorn import Config"}, "app imports hypercorn"),
        ({"domain.a": "async def f(): pass"}, "domain.a line 1 is async"),
        ({"app": "import trio\ntrio.run(print)"}, "app calls trio.run"),
        ({"helpers": ""}, "helpers is in no layer"),
        ({"web.a": "x = 1\n" * 451}, "web.a has 451 lines"),
        ({"web.a": "import scoreboard.web.b", "web.b": "from scoreboard.web import a"}, "cycle: web.a → web.b → web.a"),
    ],
)
def test_the_rules_can_fail(sources: dict[str, str], fault: str) -> None:
    """A made-up package with one fault is told of that fault."""
    assert faults(sources) == [fault]
