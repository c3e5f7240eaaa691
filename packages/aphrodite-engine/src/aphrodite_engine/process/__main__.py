"""Entry of the engine process: `python -m aphrodite_engine.process ENDPOINT`."""

import sys

from aphrodite_engine.process.worker import main

if __name__ == "__main__":
    main(sys.argv[1])
