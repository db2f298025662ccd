"""Proofs of identity: access tokens, action signatures, refresh tokens, device cookies, passwords. Pure except for
passwords: keys and time are arguments."""
