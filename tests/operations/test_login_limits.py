"""Limits of log-ins: by address and its networks, by account and network, by account, by known browser. A refused try
is not counted."""

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoreboard.operations.login_limits import EVERYWHERE_LIMIT_FACTOR, Attempt, LoginLimits

ADA, EVE = UUID(int=1), UUID(int=2)


def begun(limits: LoginLimits, address: str, now: float = 0.0) -> Attempt:
    attempt = limits.begin(address, now)
    assert isinstance(attempt, Attempt), attempt
    return attempt


def tries(limits: LoginLimits, addresses: list[str]) -> int:
    """How many of these come through."""
    return sum(isinstance(limits.begin(address, 0.0), Attempt) for address in addresses)


def failures(
    limits: LoginLimits, addresses: list[str], user: UUID = ADA, device: str | None = None, *, by_address: bool = False
) -> int:
    """The same of wrong passwords to one account."""
    return sum(
        not begun(limits, address).count_account(user, device, 0.0, by_address=by_address) for address in addresses
    )


def test_a_household_does_not_have_256_households_tries() -> None:
    """IPv6: a /64 the limit, a /56 twice, a /48 four times; a neighbour with a /48 of their own is none of it."""
    limits = LoginLimits(10)
    assert tries(limits, [f"2001:db8:0:0:{host:x}::1" for host in range(50)]) == 10
    assert tries(limits, [f"2001:db8:0:{net:x}::1" for net in range(1, 256) for _ in range(3)]) == 10
    assert tries(limits, [f"2001:db8:0:{net:x}00::1" for net in range(1, 256) for _ in range(3)]) == 20
    assert tries(limits, [f"2001:db8:1:{net:x}::1" for net in range(256)]) == 20


def test_ipv4_addresses_are_counted_alone() -> None:
    """Strangers share a /24; the same address in IPv6's notation is the same."""
    limits = LoginLimits(3)
    assert tries(limits, ["192.0.2.1", "::ffff:192.0.2.1"] * 5) == 3
    assert tries(limits, [f"192.0.2.{host}" for host in range(2, 200)]) == 198


def test_an_account_is_guessed_at_by_network() -> None:
    """One network can use up only its own tries: the owner can log in from another one."""
    limits = LoginLimits(10)
    assert failures(limits, ["192.0.2.1"] * 10) == 10
    assert begun(limits, "192.0.2.2").count_account(ADA, None, 0.0) == 0
    assert failures(LoginLimits(10), [f"192.0.2.{host}" for host in range(200)]) == 40
    assert failures(limits, ["198.51.100.1"] * 10) == 10
    assert failures(limits, [f"198.51.100.{host}" for host in range(2, 9)], EVE) == 7


def test_tries_by_name_are_not_counted_against_the_address() -> None:
    """Nor the other way round, from one network or from everywhere: the one that is used up does not tell whose the
    other is."""
    for by_address in (False, True):
        limits = LoginLimits(10, 0)
        assert failures(limits, ["192.0.2.1"] * 20, by_address=by_address) == 10
        assert failures(limits, ["192.0.2.1"] * 20, by_address=not by_address) == 10
        botnet = [f"10.{first}.{second}.1" for first in range(10) for second in range(50)]
        assert failures(limits, botnet, by_address=by_address) == 10 * EVERYWHERE_LIMIT_FACTOR - 10
        assert failures(limits, botnet, by_address=not by_address) == 10 * EVERYWHERE_LIMIT_FACTOR - 10
        assert failures(LoginLimits(10, 0), ["192.0.2.1"] * 20, device="one", by_address=by_address) == 10


def test_a_botnet_has_a_multiple_of_the_limit() -> None:
    """From however many networks; known browsers are not held up, and each has its own limit."""
    limits = LoginLimits(10)
    botnet = [f"10.{first}.{second}.1" for first in range(10) for second in range(50)]
    assert failures(limits, botnet) == 10 * EVERYWHERE_LIMIT_FACTOR
    assert failures(limits, botnet[:1] * 5, device="one") == 5
    assert failures(LoginLimits(10), botnet, device="one") == 10
    assert begun(limits, "192.0.2.1").count_account(ADA, "two", 0.0) == 0
    assert begun(limits, "192.0.2.1").count_account(EVE, None, 0.0) == 0


