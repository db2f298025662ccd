"""Checkpoints of the transparency log: the size and the root of its tree, signed with Ed25519.

Formats of C2SP, which other tools read too: tlog-checkpoint, signed-note, and its verifier key (`vkey`). A checkpoint
has three lines: the log's name, the number of leaves in decimal, the root in base64. An empty line and the signature
follow. Pure, given the key.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM = b"\x01"  # signed-note: Ed25519
KEY_ID_BYTES = 4
PUBLIC_KEY_BYTES = 32
ROOT_BYTES = 32
MAX_NOTE_LENGTH = 10_000  # characters; one of ours has some 250, and co-signers may add a line each
MAX_NAME_LENGTH = 255

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII).fullmatch
_NAME = re.compile(r"[^\s+]+").fullmatch
_VKEY = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)").fullmatch


class Checkpoint(NamedTuple):
    """What is signed."""

    name: str
    size: int  # leaves
    root: bytes


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A log's name and public key. Its text form is a `vkey`, which is public."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The start of SHA-256 over name, newline, algorithm and key."""
        return sha256(self.name.encode() + b"\n" + ALGORITHM + self.public).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(ALGORITHM + self.public).decode()}"


@dataclass(frozen=True, slots=True)
class LogSigner:
    """Signs checkpoints with the log's private key (32 bytes)."""

    name: str
    private: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not is_log_name(self.name):
            raise ValueError("a log's name has no spaces and no +")

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(
            self.name, Ed25519PrivateKey.from_private_bytes(self.private).public_key().public_bytes_raw()
        )

    def sign(self, size: int, root: bytes) -> str:
        """The signed note. The same for the same tree, whenever it is made and by which node."""
        text = f"{self.name}\n{size}\n{base64.b64encode(root).decode()}\n"
        signature = Ed25519PrivateKey.from_private_bytes(self.private).sign(text.encode())
        return f"{text}\n— {self.name} {base64.b64encode(self.verifier.key_id + signature).decode()}\n"


def is_log_name(name: str) -> bool:
    """Whether a text can be a key's name in a signed note."""
    return len(name) <= MAX_NAME_LENGTH and _NAME(name) is not None


def read_verifier_key(text: str) -> VerifierKey | None:
    """The key of a `vkey`; None when it is not one, or its id is not the key's."""
    found = _VKEY(text.strip())
    if found is None:
        return None
    decoded = _decode(found[3])
    if decoded is None or len(decoded) != 1 + PUBLIC_KEY_BYTES or decoded[:1] != ALGORITHM:
        return None
    key = VerifierKey(found[1], decoded[1:])
    return key if key.key_id.hex() == found[2] else None


def open_checkpoint(note: str, key: VerifierKey) -> Checkpoint | None:
    """The checkpoint of a signed note, if this key signed it as the log of its name. None: it did not, or the note is
    damaged. Signatures of other keys are ignored, as the format wants."""
    body, separator, signatures = note.rpartition("\n\n")
    text = body + "\n"
    if len(note) > MAX_NOTE_LENGTH or not separator or not signatures.endswith("\n"):
        return None
    if not any(_is_signature(line, text, key) for line in signatures[:-1].split("\n")):
        return None
    checkpoint = read_checkpoint(note)
    return checkpoint if checkpoint is not None and checkpoint.name == key.name else None


def read_checkpoint(note: str) -> Checkpoint | None:
    """What a note says, whoever signed it; None when it is no checkpoint."""
    lines = note[:MAX_NOTE_LENGTH].split("\n", 3)
    if len(lines) != 4:
        return None
    name, size, root = lines[0], lines[1], _decode(lines[2])
    if not is_log_name(name) or not _SIZE(size) or root is None or len(root) != ROOT_BYTES:
        return None
    return Checkpoint(name, int(size), root)


def _is_signature(line: str, text: str, key: VerifierKey) -> bool:
    mark, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    signed = _decode(encoded)
    if mark != "—" or name != key.name or signed is None or signed[:KEY_ID_BYTES] != key.key_id:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signed[KEY_ID_BYTES:], text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
