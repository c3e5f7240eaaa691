"""`aphrodite run`: load a model and serve it.

Everything that can be refused cheaply is refused before there is an engine: flags, values, a
missing model. While its process comes up, settings and the port are tried, the server is imported.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aphrodite_engine.config import EngineConfig, check_config
from aphrodite_engine.errors import EngineError
from aphrodite_engine.loading.source import parse_model

from aphrodite_server.cli.config_file import parse
from aphrodite_server.cli.flags import engine_config, refusal, run_parser

if TYPE_CHECKING:
    from aphrodite_engine.process.spawn import Spawned

_INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Serve until Ctrl-C; the exit code."""
    options = parse(run_parser(), arguments)
    refused = refusal(options)
    if refused is not None:
        print(f"aphrodite: error: {refused}", file=sys.stderr)
        return 2
    config = engine_config(options)
    try:
        check_config(config)
        parse_model(config.model)
    except (EngineError, OSError) as error:
        print(f"aphrodite: error: {error}", file=sys.stderr)
        return 1
    from aphrodite_engine.process.spawn import spawned

    try:
        with spawned() as process:
            return _serve(config, options, process)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _serve(config: EngineConfig, options: argparse.Namespace, process: "Spawned") -> int:
    from aphrodite_server.cli.setup import CommandError, listening, log_to_stderr, settings_of

    try:
        settings = settings_of(options)
        log_to_stderr(settings.log_level)
        with listening(settings) as listener:
            from aphrodite_server.cli.serving import serve

            serve(config, settings, listener, process)
    except CommandError as error:
        print(f"aphrodite: error: {error}", file=sys.stderr)
        return 1
    return 0
