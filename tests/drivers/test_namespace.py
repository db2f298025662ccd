"""Names of keys: the specification's by default, and apart where installations share a Redis."""

from uuid import UUID

from scoreboard.domain.boards import LEADERBOARD
from scoreboard.drivers.namespace import SPECIFIED, Namespace

USER = UUID(int=1)


def slot_tag(key: str) -> str:
    """The part of a key that Redis Cluster hashes: the text in braces, or the whole key."""
    return key.partition("{")[2].partition("}")[0] or key


def test_without_a_prefix_the_names_are_the_specifications() -> None:
    """These keys have the specification's names, so other programs can read them."""
    assert SPECIFIED.board(LEADERBOARD).totals == "leaderboard"
    assert SPECIFIED.updates == "scoreboard:updates"
    assert SPECIFIED.window(str(USER)) == f"rate_limit:user:{USER}"
    assert SPECIFIED.profile(USER) == f"profile:{USER}"
    assert SPECIFIED.cooldown(str(USER), "run") == f"cooldown:{USER}:run"


def test_all_keys_of_a_board_are_in_one_slot() -> None:
    """A script may use them together, also those of a board that is built aside."""
    for namespace in (SPECIFIED, Namespace("a:")):
        keys = [
            *namespace.board(LEADERBOARD),
            *namespace.next_board(LEADERBOARD, 7),
            namespace.building(LEADERBOARD),
            namespace.lease(LEADERBOARD),
        ]
        assert len({slot_tag(key) for key in keys}) == 1
        assert len(set(keys)) == len(keys)


def test_two_prefixes_share_no_name() -> None:
    """Nor does a prefix with no prefix."""

    def names(namespace: Namespace) -> set[str]:
        board = namespace.board(LEADERBOARD)
        return {
            *board,
            namespace.updates,
            namespace.limits_since,
            namespace.lease(LEADERBOARD),
            namespace.profile(USER),
        }

    assert not names(Namespace("a:")) & names(Namespace("b:"))
    assert not names(Namespace("a:")) & names(SPECIFIED)


def test_a_channel_names_its_database_unless_it_is_the_first() -> None:
    """A Pub/Sub channel belongs to no database, so its name contains the database's number."""
    assert Namespace("", 3).updates == "scoreboard:updates@3"
    assert Namespace("a:", 0).updates == "a:scoreboard:updates"
