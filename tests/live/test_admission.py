"""Counting connections."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from scoreboard.live.admission import Admission, LimitReached

ANN, BOB = UUID(int=1), UUID(int=2)


def test_each_limit_is_its_own() -> None:
    """The node's, an address', a user's; 0 is none."""
    admission = Admission(per_address=2, per_user=1, per_node=3)
    admission.admit("a")
    admission.identify(ANN)
    assert (admission.limit_reached("a"), admission.user_limit_reached(ANN), admission.user_limit_reached(BOB)) == (
        None,
        LimitReached.USER,
        None,
    )
    admission.admit("a")
    assert (admission.limit_reached("a"), admission.limit_reached("b")) == (LimitReached.ADDRESS, None)
    admission.admit("b")
    assert (admission.limit_reached("a"), admission.limit_reached("c")) == (LimitReached.NODE, LimitReached.NODE)
    admission.release("a", ANN)
    assert (admission.limit_reached("a"), admission.user_limit_reached(ANN)) == (None, None)
    unlimited = Admission()
    for _ in range(1000):
        unlimited.admit("a")
        unlimited.identify(ANN)
    assert (unlimited.limit_reached("a"), unlimited.user_limit_reached(ANN)) == (None, None)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, ANN, BOB]))))
def test_who_has_left_is_not_counted(crowd: list[tuple[str, UUID | None]]) -> None:
    """When all connections have ended, no counter is left."""
    admission = Admission()
    for address, user in crowd:
        admission.admit(address)
        if user is not None:
            admission.identify(user)
    assert admission.total == len(crowd) == sum(admission.addresses.values())
    for address, user in crowd:
        admission.release(address, user)
    assert (admission.total, admission.addresses, admission.users) == (0, {}, {})
