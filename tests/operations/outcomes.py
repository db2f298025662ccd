"""What becomes of a claim, for tests that wait for it."""

from scoreboard.domain.errors import Refusal
from scoreboard.domain.outcomes import Claim, Outcome
from scoreboard.operations.action_queue import Pending, Queue


async def outcome(begun: Pending | Refusal) -> Outcome:
    return begun if isinstance(begun, Refusal) else await begun.wait()


async def submit(queue: Queue, claim: Claim) -> Outcome:
    return await outcome(queue.submit(claim))
