"""JSON files that hold one object."""

import json
from pathlib import Path
from typing import Any, cast

from aphrodite_quant.errors import CheckpointError

_LARGEST = 64 << 20
"""Bytes: twice the index of a trillion weights, and parsed it still fits the memory."""


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in `path`; CheckpointError if there is none, or one too large to be true."""
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise CheckpointError(
                f"{path} has {size} bytes; a description of a checkpoint has {_LARGEST} at most"
            )
        value: object = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, an object is needed")
    return cast("dict[str, Any]", value)
