"""Entry of the engine process: `python -m aphrodite_engine.process ENDPOINT`."""

import gc
import signal
import sys


def begin(endpoint: str) -> None:
    """Import the engine, then serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    gc.disable()  # nothing that is imported is garbage, and to look for it takes 0.2 s
    from aphrodite_engine.process.worker import main

    gc.enable()
    main(endpoint)


if __name__ == "__main__":
    begin(sys.argv[1])
