"""What a server key may do. A key has one or more scopes; a route that takes server keys names the one that it needs.

Tested in tests/operations/test_server_keys.py.
"""

from enum import StrEnum


class Scope(StrEnum):
    """The scopes of server keys, as operators write them."""

    USERS = "users"  # make and change users by their external id
    SESSIONS = "sessions"  # open sessions for users
    SCORES = "scores"  # submit actions for users
    READ = "read"  # read boards, counted under the key instead of the address
