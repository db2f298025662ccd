"""`scoreboard` with password hashes that cost nearly nothing, for the server whose 25 demo players every browser test
shares. Their 50 hashes take more time than the tests of a module, and no test of a page is about them.

Run as a module in place of `scoreboard`; see `conftest.LiveServer`.
"""

from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST

from scoreboard.__main__ import main
from scoreboard.security import passwords


def make_cheap() -> None:
    """From now on this process hashes with argon2's cheapest parameters, and takes such hashes for today's."""
    hasher = PasswordHasher.from_parameters(CHEAPEST)
    vars(passwords).update(_HASHER=hasher, DUMMY_HASH=hasher.hash("nobody's"), RFC_9106_LOW_MEMORY=CHEAPEST)


if __name__ == "__main__":
    make_cheap()
    main()
