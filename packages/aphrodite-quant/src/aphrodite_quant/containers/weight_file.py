"""A file that should hold weights: is it there, is it something else, and its bytes, mapped."""

import mmap
from pathlib import Path

from aphrodite_quant.errors import CheckpointError

_IMPOSTORS = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the weights: fetch them with `git lfs pull`",
    ),
    (b"<!doctype html", "a web page: the download went wrong, fetch it again"),
    (b"<html", "a web page: the download went wrong, fetch it again"),
    (b"<?xml", "an XML document: the download went wrong, fetch it again"),
)
_PICKLES = (
    (b"\x80\x02", "a Python pickle, whose name does not say so: rename it to pytorch_model.bin"),
    (
        b"pk\x03\x04",
        "a zip archive: if torch wrote it, rename it to pytorch_model.bin",
    ),
)


def refuse_impostors(path: Path, *, pickled: bool = False) -> None:
    """CheckpointError if `path` is missing, empty, or known to be something other than weights.

    Pickles are weights only where they are expected. Safetensors begin with the length of their
    header, below 2**24 in eight bytes, which may be any number: also one that begins a pickle.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes): fetch it again")
    head, is_length = start.lstrip().lower(), start[3:8] == bytes(5)
    for magic, description in _IMPOSTORS if pickled or is_length else _IMPOSTORS + _PICKLES:
        if head.startswith(magic):
            raise CheckpointError(f"{path} is {description}")


def map_file(path: Path) -> mmap.mmap:
    """The bytes of a file that `refuse_impostors` let pass; a stray write stays in this process."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
