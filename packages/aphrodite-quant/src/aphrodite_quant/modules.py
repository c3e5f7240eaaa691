"""Which modules a configuration names: the lists of those that were left unquantised."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from aphrodite_quant.containers.store import TensorInfo
from aphrodite_quant.errors import FormatError, TensorError


def named_modules(where: Path, stated: Mapping[str, Any], *fields: str) -> list[str]:
    """The names in all `fields` of a configuration; FormatError unless they are lists of text."""
    names: list[str] = []
    for field in fields:
        value = stated.get(field)
        if value is None:
            continue
        items = cast("list[object]", value) if isinstance(value, list) else [value]
        wrong = [item for item in items if not isinstance(item, str)]
        if wrong or not isinstance(value, list):
            raise FormatError(f"{where}: {field} is {value!r}, expected a list of module names")
        for name in cast("list[str]", items):
            _check_pattern(where, field, name)
            names.append(name)
    return names


def is_path_or_pattern(module: str, name: str) -> bool:
    """Whether `name` is the path `module`, or `re:` and a pattern of its beginning."""
    if name.startswith("re:"):
        return re.match(name.removeprefix("re:"), module) is not None
    return name == module


def matched(module: str, names: list[str]) -> str | None:
    """The first of `names` that means the path `module`, or a part of the tree that holds it.

    A name is a run of whole parts of the path (`lm_head`, `mlp.gate`, `model.layers.3`), may have
    wildcards for the whole of it (`*.self_attn*`), or starts with `re:` and matches its beginning.
    """
    for name in names:
        wild = fnmatchcase(module, name) if "*" in name or "?" in name else False
        if wild or is_path_or_pattern(module, name) or f".{name}." in f".{module}.":
            return name
    return None


def refuse_named(weight: TensorInfo, module: str, names: list[str], field: str) -> None:
    """TensorError if quantised tensor `weight` is of a module that the list leaves unquantised."""
    name = matched(module, names)
    if name is not None:
        raise TensorError(
            f"{weight.file}: tensor {weight.name!r} is {weight}, but {field} of the configuration "
            f"has {name!r}, which leaves this module unquantised"
        )


def _check_pattern(where: Path, field: str, name: str) -> None:
    try:
        re.compile(name.removeprefix("re:") if name.startswith("re:") else "")
    except re.error as error:
        raise FormatError(f"{where}: {field} has {name!r}, no pattern: {error}") from error
