"""Counting connections."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from scoreboard.live.admission import Admission, LimitReached

ANN, BOB = UUID(int=1), UUID(int=2)


def test_each_limit_is_its_own() -> None:
    """The node's, an address', a user's; 0 is none."""
    admission = Admission(per_address=2, per_user=1, per_node=3)
    admission.enter("a")
    admission.identify(ANN)
    assert (admission.refuses("a"), admission.refuses_user(ANN), admission.refuses_user(BOB)) == (
        None,
        LimitReached.USER,
        None,
    )
    admission.enter("a")
    assert (admission.refuses("a"), admission.refuses("b")) == (LimitReached.ADDRESS, None)
    admission.enter("b")
    assert (admission.refuses("a"), admission.refuses("c")) == (LimitReached.NODE, LimitReached.NODE)
    admission.leave("a", ANN)
    assert (admission.refuses("a"), admission.refuses_user(ANN)) == (None, None)
    unlimited = Admission()
    for _ in range(1000):
        unlimited.enter("a")
        unlimited.identify(ANN)
    assert (unlimited.refuses("a"), unlimited.refuses_user(ANN)) == (None, None)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, ANN, BOB]))))
def test_who_has_left_is_not_counted(crowd: list[tuple[str, UUID | None]]) -> None:
    """When all have left, nothing is kept."""
    admission = Admission()
    for address, user in crowd:
        admission.enter(address)
        if user is not None:
            admission.identify(user)
    assert admission.total == len(crowd) == sum(admission.addresses.values())
    for address, user in crowd:
        admission.leave(address, user)
    assert (admission.total, admission.addresses, admission.users) == (0, {}, {})
