"""How each module is quantised, as `config_groups` state it (compressed-tensors, ModelOpt).

A group has `targets` and what becomes of their `weights`; a target is the path of a module, `re:`
and a pattern of its beginning, or the class `Linear` or `Embedding`. `ignore` lists the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

from aphrodite_quant.containers.store import TensorInfo
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.modules import is_path_or_pattern, named_modules

Strategy = Literal["tensor", "channel", "group", "tensor_group", "block"]
_STRATEGIES: tuple[Strategy, ...] = ("tensor", "channel", "group", "tensor_group", "block")
_KINDS = ("int", "float")
_EMBEDDINGS = ("embed", "wte", "wpe")


@dataclass(frozen=True, slots=True)
class Scheme:
    """What the weights of some modules are."""

    where: str
    """File and group, for messages."""
    kind: str
    """`int` or `float`."""
    bits: int
    strategy: Strategy
    block: tuple[int, int]
    """Rows and columns that share a scale; 0: all of them."""
    symmetric: bool

    @classmethod
    def of(cls, where: str, stated: Mapping[str, Any]) -> Self:
        """From the `weights` of a group; FormatError if they are not of a kind that is known."""
        kind, bits = stated.get("type", "int"), stated.get("num_bits", 8)
        group, strategy = stated.get("group_size"), stated.get("strategy")
        if kind not in _KINDS or not isinstance(bits, int) or not 1 <= bits <= 8:
            raise FormatError(
                f"{where}: weights are {kind!r} of num_bits {bits!r}; expected int or float, 1 to 8"
            )
        if strategy is None:
            strategy = "tensor" if group is None else "channel" if group == -1 else "group"
        if strategy not in _STRATEGIES:
            raise FormatError(
                f"{where}: strategy is {strategy!r}, expected one of {', '.join(_STRATEGIES)}"
            )
        block = _block(where, strategy, group, stated.get("block_structure"))
        return cls(where, kind, bits, strategy, block, stated.get("symmetric", True) is not False)

    def __str__(self) -> str:
        size = f" of {self.block[0]} x {self.block[1]}" if self.block[1] else ""
        sign = "symmetric" if self.symmetric else "asymmetric"
        return f"{self.kind} of {self.bits} bits, {sign}, a scale for each {self.strategy}{size}"

    def blocks(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of a matrix that share a scale."""
        return self.block[0] or rows, self.block[1] or columns

    def contradicts(self, info: TensorInfo) -> TensorError:
        """The error that a tensor and what is stated of its module do not fit."""
        return TensorError(
            f"{info.file}: tensor {info.name!r} is {info}, but {self.where} states {self}"
        )


def _block(where: str, strategy: Strategy, group: object, structure: object) -> tuple[int, int]:
    if strategy == "tensor":
        return 0, 0
    if strategy == "channel":
        return 1, 0
    sizes = [1, group] if strategy != "block" else structure
    if strategy == "block" and isinstance(structure, str):
        sizes = [int(size) if size.isdecimal() else 0 for size in structure.split("x")]
    parts = cast("list[object]", sizes) if isinstance(sizes, list) else []
    numbers = [part for part in parts if isinstance(part, int) and part > 0]
    if len(numbers) != 2 or len(parts) != 2:
        field, value = (
            ("block_structure", structure) if strategy == "block" else ("group_size", group)
        )
        raise FormatError(f"{where}: {field} of strategy {strategy} is {value!r}, expected above 0")
    return numbers[0], numbers[1]


@dataclass(frozen=True, slots=True)
class Schemes:
    """The groups of a configuration."""

    groups: tuple[tuple[tuple[str, ...], Scheme | None], ...]
    """Targets, and what their weights are; None: they are plain."""
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, where: Path, stated: Mapping[str, Any]) -> Self:
        """From a quantization_config.

        Raises:
            FormatError: its groups are missing, or state what is not known.
        """
        groups = stated.get("config_groups")
        if not isinstance(groups, dict):
            raise FormatError(f"{where}: config_groups is {groups!r}, expected an object of groups")
        found: list[tuple[tuple[str, ...], Scheme | None]] = []
        for name, value in cast("dict[str, object]", groups).items():
            field = f"config_groups.{name}"
            if not isinstance(value, dict):
                raise FormatError(f"{where}: {field} is {value!r}, expected an object")
            group = cast("dict[str, Any]", value)
            targets = named_modules(where, group, "targets")
            weights = group.get("weights")
            scheme = None if weights is None else _scheme(f"{where}: {field}", weights)
            found.append((tuple(targets), scheme))
        return cls(tuple(found), tuple(named_modules(where, stated, "ignore")))

    def find(self, module: str) -> Scheme | None:
        """What the weights of `module` are; None if they are plain.

        Of several groups, one that names the path wins, then one with a pattern, then its class.
        """
        if any(_match(module, name) is not None for name in self.ignored):
            return None
        ranked = [
            (rank, scheme)
            for targets, scheme in self.groups
            for target in targets
            if (rank := _match(module, target)) is not None
        ]
        return min(ranked, key=lambda each: each[0])[1] if ranked else None


def _scheme(where: str, stated: object) -> Scheme:
    if not isinstance(stated, dict):
        raise FormatError(f"{where}.weights is {stated!r}, expected an object")
    return Scheme.of(where, cast("dict[str, Any]", stated))


def _match(module: str, target: str) -> int | None:
    """How `target` means the module (0: its path, 1: a pattern, 2: its class), if it does."""
    if is_path_or_pattern(module, target):
        return 1 if target.startswith("re:") else 0
    leaf = module.rpartition(".")[2]
    kind = "Embedding" if any(part in leaf for part in _EMBEDDINGS) else "Linear"
    return 2 if target == kind else None
