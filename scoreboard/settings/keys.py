"""The kinds of keys: Ed25519 keys that sign access tokens, master keys that action secrets are derived from, and
Ed25519 keys that sign checkpoints of the transparency log.

In production they come from settings (`security.signing_keys`, `security.master_keys`, `security.log_keys`) and this
file only decodes them.
In development they are made on the first start and stored in the data folder, readable by the owner alone, so that
tokens survive a restart. `scoreboard keys new` makes those of production. Keys are plain bytes here; `security` uses
them.
"""

import base64
import binascii
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from scoreboard.domain.errors import StartError

KEY_BYTES = 32  # bytes; both an Ed25519 private key (RFC 8032) and a master key (as much as SHA-256 gives back)
KEYS_FILE = "keys.json"
KEY_FILES = (
    "security__signing_keys",
    "security__master_keys",
    "security__log_keys",
)  # prefixes of their names in a secrets folder


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys by name, and the current one of each kind. New tokens are made with the current keys; the others only
    verify."""

    signing: Mapping[str, bytes] = field(repr=False)  # kid → Ed25519 private key
    current_signing: str
    master: Mapping[int, bytes] = field(repr=False)  # version → key
    current_master: int
    log: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # name → Ed25519 private key; empty: no log key
    current_log: str = ""


def decode_signing_key(text: str) -> bytes:
    """An Ed25519 private key given as PKCS #8 PEM, or as base64 of its 32 bytes. Raises ValueError, whose message
    contains no part of the key."""
    if not text.lstrip().startswith("-----BEGIN"):
        return _decode_bytes(text)
    try:
        key = load_pem_private_key(text.strip().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # the messages of the library may quote the key
        raise ValueError("is not a readable PEM private key without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("is not an Ed25519 key")  # noqa: TRY004 – pydantic wants ValueError
    return key.private_bytes_raw()


def decode_master_key(text: str) -> bytes:
    """A master key given as base64 of 32 random bytes. Raises ValueError, whose message contains no part of the key."""
    return _decode_bytes(text)


def _decode_bytes(text: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"must be base64 of {KEY_BYTES} bytes, not of {len(key)}")
    return key


def development_keys(data_dir: Path) -> Keys:
    """The keys in `data_dir`, which the first call makes. Two concurrent processes get the same keys. Blocks on files.

    Raises StartError when the folder can't be written or the file can't be read.
    """
    path = data_dir / KEYS_FILE
    try:
        data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        path.chmod(0o600)
        found = json.loads(path.read_text())
        signing = {str(kid): _decode_bytes(key) for kid, key in found["signing"].items()}
        master = {int(version): _decode_bytes(key) for version, key in found["master"].items()}
        log = {str(name): _decode_bytes(key) for name, key in found.get("log", {}).items()}
        if not log:  # the file is older than the transparency log
            log = {"dev": sha256(b"transparency log" + signing[min(signing)]).digest()}
        return Keys(
            signing=signing,
            current_signing=found["current_signing"],
            master=master,
            current_master=max(master),
            log=log,
            current_log=min(log),
        )
    except OSError as exc:
        raise StartError(f"the development keys in {path} can't be made or read: {exc.strerror}") from exc
    except (ValueError, KeyError, AttributeError, TypeError) as exc:
        raise StartError(f"{path} is damaged; remove it to have new keys made (everybody has to log in again)") from exc


def new_key() -> str:
    """A new key of either kind, as text for the settings."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def new_production_keys() -> dict[tuple[str, str, str], str]:
    """New keys for production: (section, table, item) → value, for one signing key, the first master key, and a key of
    the transparency log."""
    return {
        **new_signing_key(),
        ("security", "master_keys", "1"): new_key(),
        ("security", "log_keys", f"l{secrets.token_hex(4)}"): new_key(),
    }


def new_signing_key() -> dict[tuple[str, str, str], str]:
    """One new signing key, in the same form. Its kid is new too."""
    return {("security", "signing_keys", f"k{secrets.token_hex(4)}"): new_key()}


def write_secrets(
    folder: Path, values: Mapping[tuple[str, str, str], str], *, beside_others: bool = False
) -> list[Path]:
    """Writes one file a value into a secrets folder, readable by its owner alone. Returns the files. Overwrites
    nothing.

    Raises StartError when the folder has keys already, unless `beside_others`, or can't be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not beside_others and (
            there := sorted(file.name for file in folder.iterdir() if file.name.lower().startswith(KEY_FILES))
        ):
            raise StartError(f"{folder} has keys already ({', '.join(there)}): name another folder, or remove them")
        made = []
        for path, value in values.items():
            file = folder / "__".join(path)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
                opened.write(value + "\n")
            made.append(file)
    except OSError as exc:
        raise StartError(f"the secrets folder {folder} can't be written: {exc.strerror}") from exc
    return made


def _make(path: Path) -> None:
    """Writes a whole file beside `path`, then links it there. The first process to link wins, and no process ever reads
    a partial file."""
    kid = f"dev-{secrets.token_hex(4)}"
    content = {
        "signing": {kid: new_key()},
        "current_signing": kid,
        "master": {"1": new_key()},
        "log": {"dev": new_key()},
    }
    draft = path.with_name(f".{KEYS_FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(descriptor)
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was first: its keys are read
    finally:
        draft.unlink()
