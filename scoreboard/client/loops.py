"""Which event loop runs. Each of the two clients is for one; with another loop, or none, it raises an error of one
line."""

from typing import Literal

import sniffio

Loop = Literal["trio", "asyncio"]


def require_loop(wanted: Loop, what: str) -> None:
    """Raises RuntimeError unless `what` is used where the wanted loop runs."""
    try:
        running = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        name, start = ("Trio", "trio.run(main)") if wanted == "trio" else ("asyncio", "asyncio.run(main())")
        raise RuntimeError(
            f"{what} needs {name}, and no event loop runs here: use it in an async function that {start} starts"
        ) from None
    if running == wanted:
        return
    if wanted == "trio":
        raise RuntimeError(
            f"{what} of scoreboard.client is for Trio, and {running} runs here: "
            "import it from scoreboard.client.asyncio"
        )
    raise RuntimeError(
        f"{what} of scoreboard.client.asyncio is for asyncio, and {running} runs here: import it from scoreboard.client"
    )
