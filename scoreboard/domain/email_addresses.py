"""E-mail addresses: one stored spelling for each mailbox. Pure.

The domain of an address has two forms: browsers send "xn--mller-kva.example" where people type "müller.example". `fold`
returns the stored one, which has the letters as people read them. `spellings` returns all forms under which an address
may be stored, since rows that are older than this rule are not changed. Domains are mapped as in browsers, by Unicode's
UTS #46. The case of an address is kept, except in such domains; comparisons must ignore case.
"""

import idna

from scoreboard.domain.names import nfc, usual_width

MAX_DOMAIN_LENGTH = 1020  # characters as they come, four times as many as are stored: a longer one is left as it is
MAX_LABEL_LENGTH = 63  # characters of a part of a domain between two dots; RFC 1035
_ACE = "xn--"  # begins a label of the DNS whose letters are encoded with Punycode
_AROUND = "\u200b\u2060\ufeff\u00ad"  # invisible, and copied along with an address


def is_address(text: str) -> bool:
    """Whether the text is an address rather than a user name, which has no @."""
    return "@" in text or "\N{FULLWIDTH COMMERCIAL AT}" in text


def fold(text: str) -> str:
    """The address as it is stored: composed, in letters of usual width, with a readable domain, and without spaces and
    invisible characters around it."""
    local, at, domain = usual_width(_trimmed(text)).rpartition("@")
    return local + at + (_readable(domain) if at else domain)


def spellings(text: str) -> tuple[str, ...]:
    """Every form under which this address may be stored, also by rows that are older than `fold`: first as it was
    typed, then folded, then with an encoded domain."""
    folded = fold(text)
    local, at, domain = folded.rpartition("@")
    return tuple(dict.fromkeys((nfc(_trimmed(text)), folded, local + at + _encoded(domain))))


def query_spellings(text: str) -> tuple[str, ...]:
    """Spellings of a part of an address, for a search. The domain is converted as far as its labels are complete."""
    local, at, domain = text.rpartition("@")
    readable = _readable(usual_width(domain))
    return tuple(dict.fromkeys((text, local + at + readable, local + at + _encoded(readable))))


def _trimmed(text: str) -> str:
    return text.strip().strip(_AROUND).strip()


def _readable(domain: str) -> str:
    """The domain with readable letters; unchanged when it is plain ASCII or can't be a domain of the DNS."""
    if len(domain) > MAX_DOMAIN_LENGTH or (domain.isascii() and _ACE not in domain.lower()):
        return domain
    try:
        mapped = idna.uts46_remap(domain, std3_rules=False)
    except idna.IDNAError:  # characters that no domain has
        return domain
    return ".".join(map(_decoded_label, mapped.split(".")))


def _decoded_label(label: str) -> str:
    """The label decoded from Punycode; unchanged unless UTS #46 would keep the decoded text as it is. Without this
    check two different domains could become one."""
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
    """The domain as in the DNS, with Punycode."""
    if len(domain) > MAX_DOMAIN_LENGTH:
        return domain
    return ".".join(
        label if label.isascii() else _ACE + label.encode("punycode").decode() for label in domain.split(".")
    )
