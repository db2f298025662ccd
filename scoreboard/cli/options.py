"""The options that all commands share, and the settings that are loaded from them.

Every command reads the settings in the same way, so each takes --config, --data-dir and --embedded.
Tested by tests/cli/test_main.py.
"""

from collections.abc import Callable
from functools import wraps
from os import environ
from pathlib import Path
from typing import Any

import click

from scoreboard import __version__
from scoreboard.domain.errors import SettingsError, StartError
from scoreboard.embedded import stack as embedded_servers
from scoreboard.settings.model import load_settings
from scoreboard.telemetry import logging, metrics


class FilePath(click.Path):
    """A path that is not empty: pathlib reads an empty one as the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            raise SettingsError(f"{param.opts[0] if param else 'a path'}: must not be empty")
        return super().convert(value, param, ctx)


def configured(*, makes_data: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the shared options to a command, and calls it with the settings.

    `makes_data`: whether the command may make a database in a data folder that has none.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("--config", type=FilePath(path_type=Path), help="A TOML file beside the defaults.")
        @click.option("--embedded/--no-embedded", default=None, help="Start (or join) an own PostgreSQL and Valkey.")
        @click.option(
            "--data-dir", type=FilePath(path_type=Path), help="Where the embedded servers keep their data.  [.data]"
        )
        @wraps(command)
        def run(config: Path | None, embedded: bool | None, data_dir: Path | None, **others: Any) -> None:
            if embedded is None and data_dir is not None:
                embedded = True  # a named data folder means the servers in it
            flags = {"embedded.enabled": embedded, "embedded.data_dir": data_dir and str(data_dir)}
            flags |= {f"server.{name}": others.pop(name) for name in ("host", "port") if name in others}
            flags |= {"actions.file": str(actions)} if (actions := others.pop("actions", None)) else {}
            flags |= {"embedded.demo_accounts": False} if others.get("with_demo") is False else {}
            settings = load_settings(config, flags, environ)
            logging.configure(settings.log.level, settings.log.format)
            metrics.set_build_info(__version__)
            if (
                settings.embedded.enabled
                and not makes_data
                and not embedded_servers.has_data(settings.embedded.data_dir)
            ):
                raise StartError(
                    f"there is no database in the data folder {settings.embedded.data_dir}: name another (--data-dir), "
                    f"or make one there (`scoreboard migrate --data-dir {settings.embedded.data_dir}`)"
                )
            command(settings, **others)

        return run

    return decorate
