"""The commands `audit …`: check a proof or a server's transparency log, and export the log.

`check` is for strangers: it needs no stores and no settings of the server, and believes nothing but the log's public
key. What it prints is one line for each thing that it checked.

Tested by tests/cli/test_audit.py.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
import httpx
import trio

from scoreboard.cli.options import FilePath, configured
from scoreboard.domain.errors import StartError
from scoreboard.domain.merkle import EMPTY_ROOT
from scoreboard.domain.paths import (
    AUDIT_CHECKPOINT_PATH,
    AUDIT_CONSISTENCY_PATH,
    AUDIT_KEY_PATH,
    AUDIT_PROOF_PATH,
)
from scoreboard.operations.log_check import (
    MAX_ANSWER_BYTES,
    Step,
    check_growth,
    check_proof,
    read_path,
    read_proof,
)
from scoreboard.security.checkpoints import Checkpoint, VerifierKey, open_checkpoint, read_verifier_key
from scoreboard.settings.model import Settings
from scoreboard.storage.log_export import export_batch_aio
from scoreboard.storage.start_stores import start_stores

REQUEST_TIMEOUT_SECONDS = 10.0


@click.group()
def audit() -> None:
    """Check the transparency log, or export it."""


# ---- check ----------------------------------------------------------------------------------------------------------


@audit.command("check")
@click.argument("source")
@click.option("--key", "key_text", default="", help="The log's public key (a vkey), from somebody you trust.")
@click.option("--user", default="", help="Check that the proof is about this user's action, by the user's id.")
@click.option("--action", "action_id", default="", help="Check that the proof is about the action with this id.")
@click.option(
    "--state",
    type=FilePath(path_type=Path, dir_okay=False),
    help="Remember the log's checkpoint in this file, and check next time that the log only grew.",
)
def check(source: str, key_text: str, user: str, action_id: str, state: Path | None) -> None:
    """Check a proof in a file, or the log of a server by its URL. Exit 1 if anything does not hold."""
    if bool(user) != bool(action_id):
        raise StartError("--user and --action belong together")
    known = _read_state(state) if state is not None and state.exists() else None
    key = _read_key(key_text) if key_text else known[0] if known else None
    if source.startswith(("https://", "http://")):
        steps = _check_server(source.rstrip("/"), key, user, action_id, known, state)
    else:
        steps = _check_file(Path(source), key, user, action_id)
    for step in steps:
        click.echo(f"{'ok' if step.holds else 'FAILED'}: {step.what}")
    if not all(step.holds for step in steps):
        sys.exit(1)


def _check_file(path: Path, key: VerifierKey | None, user: str, action_id: str) -> list[Step]:
    try:
        text = path.read_bytes()[:MAX_ANSWER_BYTES].decode()
    except (OSError, UnicodeError) as exc:
        raise StartError(f"{path} can't be read: {exc}") from None
    proof = read_proof(text)
    if proof is None:
        return [Step(False, f"{path} has no proof in it")]
    if key is None:
        click.echo("The signature is not checked: no --key is given.", err=True)
    return check_proof(proof, key, user, action_id)


def _check_server(
    url: str,
    key: VerifierKey | None,
    user: str,
    action_id: str,
    known: tuple[VerifierKey, str] | None,
    state: Path | None,
) -> list[Step]:
    with httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_SECONDS, follow_redirects=False) as http:
        if key is None:
            key = _read_key(_get(http, AUDIT_KEY_PATH))
            click.echo(f"The server's own key is believed, since no --key is given: {key}", err=True)
        note = _get(http, AUDIT_CHECKPOINT_PATH)
        new = open_checkpoint(note, key)
        if new is None:
            return [Step(False, f"the checkpoint is not signed by {key}")]
        steps = [Step(True, f"the checkpoint of {new.size} records is signed by {key.name}")]
        if known is not None:
            old = open_checkpoint(known[1], key)
            if old is None:
                steps.append(Step(False, f"the remembered checkpoint is not signed by {key}: the log has another key"))
            else:
                steps.append(check_growth(old, new, _consistency(http, old, new)))
        if user:
            proof = read_proof(_get(http, AUDIT_PROOF_PATH, userId=user, actionId=action_id))
            steps += (
                [Step(False, "the answer is no proof")] if proof is None else check_proof(proof, key, user, action_id)
            )
    if state is not None:
        _remember(state, key, note, known, is_good=all(step.holds for step in steps))
    return steps


def _consistency(http: httpx.Client, old: Checkpoint, new: Checkpoint) -> list[bytes] | None:
    if not 0 < old.size < new.size:
        return [] if old.size or old.root == EMPTY_ROOT else None
    sizes = {"from": str(old.size), "to": str(new.size)}
    return read_path(_json(_get(http, AUDIT_CONSISTENCY_PATH, **sizes)).get("data") or {})


def _get(http: httpx.Client, path: str, **params: str) -> str:
    """An answer's text, within bounds. Raises StartError for every answer but 200."""
    try:
        with http.stream("GET", path, params=params) as answer:
            content = b""
            for part in answer.iter_bytes():
                content += part
                if len(content) > MAX_ANSWER_BYTES:
                    raise StartError(f"{answer.url} answers with more than {MAX_ANSWER_BYTES} bytes")
            if answer.status_code != httpx.codes.OK:
                detail = str(_json(content.decode(errors="replace")).get("detail", ""))[:200]
                raise StartError(f"{answer.url} answers {answer.status_code}: {detail}")
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise StartError(f"{http.base_url} does not answer: {exc or type(exc).__name__}") from None
    return content.decode(errors="replace")


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_key(text: str) -> VerifierKey:
    key = read_verifier_key(text)
    if key is None:
        raise StartError("this is no public key of a log: it looks like name+01234567+base64")
    return key


