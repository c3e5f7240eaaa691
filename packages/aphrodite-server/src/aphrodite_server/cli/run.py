"""`aphrodite run`: load a model and serve it.

Everything that can be refused cheaply is refused before the engine is even imported: flags,
settings, the port.
"""

import argparse
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Generator, Sequence

from pydantic import ValidationError

from aphrodite_server.cli.config_file import parse
from aphrodite_server.cli.flags import engine_config, refusal, run_parser
from aphrodite_server.settings import Settings

_INTERRUPTED = 130


class CommandError(Exception):
    """The command cannot go on; the message is for its user."""


def main(arguments: Sequence[str]) -> int:
    """Serve until Ctrl-C; the exit code."""
    options = parse(run_parser(), arguments)
    refused = refusal(options)
    if refused is not None:
        print(f"aphrodite: error: {refused}", file=sys.stderr)
        return 2
    try:
        settings = _settings(options)
        _log_to_stderr(settings.log_level)
        with _listening(settings) as listener:
            from aphrodite_server.cli.serving import serve

            serve(engine_config(options), settings, listener)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except CommandError as error:
        print(f"aphrodite: error: {error}", file=sys.stderr)
        return 1
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    given = {name: getattr(options, name, None) for name in Settings.model_fields}
    given["priorities"] = options.scheduling_policy == "priority"
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"])
        found = first["input"]
        raise CommandError(f"{name}: {first['msg'].lower()}, found {found!r}") from None


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


@contextlib.contextmanager
def _listening(settings: Settings) -> Generator[socket.socket]:
    """The socket, bound before minutes go into loading; connections are taken afterwards."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with listener:
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            reason = (
                "is in use"
                if error.errno == errno.EADDRINUSE
                else f"cannot be used: {error.strerror}"
            )
            raise CommandError(
                f"port {settings.port} of {settings.host} {reason}; "
                "stop the program that has it, or choose another with --port"
            ) from None
        yield listener
