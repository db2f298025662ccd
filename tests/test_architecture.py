"""The directions of imports, read from the syntax trees: a folder is a layer, and a layer knows only what lies below
it. And where each module is tested."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 450  # lines a file; about 300 is usual. Longer ones stop having a first screen that is their map

TOOLS = ("settings", "embedded", "telemetry", "runtime")
# What a layer may import of ours, besides itself. A folder in a folder is a layer of its own; what is not named here
# stands on top of all.
BELOW: dict[str, tuple[str, ...]] = {
    "domain": (),
    "security": (),
    "net": (),
    "telemetry": (),
    "runtime": ("telemetry", "domain"),
    "settings": ("domain",),
    "embedded": ("domain",),
    "http": ("net", "telemetry", "runtime", "domain"),
    "drivers": ("domain", *TOOLS),
    "storage.postgres": ("drivers", "domain", *TOOLS),
    "storage.redis": ("drivers", "domain", *TOOLS),
    "storage": ("drivers", "domain", *TOOLS),
    "operations": ("storage", "drivers", "security", "domain", *TOOLS),
    "operations.admin": ("operations", "storage", "drivers", "security", "domain", *TOOLS),
    "workers": ("operations", "storage", "drivers", "domain", *TOOLS),
    "live": ("storage.bus", "storage.board_cache", "http", "net", "domain", "telemetry"),
    "web": ("operations", "storage", "drivers", "security", "http", "domain", *TOOLS),
    "app": ("workers", "web", "live", "operations", "storage", "drivers", "security", "http", "net", "domain", *TOOLS),
    "cli": ("app", "client", "workers", "web", "operations", "storage", "drivers", "security", "domain", *TOOLS),
    "client": ("domain", "security"),
}
# Who may import a library: the second event loop, and each framework, stay in one place.
ONLY = {
    **dict.fromkeys(("trio_asyncio", "asyncpg", "redis"), ("drivers", "storage")),
    "asyncio": ("drivers", "storage", "client.asyncio"),
    "websockets": ("client.asyncio",),
    **dict.fromkeys(("quart", "quart_trio", "quart_schema"), ("web",)),
    "hypercorn": ("http",),
    "trio_websocket": ("live", "client"),
    "click": ("cli",),
}
# Objects of asyncpg and redis-py, by the attributes that hold them: only storage calls what they have.
DRIVER_OBJECTS = {"redis", "redis_bulk", "redis_direct", "pool", "conn", "_conn"}
TOP = ("__init__", "__main__")
RUNS_TRIO = "cli"  # the only layer that calls trio.run
# Two event loops: in storage a coroutine that must run on asyncio's side says so by its name, and nothing else calls it
# but the crossing.
AIO = "_aio"
CROSSING = "run_in_asyncio"
# What asyncio, asyncpg and redis-py are reached by: a name or an attribute in what is awaited.
DRIVERS = {"asyncio", "asyncpg", "redis", "redis_bulk", "redis_direct", "pool", "client", "conn", "pipe", "pubsub"}
# Methods that redis-py calls by their names.
OVERRIDES = {"connect", "connect_check_health", "read_response", "__call__"}
ASYNC_NODES = (ast.Await, ast.AsyncFor, ast.AsyncFunctionDef, ast.AsyncWith)


def within(module: str, layer: str) -> bool:
    """Whether a module is in a layer, or is the one that is named."""
    return f"{module}.".startswith(f"{layer}.")


def in_stores(module: str) -> bool:
    """Whether a module may speak to a store itself."""
    return within(module, "storage") or within(module, "drivers")


def layer_of(module: str) -> str:
    """The innermost layer that a module is in; its first folder, if it is in none."""
    return max((layer for layer in BELOW if within(module, layer)), key=len, default=module.split(".", maxsplit=1)[0])


def may_import(layer: str, name: str) -> bool:
    """Whether a layer may import that module: its own, one that is below it, or (of a folder) one of a folder in it."""
    return any(within(name, part) for part in (layer, *BELOW[layer]))


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


def names_in(node: ast.AST) -> set[str]:
    """The names and attributes of which an expression is made, without those in its arguments."""
    match node:
        case ast.Name(name):
            return {name}
        case ast.Attribute(value, name):
            return {name} | names_in(value)
        case ast.Call(function):
            return names_in(function)
    return set()


def last_name(node: ast.AST) -> str:
    """`f` of `f`, `a.b.f` and calls of these."""
    match node:
        case ast.Name(name) | ast.Attribute(_, name):
            return name
        case ast.Call(function):
            return last_name(function)
    return ""


def loop_faults(module: str, tree: ast.AST) -> list[str]:
    """Where the two event loops are mixed up.

    1. What ends in `_aio` is called only in functions that end in it, in lambdas handed to one, or by the crossing.
    2. Nothing outside storage calls it.
    3. A coroutine of storage that awaits asyncio, asyncpg or redis-py ends in it.
    4. What is handed to the crossing ends in it, and such a coroutine awaits nothing of Trio's.
    """
    found = list[str]()

    def fault(node: ast.expr, what: str) -> None:
        found.append(f"{module} line {node.lineno} {what}")

    def visit(node: ast.AST, function: str, *, in_lambda: bool) -> None:
        is_aio = function.endswith(AIO) or function in OVERRIDES
        if isinstance(node, ast.Call):
            if last_name(node.func).endswith(AIO) and not in_stores(module):
                fault(node, "calls asyncio code outside storage")
            elif last_name(node.func).endswith(AIO) and not (is_aio or in_lambda):
                fault(node, "calls asyncio code in Trio code")
            elif last_name(node.func) == CROSSING and not last_name(node.args[0]).endswith(AIO):
                fault(node, f"hands something without {AIO} to the crossing")
        awaited = list[ast.expr]()
        if isinstance(node, ast.Await):
            awaited = [node.value]
        elif isinstance(node, ast.AsyncWith):
            awaited = [item.context_expr for item in node.items]
        elif isinstance(node, ast.AsyncFor):
            awaited = [node.iter]
        for value in awaited:
            if "trio" in names_in(value) and is_aio:
                fault(value, "awaits Trio in asyncio code")
            if in_stores(module) and names_in(value) & DRIVERS and not is_aio:
                fault(value, f"awaits a driver in a function without {AIO}")
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
            function, in_lambda = node.name, False
        in_lambda = in_lambda or isinstance(node, ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, function, in_lambda=in_lambda)

    visit(tree, "", in_lambda=False)
    return found


def called_driver(node: ast.AST) -> str:
    """The attribute of a driver's object on which an expression calls something, as `redis` in `stores.redis.get(key)`;
    else nothing."""
    value = node.func if isinstance(node, ast.Call) else None
    while isinstance(value, ast.Attribute):
        value = value.value
        if isinstance(value, ast.Attribute) and value.attr in DRIVER_OBJECTS:
            return value.attr
    return ""


def faults(sources: dict[str, str]) -> list[str]:
    """Everything wrong with a package given as module name (without `scoreboard.`) → source."""
    found, graph = [], {}
    for module, source in sources.items():
        tree, layer = ast.parse(source), layer_of(module)
        used = imports(module, tree, set(sources))
        ours = {name.removeprefix("scoreboard.") for name in used if name.startswith("scoreboard.")}
        graph[module] = ours & set(sources) - {module}
        if layer in BELOW:
            found += [f"{module} imports {name}" for name in sorted(ours) if not may_import(layer, name)]
        elif module not in TOP:
            found.append(f"{module} is in no layer")
        for library, places in ONLY.items():
            if any(name.split(".")[0] == library for name in used) and not any(
                within(module, place) for place in places
            ):
                found.append(f"{module} imports {library}")
        found += loop_faults(module, tree)
        for node in ast.walk(tree):
            if layer == "domain" and isinstance(node, ASYNC_NODES):
                found.append(f"{module} line {node.lineno} is async")
            if (driver := called_driver(node)) and not in_stores(module):
                found.append(f"{module} line {node.lineno} calls {driver}, a driver's object")  # type: ignore[attr-defined]
            runs = (
                isinstance(node, ast.Attribute)
                and node.attr == "run"
                and isinstance(node.value, ast.Name)
                and node.value.id == "trio"
            )
            runs = runs or (
                isinstance(node, ast.ImportFrom) and node.module == "trio" and any(a.name == "run" for a in node.names)
            )
            if runs and not within(module, RUNS_TRIO):
                found.append(f"{module} calls trio.run")
        if (length := source.count("\n")) > LONGEST:
            found.append(f"{module} has {length} lines")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        found.append("cycle: " + " → ".join(exc.args[1]))
    return found


def test_imports_go_one_way() -> None:
    """No layer imports from above it, no module is part of a cycle, no file is longer than its first screen can
    tell."""
    files = (ROOT / "scoreboard").rglob("*.py")
    names = {path: ".".join(path.relative_to(ROOT / "scoreboard").with_suffix("").parts) for path in files}
    assert faults({name.removesuffix(".__init__"): path.read_text() for path, name in names.items()}) == []


TEST_PATH = re.compile(r"tests/[\w/]+\.py")


def untested(sources: dict[str, str], tests: set[str]) -> list[str]:
    """The modules, of paths below `scoreboard/` and their sources, of which nobody says where they are tested.

    A module `a/b.py` is tested in `tests/a/test_b.py` or `tests/a/test_b_*.py`. Else its docstring names a test file.
    Every file that a docstring names is there. A module that is only a docstring needs no test.
    """
    found = []
    for path, source in sources.items():
        tree, own = ast.parse(source), f"tests/{path}".rpartition("/")
        by_name = f"{own[0]}/test_{own[2].removesuffix('.py')}"
        named = TEST_PATH.findall(ast.get_docstring(tree) or "")
        has_test = any(test == f"{by_name}.py" or test.startswith(f"{by_name}_") for test in tests)
        if (len(tree.body) > 1 and not has_test and not tests.intersection(named)) or not tests.issuperset(named):
            found.append(path)
    return found


def test_every_module_says_where_it_is_tested() -> None:
    """By the name of its test file, or in its docstring."""
    sources = {
        str(path.relative_to(ROOT / "scoreboard")): path.read_text() for path in (ROOT / "scoreboard").rglob("*.py")
    }
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    assert untested(sources, tests) == []


@pytest.mark.parametrize(
    ("source", "test", "is_untested"),
    [
        ('"""What it is."""\nx = 1', "tests/web/test_a.py", False),
        ('"""What it is."""\nx = 1', "tests/web/test_a_limits.py", False),
        ('"""What it is."""\nx = 1', "tests/web/test_ab.py", True),
        ('"""What it is."""\nx = 1', "tests/http/test_a.py", True),
        ('"""Tested in tests/http/test_b.py."""\nx = 1', "tests/http/test_b.py", False),
        ('"""Tested in tests/http/test_gone.py."""\nx = 1', "tests/http/test_b.py", True),
        ('"""Tested in tests/http/test_gone.py."""\nx = 1', "tests/web/test_a.py", True),
        ('"""What it is."""', "tests/http/test_b.py", False),
    ],
)
def test_an_untested_module_is_found(source: str, test: str, *, is_untested: bool) -> None:
    """A module counts as tested by the file of its name, or by one that it names and that is there."""
    assert untested({"web/a.py": source}, {test}) == ["web/a.py"] * is_untested


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        ({"domain.a": "from scoreboard.web.b import c", "web.b": ""}, "domain.a imports web.b"),
        ({"net.a": "import scoreboard.domain.boards", "domain.boards": ""}, "net.a imports domain.boards"),
        (
            {"storage.postgres.a": "import scoreboard.storage.b", "storage.b": ""},
            "storage.postgres.a imports storage.b",
        ),
        ({"live.a": "from scoreboard.storage import users", "storage.users": ""}, "live.a imports storage.users"),
        ({"live.a": "from ..web import b", "web.b": ""}, "live.a imports web.b"),
        ({"operations.a": "import asyncio.events"}, "operations.a imports asyncio"),
        ({"client.a": "import asyncio"}, "client.a imports asyncio"),
        ({"app.a": "from hypercorn import Config"}, "app.a imports hypercorn"),
        ({"domain.a": "async def f(): pass"}, "domain.a line 1 is async"),
        ({"app.a": "import trio\ntrio.run(print)"}, "app.a calls trio.run"),
        (
            {"storage.a": "async def f():\n    await g_aio()"},
            "storage.a line 2 calls asyncio code in Trio code",
        ),
        ({"workers.a": "async def f_aio(): await g_aio()"}, "workers.a line 1 calls asyncio code outside storage"),
        (
            {"storage.a": "async def f(conn):\n    async with conn.transaction(): pass"},
            "storage.a line 2 awaits a driver in a function without _aio",
        ),
        (
            {"storage.a": "async def f(stores): await run_in_asyncio(stores.g)"},
            "storage.a line 1 hands something without _aio to the crossing",
        ),
        ({"storage.a": "async def f_aio(): await trio.sleep(1)"}, "storage.a line 1 awaits Trio in asyncio code"),
        (
            {"workers.a": "async def f(stores): await stores.redis.get('key')"},
            "workers.a line 1 calls redis, a driver's object",
        ),
        ({"helpers": ""}, "helpers is in no layer"),
        ({"web.a": "x = 1\n" * 451}, "web.a has 451 lines"),
        ({"web.a": "import scoreboard.web.b", "web.b": "from scoreboard.web import a"}, "cycle: web.a → web.b → web.a"),
    ],
)
def test_the_rules_can_fail(sources: dict[str, str], fault: str) -> None:
    """A made-up package with one fault is told of that fault."""
    assert faults(sources) == [fault]
