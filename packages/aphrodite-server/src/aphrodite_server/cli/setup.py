"""What is settled before a model is loaded: settings, logging, the port."""

import argparse
import contextlib
import errno
import logging
import socket
from collections.abc import Generator

from aphrodite_engine.errors import ConfigError
from aphrodite_engine.loading.generation_config import MODEL, named_content
from pydantic import ValidationError

from aphrodite_server.presets import PresetError, load_presets
from aphrodite_server.settings import Settings


class CommandError(Exception):
    """The command cannot go on; the message is for its user."""


def settings_of(options: argparse.Namespace) -> Settings:
    """Flags before environment. CommandError: a value, preset or file is unusable."""
    given = {name: getattr(options, name, None) for name in Settings.model_fields}
    given["priorities"] = options.scheduling_policy == "priority"
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
        load_presets(settings)
        if settings.generation_config != MODEL:
            named_content(settings.generation_config)
    except (PresetError, ConfigError) as error:
        raise CommandError(str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"])
        found = first["input"]
        raise CommandError(f"{name}: {first['msg'].lower()}, found {found!r}") from None
    return settings


def log_to_stderr(level: str) -> None:
    """One line for each record; uvicorn tells only what went wrong."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


@contextlib.contextmanager
def listening(settings: Settings) -> Generator[socket.socket]:
    """The socket, bound before minutes go into loading; connections are taken afterwards."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with listener:
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise CommandError(_refused(settings, error)) from None
        yield listener


def _refused(settings: Settings, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {settings.port} of {settings.host} is in use; "
            "stop the program that has it, or choose another with --port"
        )
    return (
        f"cannot listen at {settings.host}, port {settings.port}: {error.strerror}; "
        "choose others with --host and --port"
    )
