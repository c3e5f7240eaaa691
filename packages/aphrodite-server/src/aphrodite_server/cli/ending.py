"""How a command that works on a model and then ends is told to have ended."""

import sys
from collections.abc import Callable

_INTERRUPTED = 130


def exit_code(work: Callable[[], int], interrupted: str | None = None) -> int:
    """What `work` returns; 1 after one line about an error of the user's, 130 if it was stopped.

    interrupted: what is said then, if anything. Errors of our own come through.
    """
    from aphrodite_engine.loading.errors import loading_error

    try:
        return work()
    except KeyboardInterrupt:
        if interrupted is not None:
            print(f"aphrodite: {interrupted}", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        known = loading_error(error)
        if known is None:
            raise
        print(f"aphrodite: error: {known}", file=sys.stderr)
        return 1
