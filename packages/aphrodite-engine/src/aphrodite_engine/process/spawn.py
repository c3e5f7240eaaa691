"""A process for an engine, begun before its parent has imported what it takes to talk to it.

Most of a start is imports: those of the two processes go on side by side.
"""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path


class Spawned:
    """A new process that will connect to `endpoint` and wait for its first message."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="aphrodite-")  # this user's alone
        self.endpoint = f"ipc://{Path(self._directory.name) / 'engine'}"
        command = (sys.executable, "-m", "aphrodite_engine.process", self.endpoint)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def end(self) -> None:
        """Make it stop now, if it has not, and leave nothing behind; may be called again."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._directory.cleanup()


@contextlib.contextmanager
def spawned() -> Generator[Spawned]:
    """A process that does not outlive the block."""
    new = Spawned()
    try:
        yield new
    finally:
        new.end()
