"""An index file beside the weights: which of several files holds which tensor."""

from pathlib import Path
from typing import TypeGuard, cast

from aphrodite_quant.errors import ContainerError, listed
from aphrodite_quant.json_object import read_json_object


def is_beside(file: object) -> TypeGuard[str]:
    """Whether an index may name that file: it lies in the same directory."""
    return isinstance(file, str) and not {"/", "\\"} & set(file)


def read_shards(path: Path, suffix: str) -> dict[str, list[str]]:
    """Names of tensors by the name of their file, which lies beside the index.

    Raises:
        ContainerError: no such index, a file elsewhere or of another kind, or one that is missing.
    """
    weight_map = read_json_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ContainerError(f"{path} has no weight_map that says which file holds which tensor")
    shards: dict[str, list[str]] = {}
    for tensor, file in cast("dict[str, object]", weight_map).items():
        if not is_beside(file) or not file.endswith(suffix):
            raise ContainerError(
                f"{path}: tensor {tensor!r} is said to lie in {file!r}, which is no "
                f"{suffix.removeprefix('.')} file beside the index"
            )
        shards.setdefault(file, []).append(tensor)
    missing = [name for name in shards if not (path.parent / name).exists()]
    if missing:
        raise ContainerError(f"{path} names files that are missing: {listed(missing)}")
    return shards
