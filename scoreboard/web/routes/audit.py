"""Routes of the transparency log: checkpoint, key, proofs, leaves. All are reads, for anybody.

Where viewers need a token (live.anonymous = false), proofs of single actions need one too; the rest tells nothing about
anybody.
"""

from collections.abc import Iterator

from scoreboard.domain.errors import Refusal
from scoreboard.domain.paths import (
    AUDIT_CHECKPOINT_PATH,
    AUDIT_CONSISTENCY_PATH,
    AUDIT_KEY_PATH,
    AUDIT_LEAVES_PATH,
    AUDIT_PROOF_PATH,
)
from scoreboard.domain.queries import OUT_OF_BOUNDS, parse_query
from scoreboard.http.request import Request, Response
from scoreboard.operations.transparency import TransparencyLog
from scoreboard.web.audit_schemas import (
    AuditProof,
    AuditProofAnswer,
    CheckpointText,
    ConsistencyAnswer,
    ConsistencyProof,
    LeafLines,
    LeavesQuery,
    ProofQuery,
    SizesQuery,
    VerifierKeyText,
)
from scoreboard.web.authorization import Bearer
from scoreboard.web.problems import problem
from scoreboard.web.responses import success
from scoreboard.web.route import Route

# Monitors and pages of other sites read these; nothing in them depends on who asks.
_OPEN = b"cache-control: no-store\r\naccess-control-allow-origin: *\r\n"
TEXT = b"content-type: text/plain; charset=utf-8\r\n" + _OPEN
LINES = b"content-type: application/jsonl\r\n" + _OPEN


class AuditRoutes:
    """The routes of `/audit`. `needs_token`: whether a proof is for users alone."""

    def __init__(self, log: TransparencyLog, bearer: Bearer, *, needs_token: bool = False) -> None:
        self._log, self._bearer, self._needs_token = log, bearer, needs_token

    def routes(self) -> Iterator[Route]:
        """All five. They are direct routes: none has a body or a parameter in its path."""
        yield Route(
            method="GET",
            path=AUDIT_CHECKPOINT_PATH,
            handler=self.checkpoint,
            direct=True,
            response_type=CheckpointText,
            errors=(404,),
        )
        yield Route(
            method="GET",
            path=AUDIT_KEY_PATH,
            handler=self.key,
            direct=True,
            name="log_key",
            response_type=VerifierKeyText,
            errors=(404,),
        )
        yield Route(
            method="GET",
            path=AUDIT_PROOF_PATH,
            handler=self.proof,
            direct=True,
            auth="required" if self._needs_token else "optional",
            query_type=ProofQuery,
            response_type=AuditProofAnswer,
            errors=(401, 404),
        )
        yield Route(
            method="GET",
            path=AUDIT_CONSISTENCY_PATH,
            handler=self.consistency,
            direct=True,
            query_type=SizesQuery,
            response_type=ConsistencyAnswer,
        )
        yield Route(
            method="GET",
            path=AUDIT_LEAVES_PATH,
            handler=self.leaves,
            direct=True,
            query_type=LeavesQuery,
            response_type=LeafLines,
        )

    async def checkpoint(self, request: Request) -> Response:
        """Read the signed checkpoint of the log: its size and the root of its tree."""
        return _text(request, await self._log.checkpoint())

    async def key(self, request: Request) -> Response:
        """Read the public key that checkpoints are verified with."""
        key = self._log.key
        return _text(request, key if isinstance(key, Refusal) else f"{key}\n")

    async def proof(self, request: Request) -> Response:
        """Prove that an action is in the log."""
        identity = self._bearer.require(request) if self._needs_token else self._bearer.identify(request)
        if isinstance(identity, Refusal):
            return problem(identity, request.request_id)
        values = _values(request, "userId", "actionId")
        found = values if isinstance(values, Refusal) else await self._log.proof(*values)
        if isinstance(found, Refusal):
            return problem(found, request.request_id)
        path = [step.hex() for step in found.path]
        return success(AuditProof(found.record, found.salt.hex(), found.leaf_index, found.size, path, found.checkpoint))

    async def consistency(self, request: Request) -> Response:
        """Prove that one size of the log is the beginning of another."""
        values = _values(request, "from", "to")
        path = values if isinstance(values, Refusal) else await self._log.consistency(*values)
        if isinstance(path, Refusal):
            return problem(path, request.request_id)
        return success(ConsistencyProof([step.hex() for step in path]))

    async def leaves(self, request: Request) -> Response:
        """Read hashes of leaves, for monitors: a line of JSON each."""
        values = _values(request, "from", "to")
        found = values if isinstance(values, Refusal) else await self._log.leaves(*values)
        if isinstance(found, Refusal):
            return problem(found, request.request_id)
        start, leaves = found
        lines = [b'{"index":%d,"hash":"%b"}\n' % (start + at, leaf.hex().encode()) for at, leaf in enumerate(leaves)]
        return Response(200, b"".join(lines), LINES)


def _text(request: Request, text: str | Refusal) -> Response:
    return problem(text, request.request_id) if isinstance(text, Refusal) else Response(200, text.encode(), TEXT)


def _values(request: Request, first: str, second: str) -> tuple[str, str] | Refusal:
    """Both parameters; the last one where it is given twice, "" where it is not."""
    query = parse_query(request.query)
    if query is None:
        return OUT_OF_BOUNDS
    return query.get(first, [""])[-1], query.get(second, [""])[-1]