def test_the_right_password_is_no_failure() -> None:
    """A try counts as a failure until it is known to be right, so a hundred concurrent guesses get ten tries."""
    limits = LoginLimits(3)
    for number in range(200):
        attempt = begun(limits, f"10.0.{number}.1")
        assert attempt.count_account(ADA, None, 0.0) == 0
        attempt.succeed()
    guessing = [begun(limits, f"10.1.{number}.1") for number in range(40)]
    assert sum(not attempt.count_account(ADA, None, 0.0) for attempt in guessing) == 3 * EVERYWHERE_LIMIT_FACTOR
    assert tries(limits, ["10.0.0.1"] * 5) == 2  # the tries of an address are counted, right or wrong


def test_a_refusal_takes_nothing() -> None:
    """Refused by the account: the address has its try back. Refused by a /48: the /64 and /56 have theirs. Nor does
    what raises."""
    limits = LoginLimits(2)
    assert failures(limits, [f"10.{number}.0.1" for number in range(20)]) == 2 * EVERYWHERE_LIMIT_FACTOR
    for _ in range(10):
        assert begun(limits, "192.0.2.1").count_account(ADA, None, 0.0) > 0
    assert tries(limits, ["192.0.2.1"] * 9) == 2
    assert tries(limits, [f"2001:db8:0:{net:x}00::1" for net in range(8) for _ in range(2)]) == 8
    assert isinstance(limits.begin("2001:db8:0:ff00::1", 0.0), int)
    assert limits._tries.wait("2001:db8:0:ff00::/64", 0.0) == limits._tries.wait("2001:db8:0:ff00::/56", 0.0) == 0
    assert "2001:db8:0:ff00::/64" not in limits._tries._windows
    with pytest.raises(ZeroDivisionError), begun(limits, "192.0.2.9"):
        raise ZeroDivisionError
    assert tries(limits, ["192.0.2.9"] * 9) == 2


def test_zero_is_no_limit() -> None:
    """And this process itself has no address that could be refused."""
    limits = LoginLimits(0)
    assert tries(limits, ["192.0.2.1"] * 500) == 500
    assert failures(limits, ["192.0.2.1"] * 500) == 500
    assert tries(LoginLimits(1), [""] * 500) == 500


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 20)), max_size=60))
def test_the_wait_is_true(steps: list[tuple[int, bool, float]]) -> None:
    """A client that waits as long as it was told is admitted, if no other came. No minute has more failures of one
    account and network."""
    limits, now, wrong = LoginLimits(2), 1000.0, list[tuple[float, str]]()
    for network, is_right, pause in steps:
        now += pause
        address = f"10.0.{network}.1"
        attempt = limits.begin(address, now)
        wait = attempt if isinstance(attempt, int) else attempt.count_account(ADA, None, now)
        if wait:
            assert 1 <= wait <= 61
            now += wait
            attempt = begun(limits, address, now)
            assert attempt.count_account(ADA, None, now) == 0
        assert isinstance(attempt, Attempt)
        if is_right:
            attempt.succeed()
        else:
            wrong.append((now, address))
            assert sum(now - when <= 60 and where == address for when, where in wrong) <= 2


def test_a_school_has_one_address() -> None:
    """The limit of an address is its own: a class logs in within a minute, and each account is guarded as strictly as
    ever."""
    limits = LoginLimits(10, 300)
    pupils = [UUID(int=number) for number in range(1, 31)]
    assert all(begun(limits, "192.0.2.1").count_account(pupil, None, 0.0) == 0 for pupil in pupils)
    assert failures(limits, ["192.0.2.1"] * 20, pupils[0]) == 9
    assert tries(limits, ["192.0.2.1"] * 400) == 300 - 30 - 9
    assert tries(LoginLimits(10, 0), ["192.0.2.1"] * 400) == 400


def test_an_account_has_so_many_log_ins_from_one_network() -> None:
    """Right or wrong, whatever its address may do besides; from elsewhere it has as many again."""
    limits = LoginLimits(10, 300)
    for _ in range(10):
        attempt = begun(limits, "192.0.2.1")
        assert attempt.count_account(ADA, None, 0.0) == 0
        attempt.succeed()
    refused = begun(limits, "192.0.2.1")
    assert refused.count_account(ADA, None, 0.0) == 61
    assert begun(limits, "198.51.100.1").count_account(ADA, None, 0.0) == 0
    assert tries(limits, ["192.0.2.1"] * 400) == 290  # the refused one took none
