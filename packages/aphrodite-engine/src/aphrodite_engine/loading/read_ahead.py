"""The disk begins to read weights while processes start and libraries are imported."""

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

_PIECE = 8 << 20
"""Bytes asked for at a time; systems read no more of one request ahead than some megabytes."""


def read_ahead(files: Sequence[Path]) -> Thread | None:
    """Ask the system for files that will be needed soon; None where it takes no such advice.

    A file that is gone, or cannot be read, is for whoever opens it to complain of.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    thread = Thread(target=_advise, args=(files,), name="read ahead", daemon=True)
    thread.start()
    return thread


def _advise(files: Sequence[Path]) -> None:
    """Returns before all is read; waits only while the disk's queue is full."""
    for path in files:
        try:
            file = path.open("rb")
        except OSError:
            continue
        with file:
            for start in range(0, path.stat().st_size, _PIECE):
                os.posix_fadvise(file.fileno(), start, _PIECE, os.POSIX_FADV_WILLNEED)
