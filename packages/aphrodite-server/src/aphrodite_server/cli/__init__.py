"""The `aphrodite` command. Each subcommand is a module, imported only when it is asked for."""

import importlib
import sys
from collections.abc import Sequence
from typing import Final

from aphrodite_server import __version__

COMMANDS: Final = {
    "run": ("run", "serve a model"),
    "serve": ("run", "another name of run"),
    "chat": ("chat", "talk to a running server"),
    "inspect": ("inspect", "tell what a checkpoint holds and takes, and check it"),
    "quantize": ("quantize", "write a quantised checkpoint of a model"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    match given:
        case ["-v" | "--version", *_]:
            print(__version__)
            return 0
        case [command, *rest] if command in COMMANDS:
            module = importlib.import_module(f"{__name__}.{COMMANDS[command][0]}")
            return module.main(rest)
        case ["-h" | "--help", *_]:
            print(_usage())
            return 0
        case []:
            print(_usage(), file=sys.stderr)
            return 2
        case _:
            known = ", ".join(COMMANDS)
            print(f"aphrodite: error: no command {given[0]!r}; there is: {known}", file=sys.stderr)
            return 2


def _usage() -> str:
    lines = ["usage: aphrodite COMMAND ...", "", "commands:"]
    lines += [f"  {name:10}{text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "A first try: `aphrodite run demo`, and in another terminal `aphrodite chat`."]
    lines += ["`aphrodite COMMAND --help` explains a command; `aphrodite --version`"]
    return "\n".join(lines)
