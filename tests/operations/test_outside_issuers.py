"""Outside issuers: which keys are asked for when, and what claims say about a user. Attacks on tokens and log-ins are
in tests/web/routes/test_outside.py."""

import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from scoreboard.domain.errors import Code, Refusal
from scoreboard.domain.roles import Role
from scoreboard.operations.cached_documents import RETRY_SECONDS, CachedDocument, FetchFailedError
from scoreboard.operations.outside_issuers import (
    ISSUER_AWAY,
    TOKEN_REFUSED,
    ClaimNames,
    OidcClient,
    OutsideIssuer,
    OutsideIssuers,
    OutsideUser,
    claim,
    highest_role,
)
from scoreboard.security.key_sets import parse_key_set
from scoreboard.security.outside_tokens import UnverifiedToken, decode
from scoreboard.telemetry import metrics
from tests.outside_keys import SigningKey, ed_key, key_set

ROLES = {"referees": Role.MODERATOR, "press": Role.VIEWER, "owners": Role.ADMIN}


@dataclass
class Keys:
    """The keys that an issuer publishes; None: it is away."""

    published: list[SigningKey] | None = field(default_factory=lambda: [ed_key()])
    asked: int = 0
    now: float = 1000.0

    async def fetch(self) -> bytes:
        self.asked += 1
        if self.published is None:
            raise FetchFailedError("away")
        return key_set(*self.published)

    def issuer(self, name: str = "school", **changes: Any) -> OutsideIssuer:
        document = CachedDocument("keys", self.fetch, parse_key_set, clock=lambda: self.now)
        fields = {
            "title": "School",
            "issuer": f"https://{name}.example",
            "algorithms": frozenset(("EdDSA",)),
            "audiences": frozenset(("board",)),
            "claim_names": ClaimNames(name="name", picture="picture", role="groups", roles=ROLES),
        }
        return OutsideIssuer(name=name, keys=document, **{**fields, **changes})


def signed(key: SigningKey, **claims: Any) -> UnverifiedToken:
    own = {"iss": "https://school.example", "aud": "board", "sub": "u1", "exp": time.time() + 60}
    token = decode(key.sign(own | claims))
    assert isinstance(token, UnverifiedToken)
    return token


async def test_a_rotation_is_noticed() -> None:
    """A token of a new key has the keys asked for again. Then old and new tokens count as the issuer's set says."""
    keys = Keys()
    issuer = keys.issuer()
    assert not isinstance(await issuer.verify_for_exchange(signed(ed_key()), time.time()), Refusal)
    keys.published, keys.now = [ed_key("new")], keys.now + RETRY_SECONDS
    assert not isinstance(await issuer.verify_for_exchange(signed(ed_key("new")), time.time()), Refusal)
    assert keys.asked == 2
    keys.now += RETRY_SECONDS
    assert await issuer.verify_for_exchange(signed(ed_key()), time.time()) is TOKEN_REFUSED


async def test_only_an_unknown_kid_asks_again() -> None:
    """A wrong signature, or a known kid with an algorithm that its key is not for, costs the issuer no request."""
    keys = Keys()
    issuer = keys.issuer()
    forged = signed(SigningKey(ed_key().kid, "EdDSA", ed_key("other").private))
    for token in (signed(ed_key()), forged, signed(ed_key("other"), aud="x")):
        keys.now += RETRY_SECONDS
        before = keys.asked
        await issuer.verify_for_exchange(token, time.time())
        assert keys.asked - before == (token.kid == "other" or before == 0)


async def test_an_issuer_that_is_away() -> None:
    """Without keys nothing is decided about a token."""
    keys = Keys(published=None)
    assert await keys.issuer().verify_for_exchange(signed(ed_key()), time.time()) is ISSUER_AWAY
    assert ISSUER_AWAY.code is Code.SERVICE_UNAVAILABLE


