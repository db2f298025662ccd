"""Records of the transparency log: what a leaf says, and how a stranger checks that it is about his action.

A record is a JSON text with sorted keys, without spaces, with integers and strings only. The leaf is the hash of its
UTF-8 bytes (domain.merkle). `storage/postgres/log_leaves.py` makes the same texts in SQL.

    {"action":…,"kind":"action","metadata":…,"newScore":…,"order":…,"points":…,"signature":…,"time":…,"type":…,"user":…}
    {"actor":…,"details":…,"event":…,"kind":"event","order":…,"subject":…,"time":…}

What a user chose himself (the action's id, its metadata), and the details of an event, are in it as salted hashes
alone. The salt of a leaf comes from a secret of its user, which is deleted with the user: then nobody can find out what
the leaf was about, not even by trying. Times are milliseconds since 1970. Pure.
"""

from hashlib import sha256
from typing import Any

import msgspec

SALT_BYTES = 16  # 128 bits: nobody tries them all
MAX_RECORD_LENGTH = 4096  # characters; ours have some 500

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def salted_hash(salt: bytes, name: str, text: str) -> str:
    """The hash of a text in a record, in hex: SHA-256 over salt, the name of the field, a colon, and the text."""
    return sha256(salt + f"{name}:{text}".encode()).hexdigest()


def leaf_salt(secret: bytes, order: int) -> bytes:
    """The salt of one leaf. It does not tell the secret, nor the salt of any other leaf."""
    return sha256(secret + order.to_bytes(8, "big", signed=True)).digest()[:SALT_BYTES]


def read_action(record: str, salt: bytes, user: str, action_id: str) -> dict[str, Any] | str:
    """The fields of a record, if it is about this action of this user; else a sentence that says why it is not."""
    if len(record) > MAX_RECORD_LENGTH:
        return "the record is too long"
    try:
        fields = _decode(record.encode())
    except (msgspec.DecodeError, UnicodeError):
        return "the record is not JSON"
    if fields.get("kind") != "action":
        return "the record is not about an action"
    if fields.get("user") != user.lower():
        return "the record is about another user"
    if fields.get("action") != salted_hash(salt, "action", action_id):
        return "the record is about another action"
    return fields