# ---- what is remembered ---------------------------------------------------------------------------------------------


def _read_state(path: Path) -> tuple[VerifierKey, str]:
    """The log's key and the checkpoint that was seen last. Raises StartError for a file that is not one of ours."""
    try:
        found = _json(path.read_text("utf-8"))
    except (OSError, UnicodeError) as exc:
        raise StartError(f"{path} can't be read: {exc}") from None
    key, note = read_verifier_key(str(found.get("key"))), found.get("checkpoint")
    if key is None or not isinstance(note, str):
        raise StartError(f"{path} was not written by `audit check`, or is damaged")
    return key, note


def _remember(path: Path, key: VerifierKey, note: str, known: tuple[VerifierKey, str] | None, *, is_good: bool) -> None:
    """Replaces the file as a whole. A checkpoint that contradicts the remembered one is written beside it: both are
    signed, so together they prove it."""
    if not is_good:
        if known is None:
            return
        path = path.with_name(path.name + ".conflict")
        click.echo(f"The contradicting checkpoint is kept in {path}.", err=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps({"key": str(key), "checkpoint": note}, indent=1) + "\n", "utf-8")
        draft.replace(path)
    except OSError as exc:
        _cannot_write(path, exc)


def _cannot_write(path: Path, exc: OSError) -> NoReturn:
    raise StartError(f"{path} can't be written: {exc.strerror}") from exc


# ---- export ---------------------------------------------------------------------------------------------------------


@audit.command("export")
@configured()
def export(settings: Settings) -> None:
    """Print the log as JSON lines: index, order number, hash and record (null for erased users) of each leaf."""

    async def run() -> None:
        async with start_stores(settings) as stores:
            first = 0
            while batch := await stores.in_transaction(export_batch_aio, first):
                for leaf in batch:
                    line = {
                        "index": leaf.leaf_index,
                        "order": leaf.order,
                        "hash": leaf.hash.hex(),
                        "record": leaf.record,
                    }
                    click.echo(json.dumps(line, separators=(",", ":"), ensure_ascii=False))
                first += len(batch)

    trio.run(run)
