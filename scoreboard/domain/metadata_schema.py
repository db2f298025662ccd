"""What metadata of an action type may hold: named fields with a type and bounds. Pure.

`check_metadata` compares one action's metadata with the fields that the actions file names.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec

from scoreboard.domain.errors import FieldError

MAX_SHOWN_NAME = 50  # characters of a client's name in an error message


class MetadataField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field. `minimum` and `maximum` are for numbers; the lengths, in characters, for texts."""

    type: Literal["int", "number", "text", "bool"]
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    one_of: list[str | int | float] | None = None


def check_metadata(
    metadata: Mapping[str, Any], fields: Mapping[str, MetadataField], known: Collection[str] | None = None
) -> FieldError | None:
    """The first fault, or None. `known`: the only names that metadata may have; None: others are ignored."""
    if known is not None:
        for name in metadata:
            if name not in known:
                return FieldError(name[:MAX_SHOWN_NAME], "is not known for this action type")
    for name, field in fields.items():
        value = metadata.get(name)
        if value is None:  # null is as good as absent, as for difficulty and timeSpent
            if field.required:
                return FieldError(name, "is required")
        elif wrong := _fault(value, field):
            return FieldError(name, wrong)
    return None


def is_of_type(value: object, kind: str) -> bool:
    """Whether a JSON value has the type that a field names. `true` is no number."""
    match kind:
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "text":
            return isinstance(value, str)
        case _:
            return isinstance(value, bool)


_NAMES = {"int": "a whole number", "number": "a number", "text": "a text", "bool": "true or false"}


def _fault(value: Any, field: MetadataField) -> str:
    if not is_of_type(value, field.type):
        return f"must be {_NAMES[field.type]}"
    if field.one_of is not None and value not in field.one_of:
        return f"must be one of {', '.join(map(str, field.one_of))}"
    if field.minimum is not None and value < field.minimum:
        return f"must be at least {field.minimum:g}"
    if field.maximum is not None and value > field.maximum:
        return f"must be at most {field.maximum:g}"
    if field.min_length is not None and len(value) < field.min_length:
        return f"must have at least {field.min_length} characters"
    if field.max_length is not None and len(value) > field.max_length:
        return f"must have at most {field.max_length} characters"
    return ""
