"""What the source has none of, read from its syntax trees and its scripts; and texts that try to be code.

A use that is right gets an entry here with its reason.
"""

import ast
import re
from http import HTTPStatus
from pathlib import Path
from uuid import UUID

from scoreboard.domain.audit import OPERATOR
from scoreboard.domain.roles import Role
from scoreboard.storage.postgres import staff
from tests.e2e.server_processes import register
from tests.whole_node import whole_node

PRODUCT = Path(__file__).parents[2] / "scoreboard"
SCRIPTS = sorted((PRODUCT / "web/static").glob("*.js"))

# What runs text or bytes as code, or makes objects of any type from them.
CODE = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "marshal", "shelve", "subprocess", "xml", "yaml", "jsonpickle", "dill"}
WEAK = {"md5", "sha1", "ECB", "CBC", "PKCS1v15", "ARC4", "TripleDES", "Blowfish"}
ALLOWED = {
    ("embedded", "subprocess"): "starts PostgreSQL and Valkey of the development stack; no request leads there",
    ("drivers/redis_client.py", "sha1"): "names a script to Redis (EVALSHA), and protects nothing",
    ("live/subscription.py", "random"): "spreads retries, and is no secret",
    ("live/transports/sse.py", "random"): "spreads reconnections, and is no secret",
    ("cli/demo.py", "random"): "chooses what demo players do",
    ("client", "random"): "spreads retries, and is no secret",
}


def used(names: set[str]) -> dict[tuple[str, str], str]:
    """Where one of these names is imported, called or used as an attribute, apart from what is allowed."""
    found = {}
    for path in sorted(PRODUCT.rglob("*.py")):
        where = str(path.relative_to(PRODUCT))
        for node in ast.walk(ast.parse(path.read_text())):
            names_here: list[str] = []
            if isinstance(node, ast.Import):
                names_here = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names_here = [(node.module or "").partition(".")[0], *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names_here = [node.func.id]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id != "re":
                names_here = [node.attr] if node.attr in WEAK else []
            for name in set(names_here) & names:
                if not any(where.startswith(place) and name == allowed for place, allowed in ALLOWED):
                    found[where, name] = f"line {getattr(node, 'lineno', 0)}"
    return found


def test_no_text_is_run_as_code() -> None:
    """Nor are objects of any type made from bytes, nor commands started."""
    assert used(CODE | MODULES) == {}


def test_no_weak_algorithm_is_used() -> None:
    """No MD5 or SHA-1, no unauthenticated mode, no padding of PKCS #1 v1.5."""
    assert used(WEAK) == {}


def test_secrets_are_not_made_by_a_predictable_generator() -> None:
    """`random` spreads retries, and makes nothing that nobody may guess."""
    assert used({"random"}) == {}


def test_the_page_makes_no_markup_and_no_code_from_text() -> None:
    """No script writes HTML, runs text, or reaches for prototypes."""
    pattern = re.compile(
        r"\.(?:innerHTML|outerHTML)\b|insertAdjacentHTML|document\.write|\beval\(|new Function\(|__proto__|"
        r"setTimeout\(\s*['\"]"
    )
    found = {path.name: pattern.findall(path.read_text()) for path in SCRIPTS}
    assert {name: uses for name, uses in found.items() if uses} == {}
    assert len(SCRIPTS) > 10


def test_password_fields_hide_what_is_typed_and_let_it_be_pasted() -> None:
    """Password managers find them by `autocomplete`, and nothing listens to pasting."""
    page = (PRODUCT / "web/templates/index.html").read_text()
    assert "'password'" in page or '"password"' in page
    assert "current-password" in page
    for path in (*SCRIPTS, *(PRODUCT / "web/templates").glob("*.html")):
        assert not re.search(r"onpaste|'paste'|\"paste\"", path.read_text()), path.name


TEXTS = (
    "' OR '1'='1",
    "'; DROP TABLE users; --",
    "{{7*7}}",
    "${7*7}",
    "%s%n%x",
    "{0.__class__}",
    "$(id)",
    "*)(uid=*",
    "\nSET x 1",
)


async def test_texts_that_are_code_elsewhere_are_texts(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """In a log-in, in a moderator's search, in an action: nothing is found by them, and they are stored as they are."""
    async with whole_node(database_url, redis_url, tmp_path) as node:
        ada = await register(node.http)
        before = await node.stores.fetchval("SELECT count(*) FROM users")
        mia = await register(node.http)
        await staff.set_role(node.stores, UUID(mia.user), Role.VIEWER, OPERATOR)
        for text in TEXTS:
            login = await node.http.post("/api/v1/auth/login", json={"username": text, "password": text})
            assert login.status_code in {400, 401}, (text, login.text)
            found = await node.http.get("/api/v1/admin/users", params={"query": text}, headers=mia.authorization)
            assert found.status_code in {200, 400}, (text, found.text)
            if found.status_code == HTTPStatus.OK:
                assert ada.user not in found.text
            metadata = {"difficulty": "medium", "timeSpent": 120, "note": text}
            assert (await ada.act(ada.body(metadata=metadata))).status_code == HTTPStatus.OK
        history = await node.http.get("/api/v1/users/me/actions", headers=ada.authorization)
        notes = {action["metadata"]["note"] for action in history.json()["data"]["actions"]}
        assert notes == set(TEXTS)
        assert await node.stores.fetchval("SELECT count(*) FROM users") == before + 1
