"""The OpenAPI document against a real node, by schemathesis: requests that fit it and requests that do not, by nobody,
by a user, by an admin and by a game's server.

No answer is a 5xx, and each has a status, a media type and a shape that the document names. The number of requests is
bounded (EXAMPLES), so that the whole takes less than a minute.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from scoreboard.domain.paths import (
    ADMIN_PREFIX,
    LOGOUT_PATH,
    OPENAPI_PATH,
    POLL_PATH,
    PROFILE_PATH,
    SESSIONS_PATH,
    STREAM_PATH,
    SUBMIT_PATH,
)
from scoreboard.security.signatures import sign
from tests.e2e.server_processes import ServerProcess

EXAMPLES = 5  # requests of an operation, a caller and a mode
ANONYMOUS_EXAMPLES = 2  # the same where all are answered 401 and few bugs can be
TIMEOUT_SECONDS = 10  # bounds a hang
ENDS_SESSIONS = {("DELETE", PROFILE_PATH), ("POST", LOGOUT_PATH), ("DELETE", SESSIONS_PATH)}


Operation = schemathesis.APIOperation[Any, Any, Any, Any]
Case = schemathesis.Case[Any]
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


class CheapServer(ServerProcess):
    """A node whose passwords cost nothing to hash."""

    module = "tests.e2e.cheap_hashes"


@pytest.fixture
def node(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    (tmp_path / "keys").mkdir()
    unlimited = ("USER_PER_MINUTE", "IP_PER_MINUTE", "LOGIN_PER_MINUTE", "GUESTS_PER_HOUR", "PROFILE_CHANGES_PER_HOUR")
    environment = {
        "SCOREBOARD_POSTGRES__URL": database_url,
        "SCOREBOARD_REDIS__URL": redis_url,
        "SCOREBOARD_EMBEDDED__DATA_DIR": str(tmp_path / "keys"),
        "SCOREBOARD_ACCOUNTS__GUESTS": "true",
        **{f"SCOREBOARD_LIMITS__{name}": "0" for name in unlimited},
    }
    server = CheapServer(tmp_path, ["--no-embedded"], environment)
    server.start()
    yield server
    server.kill()


class Callers:
    """Who makes the requests. A user whose session an operation may end is made anew for each of its requests."""

    def __init__(self, node: ServerProcess) -> None:
        self._node = node
        self.user = self._guest()
        body = {"username": "Moderator", "email": "moderator@example.org", "password": "correct horse battery"}
        self._admin = self._data(requests.post(f"{node.url}/api/v1/auth/register", json=body, timeout=TIMEOUT_SECONDS))
        node.run_command("users", "role", "Moderator", "admin")
        self._key = node.run_command(
            *("server-keys", "create", "game"),
            *(word for scope in ("users", "sessions", "scores", "read") for word in ("--scope", scope)),
        ).strip()

    def _data(self, answer: requests.Response) -> dict[str, Any]:
        assert answer.ok, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def _guest(self) -> dict[str, Any]:
        return self._data(requests.post(f"{self._node.url}/api/v1/auth/guest", timeout=TIMEOUT_SECONDS))

    def of(self, operation: Operation) -> list[str]:
        """Who is to call an operation."""
        security = json.dumps(operation.definition.raw.get("security", []))
        if "serverKey" in security:
            return ["nobody", "key"]
        if operation.path.startswith(ADMIN_PREFIX):
            return ["nobody", "user", "admin"]
        return ["nobody", "user"] if "bearer" in security else ["nobody"]

    def token(self, caller: str, operation: Operation) -> str:
        if caller == "user":
            if (operation.method.upper(), operation.path) in ENDS_SESSIONS:
                return str(self._guest()["accessToken"])
            return str(self.user["accessToken"])
        return {"nobody": "", "admin": str(self._admin["accessToken"]), "key": self._key}[caller]


def prepare(case: Case, node: ServerProcess, callers: Callers, caller: str) -> requests.PreparedRequest:
    """The request of a case; an action of today, and signed; a poll that does not wait."""
    path = case.operation.path
    if path == SUBMIT_PATH and isinstance(case.body, dict) and "timestamp" in case.body:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        case.body |= {"timestamp": now, "actionType": "task_finish", "metadata": {"timeSpent": 120}}
        case.body.pop("userId", None)
    if path == POLL_PATH:
        case.query["wait"] = "0"
    sent = case.as_transport_kwargs(base_url=node.url)
    sent.pop("stream", None)
    request = requests.Request(
        sent["method"],
        sent["url"],
        headers=sent.get("headers"),
        params=sent.get("params"),
        data=sent.get("data"),
        json=sent.get("json"),
        cookies=sent.get("cookies"),
        files=sent.get("files"),
    ).prepare()
    if token := callers.token(caller, case.operation):
        request.headers["authorization"] = f"Bearer {token}"
    else:
        request.headers.pop("authorization", None)
    if path == SUBMIT_PATH and isinstance(request.body, bytes):
        request.headers["x-action-signature"] = sign(callers.user["actionSecret"].encode(), request.body)
    return request


def check(node: ServerProcess, callers: Callers, caller: str, case: Case) -> int:
    """Sends a case and compares the answer with the document. Returns its status."""
    request = prepare(case, node, callers, caller)
    with requests.Session() as session:
        session.trust_env = False
        is_stream = case.operation.path == STREAM_PATH
        answer = session.send(request, timeout=TIMEOUT_SECONDS, stream=is_stream, allow_redirects=False)
        if is_stream and answer.ok:  # it has no end
            assert answer.headers["content-type"] == "text/event-stream"
            answer.close()
            return answer.status_code
        case.validate_response(answer, checks=CHECKS)
        return answer.status_code


def try_operation(
    operation: Operation,
    run: Callable[[Case], int],
    mode: GenerationMode,
    examples: int,
) -> set[int]:
    """Sends so many requests of an operation. Returns their statuses. Raises what the first bad answer is."""
    statuses: set[int] = set()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Case) -> None:
        statuses.add(run(case))

    with suppress(Unsatisfiable):  # nothing of the operation can be wrong: it has no body and no parameter
        send()
    return statuses


def test_every_answer_is_in_the_document(node: ServerProcess) -> None:
    """Of every operation, whoever calls it and whatever the request is."""
    schema = schemathesis.openapi.from_url(f"{node.url}{OPENAPI_PATH}")
    callers, wrong, good, seen = Callers(node), [], set(), 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        seen += 1
        needs_somebody = len(callers.of(operation)) > 1
        for caller in callers.of(operation):
            examples = ANONYMOUS_EXAMPLES if caller == "nobody" and needs_somebody else EXAMPLES
            for mode in GenerationMode:
                name = f"{operation.method.upper()} {operation.path} by {caller}, {mode.value}"
                try:
                    statuses = try_operation(operation, partial(check, node, callers, caller), mode, examples)
                except (Failure, FailureGroup, AssertionError) as failure:
                    wrong.append(f"{name}: {failure}")
                    continue
                if any(status < HTTPStatus.BAD_REQUEST for status in statuses):
                    good.add(operation.path)
    assert wrong == [], "\n\n".join(wrong)
    assert seen > 50
    assert SUBMIT_PATH in good  # the requests get beyond the first check
