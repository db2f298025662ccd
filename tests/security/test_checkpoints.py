"""Signed checkpoints: the published examples of the formats, and notes that are forged or damaged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoreboard.security.checkpoints import (
    Checkpoint,
    LogSigner,
    open_checkpoint,
    read_checkpoint,
    read_verifier_key,
)

SIGNER = LogSigner("scores.example", bytes(range(32)))
KEY = SIGNER.verifier
ROOT = bytes(range(100, 132))
NOTE = SIGNER.sign(12, ROOT)

# of the checksum database of Go, which uses the same formats in public
GO_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


def test_the_key_of_a_public_log_is_read_and_written_alike() -> None:
    key = read_verifier_key(GO_KEY)
    assert key is not None
    assert (key.name, key.key_id.hex(), str(key)) == ("sum.golang.org", "033de0ae", GO_KEY)


def test_a_note_has_the_lines_of_the_format() -> None:
    name, size, root, empty, signature, end = NOTE.split("\n")
    assert (name, size, empty, end) == ("scores.example", "12", "", "")
    assert signature.startswith("— scores.example ")
    assert len(root) == 44


def test_a_note_is_opened_with_its_key_alone() -> None:
    assert open_checkpoint(NOTE, KEY) == Checkpoint("scores.example", 12, ROOT)
    assert read_checkpoint(NOTE) == Checkpoint("scores.example", 12, ROOT)
    assert open_checkpoint(NOTE, LogSigner("scores.example", bytes(32)).verifier) is None
    assert open_checkpoint(NOTE, LogSigner("other.example", bytes(range(32))).verifier) is None


def test_signatures_of_others_do_no_harm_and_do_not_count() -> None:
    """A witness may sign the same checkpoint with a key of its own."""
    witness = LogSigner("witness.example", bytes(32))
    line = witness.sign(12, ROOT).split("\n")[4]
    assert open_checkpoint(NOTE + line + "\n", KEY) == Checkpoint("scores.example", 12, ROOT)
    assert open_checkpoint(NOTE.replace(NOTE.split("\n")[4], line), KEY) is None


@pytest.mark.parametrize(
    "forged",
    [
        NOTE.replace("\n12\n", "\n13\n"),
        NOTE.replace("scores.example\n12", "other.example\n12"),
        NOTE.replace("\n12\n", "\n012\n"),
        NOTE.replace("\n12\n", "\n-1\n"),
        NOTE.replace("—", "-"),
        NOTE[:-1],
        NOTE[:-3] + "\n",
        NOTE.replace("\n\n", "\nmore\n\n"),
        NOTE.split("\n\n", maxsplit=1)[0],
        NOTE + "x" * 10_000 + "\n",
        "",
        "\n\n",
        "\n\n\n\n",
    ],
)
def test_a_changed_note_is_refused(forged: str) -> None:
    assert open_checkpoint(forged, KEY) is None


def test_a_signed_note_that_is_no_checkpoint_is_refused() -> None:
    """The key may have signed another kind of text."""
    assert open_checkpoint(SIGNER.sign(12, b"short"), KEY) is None
    assert open_checkpoint(SIGNER.sign(-1, ROOT), KEY) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scores.example",
        str(KEY).replace("scores", "others"),
        f"scores.example+{KEY.key_id.hex()}+AAAA",
        f"scores.example+{KEY.key_id.hex()}+!!!!",
        str(KEY)[:-4],
        GO_KEY.replace("+Ac4", "+Ac5"),
    ],
)
def test_a_damaged_key_is_refused(text: str) -> None:
    assert read_verifier_key(text) is None


@pytest.mark.parametrize("name", ["", "two words", "a+b", "a\nb", "x" * 256])
def test_a_name_that_the_format_does_not_allow_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no spaces"):
        LogSigner(name, bytes(32))


def test_the_private_key_is_not_in_a_repr() -> None:
    assert repr(SIGNER) == "LogSigner(name='scores.example')"


@given(st.text(max_size=200))
def test_any_text_is_refused_without_an_exception(text: str) -> None:
    assert open_checkpoint(text, KEY) is None
    assert read_verifier_key(text) is None
    read_checkpoint(text)
