"""E-mail addresses: one spelling for each mailbox, however it was typed. Pure.

The domain of an address has two forms: browsers send "xn--mller-kva.example" where people type "müller.example". `fold`
gives the one that is stored, with letters as they are read; `spellings` are all that an address may be stored under,
since rows that are older than this rule stay as they are. Domains are mapped as browsers do it, by Unicode's UTS #46.
The case of an address stays, but for such domains; whoever compares addresses does so in any case.
"""

import idna

from scoreboard.domain.names import nfc, usual_width

MAX_DOMAIN_LENGTH = 1020  # characters as they come, four times as many as are stored: a longer one is left as it is
MAX_LABEL_LENGTH = 63  # characters of a part of a domain between two dots; RFC 1035
_ACE = "xn--"  # begins a label of the DNS whose letters are encoded with Punycode
_AROUND = "\u200b\u2060\ufeff\u00ad"  # invisible, and copied along with an address


def is_address(text: str) -> bool:
    """Whether it is meant as an address: a user name has no @."""
    return "@" in text or "\N{FULLWIDTH COMMERCIAL AT}" in text


def fold(text: str) -> str:
    """As it is stored: composed, in letters of usual width, its domain as it is read, without what phones and pages put
    around it."""
    local, at, domain = usual_width(_trimmed(text)).rpartition("@")
    return local + at + (_readable(domain) if at else domain)


def spellings(text: str) -> tuple[str, ...]:
    """Whatever this address may be stored as, in case the row is older than `fold`: first as it was typed, then as
    `fold` has it."""
    folded = fold(text)
    local, at, domain = folded.rpartition("@")
    return tuple(dict.fromkeys((nfc(_trimmed(text)), folded, local + at + _encoded(domain))))


def query_spellings(text: str) -> tuple[str, ...]:
    """The same for a part of an address that somebody looks for: of its domain as far as labels are whole."""
    local, at, domain = text.rpartition("@")
    readable = _readable(usual_width(domain))
    return tuple(dict.fromkeys((text, local + at + readable, local + at + _encoded(readable))))


def _trimmed(text: str) -> str:
    return text.strip().strip(_AROUND).strip()


def _readable(domain: str) -> str:
    """With letters as they are read; as it is, when it is plain or can't be a domain of the DNS."""
    if len(domain) > MAX_DOMAIN_LENGTH or (domain.isascii() and _ACE not in domain.lower()):
        return domain
    try:
        mapped = idna.uts46_remap(domain, std3_rules=False)
    except idna.IDNAError:  # characters that no domain has
        return domain
    return ".".join(map(_decoded_label, mapped.split(".")))


def _decoded_label(label: str) -> str:
    """As it is unless it is the Punycode of what UTS #46 would leave as it is: else two spellings would become one that
    is neither."""
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
    """As the DNS has it."""
    if len(domain) > MAX_DOMAIN_LENGTH:
        return domain
    return ".".join(
        label if label.isascii() else _ACE + label.encode("punycode").decode() for label in domain.split(".")
    )
