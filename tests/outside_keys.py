"""Keys of outside issuers, as tests hold them: they sign tokens, whatever is in these, and have a JWK."""

import base64
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import Algorithm, ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

SIGNERS: dict[str, Algorithm] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384),
    "EdDSA": OKPAlgorithm(),
}
HS256 = HMACAlgorithm(HMACAlgorithm.SHA256)


def encode(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def joined(header: Any, claims: Any) -> str:
    """What is signed."""
    return ".".join(encode(json.dumps(part).encode()) for part in (header, claims))


@dataclass(frozen=True)
class SigningKey:
    """A key of an issuer."""

    kid: str
    algorithm: str
    private: Private

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key."""
        algorithm: Any = SIGNERS[self.algorithm]
        made: dict[str, Any] = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        public = {name: made[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in made}
        return public | {"kid": self.kid, "use": "sig"}

    def sign(self, claims: Any, **header: Any) -> str:
        """A token. `header` changes its header; a member that is None is left out."""
        head = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid} | header
        signed = joined({name: value for name, value in head.items() if value is not None}, claims)
        signature: bytes = SIGNERS[self.algorithm].sign(signed.encode(), self.private)
        return f"{signed}.{encode(signature)}"


def sign_with_secret(secret: bytes, claims: Any, **header: Any) -> str:
    """A token with an HMAC: what an attacker makes who has public keys alone."""
    signed = joined({"alg": "HS256", "typ": "JWT"} | header, claims)
    return f"{signed}.{encode(HS256.sign(signed.encode(), secret))}"


@cache
def rsa_key(kid: str = "r1", bits: int = 2048, algorithm: str = "RS256") -> SigningKey:
    return SigningKey(kid, algorithm, rsa.generate_private_key(65537, bits))


@cache
def ec_key(kid: str = "e1") -> SigningKey:
    return SigningKey(kid, "ES256", ec.generate_private_key(ec.SECP256R1()))


@cache
def ed_key(kid: str = "o1") -> SigningKey:
    return SigningKey(kid, "EdDSA", ed25519.Ed25519PrivateKey.generate())


def key_set(*keys: SigningKey) -> bytes:
    """The document at a JWKS address."""
    return json.dumps({"keys": [key.jwk for key in keys]}).encode()