async def test_outcomes_are_counted() -> None:
    """By issuer and reason, so that an operator sees why log-ins fail."""

    def count(outcome: str) -> float:
        labels = {"issuer": "counted", "outcome": outcome}
        return metrics.REGISTRY.get_sample_value("scoreboard_outside_tokens_total", labels) or 0.0

    issuer = Keys().issuer("counted", issuer="https://school.example")
    await issuer.verify_for_exchange(signed(ed_key()), time.time())
    await issuer.verify_for_exchange(signed(ed_key(), exp=1), time.time())
    await issuer.verify_for_exchange(signed(ed_key(), aud="x"), time.time())
    assert (count("accepted"), count("expired"), count("audience")) == (1, 1, 1)


def test_a_token_selects_its_issuer() -> None:
    """Only among those that are configured, and that have an audience."""
    first, second = Keys().issuer(), Keys().issuer("log-in-only", audiences=frozenset())
    issuers = OutsideIssuers([first, second])
    assert issuers.of_token(signed(ed_key())) is first
    for iss in ("https://log-in-only.example", "https://evil.example", "", None, 5, ["https://school.example"]):
        assert issuers.of_token(signed(ed_key(), iss=iss)) is None


def test_a_log_in_needs_a_client() -> None:
    async def nothing() -> None:
        return None

    client = OidcClient("scoreboard", "hidden", "https://board.example/cb", ("openid",), nothing)
    with_client = Keys().issuer("b", client=client)
    issuers = OutsideIssuers([Keys().issuer("a"), with_client])
    assert list(issuers) == [with_client]
    assert issuers.with_log_in("b") is with_client
    assert issuers.with_log_in("a") is issuers.with_log_in("c") is None
    assert "hidden" not in repr(with_client)


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        ({"sub": "u1", "name": "Ada"}, OutsideUser("u1", "Ada", None, None)),
        ({"sub": 17}, OutsideUser("17", None, None, None)),
        ({"sub": "u1", "name": 5, "picture": ["x"]}, OutsideUser("u1", None, None, None)),
        ({"sub": "u1", "groups": ["press", "owners"]}, OutsideUser("u1", None, None, Role.ADMIN)),
        ({"sub": "x" * 255}, OutsideUser("x" * 255, None, None, None)),
    ],
)
def test_a_user_is_read(claims: dict[str, Any], user: OutsideUser) -> None:
    assert Keys().issuer().read_user(claims) == user


@pytest.mark.parametrize("value", [None, "", True, 1.5, ["u1"], {"a": 1}, "a\0b", "a\nb", "x" * 256])
def test_claims_without_a_user(value: object) -> None:
    """A user id must be one short text, which can be stored and compared."""
    assert Keys().issuer().read_user({"sub": value}) is TOKEN_REFUSED
    assert Keys().issuer().read_user({}) is TOKEN_REFUSED


def test_claims_by_name_and_by_path() -> None:
    """A claim of exactly that name goes before a path."""
    claims = {"a": {"b": {"c": 1}}, "https://x.example/roles": 2, "a.b": 3}
    assert claim(claims, "a.b.c") == 1
    assert claim(claims, "https://x.example/roles") == 2
    assert claim(claims, "a.b") == 3
    assert claim(claims, "a.b.c.d") is claim(claims, "x") is claim(claims, "") is claim({"": 1}, "") is None


@pytest.mark.parametrize(
    ("value", "role"),
    [
        ("referees", Role.MODERATOR),
        (["press", "owners", "referees"], Role.ADMIN),
        (["none"], None),
        ("admin", None),
        ("ADMIN", None),
        ("owners,press", None),
        (["press", 5, None, ["owners"]], Role.VIEWER),
        ({"owners": True}, None),
        (None, None),
        (["x"] * 1000 + ["owners"], None),
    ],
)
def test_the_highest_role_counts(value: object, role: Role | None) -> None:
    """Only values that the settings map give a role, and none by a likeness of names."""
    assert highest_role(value, ROLES) is role
