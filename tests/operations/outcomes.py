"""The outcome of a submitted action, for tests that wait for it."""

from scoreboard.domain.errors import Refusal
from scoreboard.domain.outcomes import Outcome, SubmittedAction
from scoreboard.operations.action_queue import Pending, Queue


async def outcome(begun: Pending | Refusal) -> Outcome:
    return begun if isinstance(begun, Refusal) else await begun.wait()


async def submit(queue: Queue, claim: SubmittedAction) -> Outcome:
    return await outcome(queue.submit(claim))
