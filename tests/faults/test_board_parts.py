"""A part of the board is missing in Valkey, or what has been there is taken out of it: that is a missing board, found
and rebuilt."""

import trio

from tests.faults.servers import Pair, Valkey
from tests.faults.under_fault import Run, lasting, under_fault

KEYS = ("leaderboard", "{leaderboard}:order", "{leaderboard}:entry", "{leaderboard}:meta", "{leaderboard}:applied")
FOUND_SECONDS = 10.0  # until a loss that no command reports is found and mended
FILLER = (
    "EVAL \"for i = 1, 50 do redis.call('SET', 'filler:' .. math.random(1e9), string.rep('x', 2000)) end return 1\" 0"
)

BY_HAND = {
    "the leader from the totals": "ZREMRANGEBYRANK leaderboard -1 -1",
    "the leader from the order": "ZREMRANGEBYRANK {leaderboard}:order 0 0",
    "the last from the order": "ZREMRANGEBYRANK {leaderboard}:order -1 -1",
    "an entry": "EVAL \"local one = redis.call('HRANDFIELD', KEYS[1]) return redis.call('HDEL', KEYS[1], one)\""
    " 1 {leaderboard}:entry",
    "a stranger's total": "ZADD leaderboard 99999999 00000000-0000-4000-8000-000000000000",
}


async def test_keys_are_deleted(pair: Pair) -> None:
    """Each of a board's five keys in turn: nothing is shown without it, no rank is told by what is left, and it is back
    within 10 s."""
    async with under_fault(pair, bound=FOUND_SECONDS) as run:
        for key in KEYS:
            run.mark(f"DEL {key}")
            run.valkey.do(f"DEL {key}")
            await trio.sleep(lasting(1.2))


async def test_keys_are_deleted_while_nobody_acts(pair: Pair) -> None:
    """A board that loses its order while nobody acts is missed by those who read, and rebuilt for them."""
    async with under_fault(pair, bound=FOUND_SECONDS) as run:
        run.over.set()
        await trio.sleep(0.5)
        run.valkey.do("DEL {leaderboard}:order")
        await trio.sleep(lasting(1.5))


async def test_parts_are_removed_by_hand(pair: Pair) -> None:
    """Somebody takes one member out of one key, or puts one in: the keys do not belong together, and the board is
    rebuilt within 10 s."""
    async with under_fault(pair, bound=FOUND_SECONDS) as run:
        for what, command in BY_HAND.items():
            run.mark(what)
            run.valkey.do(command)
            await trio.sleep(lasting(1.2))


def used_memory(valkey: Valkey) -> int:
    valkey.do("SET filler:0 x")
    return int(
        valkey.say("EVAL \"return tonumber(string.match(redis.call('INFO', 'memory'), 'used_memory:(%d+)'))\" 0")[1:]
    )


async def fill(run: Run, policy: str) -> None:
    """Keeps a full Valkey evicting."""
    run.valkey.do(f"CONFIG SET maxmemory-policy {policy}")
    run.valkey.do(f"CONFIG SET maxmemory {used_memory(run.valkey) + 200_000}")
    with trio.move_on_after(lasting(2.0)):
        while True:
            run.valkey.say(FILLER)
            await trio.sleep(0.02)


async def test_keys_are_evicted(pair: Pair) -> None:
    """Whatever a full Valkey evicts, no board is shown that never was; `/readyz` warns of the policy; afterwards all
    agrees in 10 s."""
    async with under_fault(pair, bound=FOUND_SECONDS) as run:
        try:
            for policy in ("allkeys-lru", "allkeys-random"):
                run.mark(policy)
                await fill(run, policy)
                warnings = (await run.readyz()).get("warnings", [])
                if not any("maxmemory" in warning and policy in warning for warning in warnings):
                    run.found.append(f"/readyz warns of {warnings} under {policy}")
        finally:
            run.valkey.do("CONFIG SET maxmemory 0")
            run.valkey.do("CONFIG SET maxmemory-policy noeviction")
            run.valkey.say(
                "EVAL \"for _, key in ipairs(redis.call('KEYS', 'filler:*')) do redis.call('DEL', key) end return 1\" 0"
            )


async def test_unfinished_boards_do_not_pile_up(pair: Pair) -> None:
    """A rebuild that is disturbed again and again leaves nothing that stays: what it began expires or is cleared by the
    next one."""
    async with under_fault(pair, bound=FOUND_SECONDS) as run:
        with trio.move_on_after(lasting(3.0)):
            while True:
                run.valkey.do("DEL {leaderboard}:meta")
                await trio.sleep(0.3)
                run.valkey.say("CLIENT KILL TYPE normal")
                await trio.sleep(0.2)
    immortal = run.valkey.say(
        "EVAL \"local n = 0 for _, key in ipairs(redis.call('KEYS', '*:next:*')) do "
        "if redis.call('TTL', key) < 0 then n = n + 1 end end return n\" 0"
    )
    assert immortal == b":0"
