"""Tensors of torchao's classes in a file that torch saved, taken apart as that tool writes them.

What is pickled of such a tensor is its class, by name, and its parts. Classes of our own stand for
every name of the tool, so nothing of it is imported or run: those of tensors keep the parts, the
others forget what they are given.
"""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from aphrodite_quant.containers.torchao_older import inside, renewed

_TOOL = "torchao."
_TENSORS = ("Tensor", "Impl")
"""How the names of its classes of tensors end."""


class TakenApart(Tensor):
    """A tensor that is nothing but parts: `parts` has them, and what is said of them, by name."""

    name: ClassVar[str]
    """The tool's name of the class."""
    parts: dict[str, Any]

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise NotImplementedError(f"{func} of a {cls.name}, which is only its parts")

    def __setstate__(self, state: object) -> None:
        own = cast("tuple[object, ...]", state)[0] if isinstance(state, tuple) else state
        self.parts = cast("dict[str, Any]", own) if isinstance(own, dict) else {}


class _Said:
    """What the tool says of a tensor in a class of its own: kept is a number that it is made of."""

    number: object

    def __new__(cls, *arguments: object) -> Self:
        said = super().__new__(cls)
        said.number = arguments[0] if len(arguments) == 1 else None
        return said

    def __setstate__(self, state: object) -> None:
        pass


def stand_ins(path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """A class for every name of the tool that a pickle asks for."""
    asked = [name for name in get_unsafe_globals_in_checkpoint(path) if name.startswith(_TOOL)]
    return [(_stand_in(name.rpartition(".")[2]), name) for name in asked]


def _stand_in(name: str) -> type:
    base = TakenApart if name.endswith(_TENSORS) else _Said
    return type(base)(name, (base,), {"name": name})


def take_apart(name: str, tensor: TakenApart) -> tuple[dict[str, Tensor], str]:
    """The tensors of `<module>.<leaf>` as `<module>._<leaf>_<part>`, and JSON that describes it."""
    around = inside(tensor.name, tensor.parts)
    if isinstance(around, TakenApart):
        return take_apart(name, around)
    parts, impl = dict(tensor.parts), tensor.parts.get("tensor_impl")
    if isinstance(impl, TakenApart):
        domain = parts.pop("zero_point_domain", None)
        zeros = domain.number if isinstance(domain, _Said) else None
        parts |= impl.parts | {"impl": impl.name, "zeros": zeros}
        codes = parts.get("int_data")
        parts |= codes.parts if isinstance(codes, TakenApart) else {}
    start, (kind, parts) = _start(name), renewed(tensor.name, parts, list(tensor.shape))
    tensors = {n: value for n, value in parts.items() if isinstance(value, Tensor)}
    found = {n: t for n, t in tensors.items() if not isinstance(t, TakenApart)}
    said = {part: as_json(value) for part, value in parts.items() if part not in tensors}
    data = said | {"shape": list(tensor.shape)}
    stated = {"_type": kind, "_data": data, "_tensor_data_names": list(found)}
    return {f"{start}{n}": t for n, t in found.items()}, json.dumps(stated)


def part_names(name: str, names: Collection[str]) -> list[str]:
    """Those of `names` that are parts of tensor `name`."""
    return [each for each in names if each.startswith(_start(name))]


def _start(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{module}._{leaf}_"


def as_json(value: object) -> object:
    """Numbers, text, types of numbers, lists and objects of them; null for anything else."""
    if isinstance(value, torch.dtype):
        return {"_type": "torch.dtype", "_data": str(value).removeprefix("torch.")}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {
            str(key): as_json(item) for key, item in cast("dict[object, object]", value).items()
        }
    return value if isinstance(value, bool | int | float | str) else None
