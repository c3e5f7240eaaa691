"""`aphrodite run`: load a model and serve it.

Everything that can be refused cheaply is refused before the engine is even imported: flags,
values, a missing model, settings, the port.
"""

import sys
from collections.abc import Sequence

from aphrodite_engine.config import check_config
from aphrodite_engine.errors import EngineError
from aphrodite_engine.loading.source import parse_model

from aphrodite_server.cli.config_file import parse
from aphrodite_server.cli.flags import engine_config, refusal, run_parser

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
    from aphrodite_server.cli.setup import CommandError, listening, log_to_stderr, settings_of

    try:
        settings = settings_of(options)
        log_to_stderr(settings.log_level)
        with listening(settings) as listener:
            from aphrodite_server.cli.serving import serve

            serve(config, settings, listener)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except CommandError as error:
        print(f"aphrodite: error: {error}", file=sys.stderr)
        return 1
    return 0
