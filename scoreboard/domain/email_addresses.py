"""E-mail addresses: one spelling for each mailbox, however it was typed. Pure.

A domain has two forms: browsers send "xn--mller-kva.example" where people type "müller.example". `fold` returns the
stored form, which has readable letters. Rows older than this rule keep their form, so `spellings` returns all forms
that an address may be stored in. Domains are mapped as in browsers, by Unicode's UTS #46. The case of an address is
kept, except in such domains; comparisons ignore it.
"""

import idna

from scoreboard.domain.names import nfc, usual_width

MAX_DOMAIN_LENGTH = 1020  # characters of the raw text, four times as many as are stored; a longer one is not mapped
MAX_LABEL_LENGTH = 63  # characters of a part of a domain between two dots; RFC 1035
_ACE = "xn--"  # the prefix of a label in Punycode
_AROUND = "\u200b\u2060\ufeff\u00ad"  # invisible characters that are copied along with an address


def is_address(text: str) -> bool:
    """Whether the text is meant as an address: a user name has no @."""
    return "@" in text or "\N{FULLWIDTH COMMERCIAL AT}" in text


def fold(text: str) -> str:
    """The address as it is stored: composed, in letters of usual width, with a readable domain.

    Spaces and invisible characters around it, which phones and pages add, are left out.
    """
    local, at, domain = usual_width(_trimmed(text)).rpartition("@")
    return local + at + (_readable(domain) if at else domain)


def spellings(text: str) -> tuple[str, ...]:
    """The forms that this address may be stored in: first as it was typed, then as `fold` has it."""
    folded = fold(text)
    local, at, domain = folded.rpartition("@")
    return tuple(dict.fromkeys((nfc(_trimmed(text)), folded, local + at + _encoded(domain))))


def query_spellings(text: str) -> tuple[str, ...]:
    """The same for a part of an address in a search; whole labels of its domain are mapped."""
    local, at, domain = text.rpartition("@")
    readable = _readable(usual_width(domain))
    return tuple(dict.fromkeys((text, local + at + readable, local + at + _encoded(readable))))


def _trimmed(text: str) -> str:
    return text.strip().strip(_AROUND).strip()


def _readable(domain: str) -> str:
    """The domain with readable letters; unchanged when it is plain ASCII or no domain of the DNS."""
    if len(domain) > MAX_DOMAIN_LENGTH or (domain.isascii() and _ACE not in domain.lower()):
        return domain
    try:
        mapped = idna.uts46_remap(domain, std3_rules=False)
    except idna.IDNAError:  # characters that no domain has
        return domain
    return ".".join(map(_decoded_label, mapped.split(".")))


def _decoded_label(label: str) -> str:
    """A label of Punycode, decoded. It is unchanged when encoding the result would not give the same label again:
    else two spellings would become a third."""
    if not label.startswith(_ACE) or not label.isascii() or len(label) > MAX_LABEL_LENGTH:
        return label
    try:
        decoded = label.removeprefix(_ACE).encode().decode("punycode")
        is_canonical = (
            not decoded.isascii()
            and idna.uts46_remap(decoded, std3_rules=False) == decoded
            and _encoded(decoded) == label
        )
    except (UnicodeError, ValueError, OverflowError):
        return label
    return decoded if is_canonical and "." not in decoded else label


def _encoded(domain: str) -> str:
    """The domain in the DNS's form."""
    if len(domain) > MAX_DOMAIN_LENGTH:
        return domain
    return ".".join(
        label if label.isascii() else _ACE + label.encode("punycode").decode() for label in domain.split(".")
    )
