"""Limits of log-ins and registrations, for each address and for each account. Pure: the time is an argument.

`begin` counts a try under the client's networks. `Attempt.count_account` counts it under the account that was found,
and as a failure until the password is found to be right (`succeed`). A refused try counts nowhere: all buckets are
checked first, and earlier counts of it are withdrawn.

1. An address: `per_address` tries of any kind a minute, since a whole school may have one. IPv6 by /64, by /56 twice as
   many, by /48 four times, since one household has a /56 and one rented server a /48.
2. An account: `per_account` tries a minute from one network, right or wrong. Larger networks have multiples as in 1,
   and an IPv4 /24 four times as many. So a client of another network can't lock the owner out.
3. An account from everywhere: EVERYWHERE_LIMIT_FACTOR as many failures, which bounds a botnet's guesses. 2 and 3 count
   tries by the user name and tries by the e-mail address separately. With one count, a guessed address that belongs to
   the account would be answered 429, and an unused address 401: that would show whose address it is.
4. A browser that has logged in to that account before (device cookie) has `per_account` failures of its own, and all
   browsers of an account have twice as many tries. Limits 1 to 3 do not apply to them, so neither strangers nor
   neighbours behind one address can lock the owner out. For any other account such a browser counts as its address.
   Here tries by name and by address have one count, since a user who has logged in has both.
5. New guests of an address: `guests_per_hour` in any hour, with the multiples of 1. A device key is counted as an
   account is, under an id made from it; a key that is not known makes a guest, so guessing keys is limited too.

An account is identified by the id that PostgreSQL found, never by the typed name: PostgreSQL folds names in another way
than Python. A name without an account is counted under an id made from it, so that the limits do not show which names
exist.
"""

from types import TracebackType
from typing import NamedTuple
from uuid import UUID

from scoreboard.domain.networks import IPV6_PREFIXES, networks_of
from scoreboard.domain.sliding_window import SlidingWindow

HOUR_SECONDS = 3600
RISING_TIMES = (1, 2, 4)  # times the limit, for the IPv6 prefixes in their order
IPV4_TIMES = (1, 4)  # the same for an address and its /24: of an account alone, as strangers share a /24
BROWSERS_TIMES = 2  # times the limit: tries of one account by browsers that are known
# times the limit: failures of one account from all networks, 50 a minute by default, and as many by its address
EVERYWHERE_LIMIT_FACTOR = 5

assert len(RISING_TIMES) == len(IPV6_PREFIXES)

_Bucket = tuple[str, int]  # key, times the limit


class _Accounts(NamedTuple):
    """Windows of `per_account`."""

    tries: SlidingWindow
    failures: SlidingWindow


class LoginLimits:
    """The counts of one node. `per_account`, `per_address`: tries in any 60 seconds, see above; 0: no limit. None: as
    `per_account`. `guests_per_hour`: new guests of an address; 0: no limit."""

    __slots__ = ("_accounts", "_guests", "_tries")

    def __init__(self, per_account: int, per_address: int | None = None, guests_per_hour: int = 0) -> None:
        self._guests = SlidingWindow(guests_per_hour, HOUR_SECONDS)
        self._tries = SlidingWindow(per_account if per_address is None else per_address)
        self._accounts = _Accounts(SlidingWindow(per_account), SlidingWindow(per_account))

    def begin(self, address: str, now: float, *, has_device: bool = False) -> "Attempt | int":
        """An attempt from that address; if it is refused, the seconds until the next one may come. "": from this
        process, which no limit of addresses refuses.

        `has_device`: this browser has logged in to some account before. Then nothing is counted here; the caller counts
        with `count_browser` or `count_address` once the account is found.
        """
        networks = networks_of(address) if address else ()
        is_ipv6 = len(networks) == len(RISING_TIMES)
        buckets = list(zip(networks, RISING_TIMES if is_ipv6 else IPV4_TIMES, strict=False))
        attempt = Attempt(self._tries, self._accounts, self._guests, buckets, buckets if is_ipv6 else buckets[:1])
        wait = 0 if has_device else attempt.count_address(now)
        return wait or attempt


class Attempt:
    """One log-in or registration. As a context manager it withdraws all counts when the block raises."""

    __slots__ = ("_accounts", "_address", "_counted", "_guests", "_tries", "networks")

    def __init__(
        self,
        tries: SlidingWindow,
        accounts: _Accounts,
        guests: SlidingWindow,
        networks: list[_Bucket],
        address: list[_Bucket],
    ) -> None:
        self._tries, self._accounts, self._guests = tries, accounts, guests
        self.networks, self._address = networks, address
        self._counted: list[tuple[SlidingWindow, str, float]] = []

    def _count(self, window: SlidingWindow, buckets: list[_Bucket], now: float) -> int:
        """Counts one in each bucket and returns 0; or counts nothing and returns the seconds until all have room."""
        wait = max((window.wait(key, now, times) for key, times in buckets), default=0)
        if not wait:
            for key, _ in buckets:
                window.count(key, now)
                self._counted.append((window, key, now))
        return wait

    def count_address(self, now: float) -> int:
        """Counts the try under its address and returns 0. If it is refused: withdraws all counts, and returns the
        seconds until the next try."""
        wait = self._count(self._tries, self._address, now)
        if wait:
            self.withdraw()
        return wait

    def count_browser(self, user: UUID, now: float) -> int:
        """The same under the account, for a browser that has logged in to it before."""
        wait = self._count(self._accounts.tries, [(f"browsers of {user}", BROWSERS_TIMES)], now)
        if wait:
            self.withdraw()
        return wait

    def count_account(self, user: UUID, device: str | None, now: float, *, by_address: bool = False) -> int:
        """Counts it as a try and a failure of that account, and returns 0. If it is refused: withdraws all counts, and
        returns the seconds until the next try.

        `device` names a browser that has logged in to this account before. `by_address`: the account was named by its
        e-mail address.
        """
        account = f"address of {user}" if by_address else str(user)
        if device is not None:
            wait = self._count(self._accounts.failures, [(f"{user} browser {device}", 1)], now)
        else:
            wait = self._count(
                self._accounts.tries, [(f"{account} {network}", times) for network, times in self.networks], now
            )
            wait = wait or self._count(
                self._accounts.failures, [(f"{account} everywhere", EVERYWHERE_LIMIT_FACTOR)], now
            )
        if wait:
            self.withdraw()
        return wait

    def count_new_guest(self, now: float) -> int:
        """Counts it as a new guest of the address, and returns 0. If it is refused: withdraws all counts, and returns
        the seconds until the next new guest."""
        wait = self._count(self._guests, self._address, now)
        if wait:
            self.withdraw()
        return wait

    def succeed(self) -> None:
        """The password was right: withdraws the failure. The tries of the address and of the account stay counted."""
        self._withdraw(self._accounts.failures)

    def withdraw(self) -> None:
        """Withdraws all counts: no password was tried. May be called again."""
        self._withdraw()

    def _withdraw(self, only: SlidingWindow | None = None) -> None:
        kept = []
        for window, key, counted_at in self._counted:
            if only is None or window is only:
                window.uncount(key, counted_at)
            else:
                kept.append((window, key, counted_at))
        self._counted = kept

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.withdraw()
