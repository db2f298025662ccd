"""What a user may be called and look like: the rules for names, addresses, pictures and passwords.

Each function returns the value as it is to be stored, or a FieldError in words for people. The length of the raw text
is checked first, because the work grows with it. Pure. Whether a name is free is decided by PostgreSQL alone (see
storage.postgres.users). The list of the most used passwords is in security.passwords.
"""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

import unicodedata2 as unicodedata

from scoreboard.domain import email_addresses, names
from scoreboard.domain.errors import FieldError
from scoreboard.domain.networks import LOCAL_DOMAINS, is_in_domain
from scoreboard.domain.skeletons import fold_case, skeletons

# characters of the raw text for one that is stored: NFC composes no letter of more
RAW_PER_COMPOSED = 4
MIN_USERNAME_LENGTH = 3  # characters; contract
MAX_USERNAME_LENGTH = 50  # characters; specification: VARCHAR(50)
MAX_RAW_USERNAME_LENGTH = RAW_PER_COMPOSED * MAX_USERNAME_LENGTH  # characters as they come
MAX_EMAIL_LENGTH = 255  # characters; specification: VARCHAR(255)
MAX_RAW_EMAIL_LENGTH = RAW_PER_COMPOSED * MAX_EMAIL_LENGTH  # characters as they come
MAX_AVATAR_URL_LENGTH = 500  # characters; specification: VARCHAR(500)
HTTPS_PORT = 443
MAX_HOST_LENGTH = 253  # characters of a host's name; RFC 1035
MIN_PASSWORD_LENGTH = 10  # characters; contract
MAX_PASSWORD_LENGTH = 1024  # characters; a bound for the work, above any pass phrase

_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s.]+(?:\.[^@\s.]+)*")  # only the form: whether the mailbox exists is not asked
_URL = re.compile(r"[!#-;=?-\[\]_a-z~]+")  # RFC 3986's characters; others belong percent-encoded
# A name of the DNS with at least two labels. The last one begins with a letter: browsers take a host that ends in a
# number, hexadecimal ones too, for an IPv4 address (WHATWG URL, "ends in a number").
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")
# The stand-in of a user whose name no store tells (storage.profiles), and a user's id, as skeletons: there 0 is o, and
# 1 is l.
_PLACEHOLDER_NAME = re.compile(r"user-[ol2-9a-f]{8}")
_UUID = re.compile(r"(?:urn:)?(?:uu[il]d:)?[ol2-9a-f]{32}")
# control, format, surrogate, private, line and paragraph separators
_CONTROL = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def username(text: str) -> str | FieldError:
    """The name as it is stored (names.fold), or why it is refused."""
    if len(text) > MAX_RAW_USERNAME_LENGTH:
        return FieldError("username", f"must have {MIN_USERNAME_LENGTH} to {MAX_USERNAME_LENGTH} characters")
    name = names.fold(text)
    if "@" in name:
        return FieldError("username", "must not contain @")
    if (fault := names.fault(name)) is not None:
        return FieldError("username", fault)
    if not MIN_USERNAME_LENGTH <= len(name) <= MAX_USERNAME_LENGTH:
        return FieldError("username", f"must have {MIN_USERNAME_LENGTH} to {MAX_USERNAME_LENGTH} characters")
    found = skeletons(name)
    if not found or not names.is_visible(name):
        return FieldError("username", "must contain something that can be seen")
    if any(
        _PLACEHOLDER_NAME.fullmatch(skeleton) or _UUID.fullmatch(re.sub(r"[-{}() ]", "", skeleton))
        for skeleton in found
    ):
        return FieldError("username", "must not look like the id of a user")
    return name


def email(text: str) -> str | FieldError:
    """The address as it is stored (email_addresses.fold); it is compared without regard to case.

    Before the @ there may be no letter in a special form, such as a bold one: PRECIS' IdentifierClass (RFC 8264).
    """
    if len(text) > MAX_RAW_EMAIL_LENGTH or len(address := email_addresses.fold(text)) > MAX_EMAIL_LENGTH:
        return FieldError("email", f"must have at most {MAX_EMAIL_LENGTH} characters")
    if not _EMAIL.fullmatch(address) or any(unicodedata.category(character) in _CONTROL for character in address):
        return FieldError("email", "must be an e-mail address")
    local = address.partition("@")[0]
    if special := next(
        (character for character in local if unicodedata.normalize("NFKC", character) != character), None
    ):
        return FieldError("email", f"must not contain letters in a special form before the @ (U+{ord(special):04X})")
    return address


def avatar_url(text: str, own_host: str = "", *, max_length: int = MAX_AVATAR_URL_LENGTH) -> str | FieldError:
    """The address of a picture: https, a public host by its name, port 443.

    The server fetches it; browsers do on pages of other sites. `own_host` is this server's own host: a picture from
    there could be any of its answers. `max_length`: characters.
    """
    if len(text) > max_length:
        return FieldError("avatarUrl", f"must have at most {max_length} characters")
    try:
        parts = urlsplit(text)
        whole = parts.scheme == "https" and bool(parts.hostname) and parts.username is None
        is_usual_port = parts.port in {None, HTTPS_PORT}
    except ValueError:  # a bracket without its pair, a port that is none
        return FieldError("avatarUrl", "must be an https:// address")
    if not whole or not _URL.fullmatch(text):
        return FieldError("avatarUrl", "must be an https:// address")
    if not is_usual_port:
        return FieldError("avatarUrl", "must not name a port other than 443")
    host = (parts.hostname or "").lower()
    # a local domain leads to no public host
    if len(host) > MAX_HOST_LENGTH or not _HOST.fullmatch(host) or is_in_domain(host, LOCAL_DOMAINS):
        return FieldError("avatarUrl", "must name a public host, like pictures.example.org, and no IP address")
    if host == own_host.lower():
        return FieldError("avatarUrl", "must not be an address of this server")
    return text


def password(text: str, own: Collection[str] = (), *, field: str = "password") -> str | FieldError:
    """The password as given: every character counts, none is forbidden.

    It must not be one of the user's `own` names, since whoever guesses begins with those.
    """
    if not MIN_PASSWORD_LENGTH <= len(text) <= MAX_PASSWORD_LENGTH:
        return FieldError(field, f"must have {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters")
    if fold_case(text) in {fold_case(name) for name in own}:
        return FieldError(field, "must not be your own name or e-mail address")
    return text
