"""From a weight, and what is known of its inputs, to the tensors of a format on disk.

A quantiser knows no model and no file. Whoever drives it runs calibration text, hands it one weight
after the other and stores what comes back under the module's name; the reader of the same format
under `formats/` reads it again.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from aphrodite_kernels.backend import Backend
from torch import Tensor

from aphrodite_quant.containers.store import TensorInfo
from aphrodite_quant.errors import FormatError

_GROUPS = (128, 64, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asks of a format; None: the format's own choice."""

    variant: str | None = None
    """What stands behind a colon in the format's name: fp8:block."""
    bits: float | None = None
    group_size: int | None = None
    """Input features that share a scale; -1: all of them."""
    symmetric: bool | None = None
    """No zero points."""
    act_order: bool | None = None
    """Input features in the order of their activations' size."""

    def only(self, name: str, *allowed: str) -> None:
        """FormatError if anything is asked that format `name` does not know."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name not in allowed:
                choices = ", ".join(allowed) or "none"
                raise FormatError(
                    f"format {name} has no option {field.name} (found {value!r}); "
                    f"its options are: {choices}"
                )


@dataclass(frozen=True, eq=False, slots=True)
class Statistics:
    """What calibration saw of the inputs x [T, K] of a projection."""

    hessian: Tensor
    """[K, K] float32: the mean of x xᵀ."""
    magnitude: Tensor
    """[K] float32: the mean of |x|."""

    def divided_by(self, factors: Tensor) -> "Statistics":
        """Of inputs divided by `factors` [K]."""
        hessian = self.hessian / factors[:, None] / factors
        return Statistics(hessian, self.magnitude / factors)


class Quantizer(ABC):
    """A format with its options settled."""

    calibrated: bool = False
    """Statistics are needed."""
    balances: bool = False
    """`balance` is of use."""

    @property
    @abstractmethod
    def bits_per_weight(self) -> float:
        """Of a packed weight on disk, its scales included, without small change."""

    @abstractmethod
    def config(self, plain: Sequence[str]) -> dict[str, Any]:
        """The `quantization_config` of a checkpoint; its linear modules `plain` were left alone."""

    def side_files(
        self, config: Mapping[str, Any], tensors: Collection[TensorInfo]
    ) -> dict[str, dict[str, Any]]:
        """What other tools want beside config.json: names of files and the JSON that they hold.

        `config` is what config.json says of the format, `tensors` are all that were written.
        """
        return {}

    @abstractmethod
    def quantize(self, weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
        """The tensors of a weight [N, K] float32, by what follows the module's name and a dot.

        `statistics` are None only for a quantiser that is not `calibrated`.
        """

    def on(self, backend: Backend) -> "Quantizer":
        """The same with the ops of a backend, on whose device the weights will be."""
        return self

    def balance(self, weights: Sequence[Tensor], statistics: Statistics) -> Tensor | None:
        """Factors [K], by which weights of one input had better be multiplied and it divided.

        The weights [N, K] are float32. None: by nothing.
        """
        return None


def common_group(name: str, stated: int | None, shapes: Collection[tuple[int, int]]) -> int:
    """The group size that was asked for, or else the largest usual one that divides every weight.

    -1 stays -1.

    Raises:
        FormatError: a weight does not divide into such groups.
    """
    if stated == -1:
        return stated
    for group in _GROUPS if stated is None else (stated,):
        if group > 0 and all(columns % group == 0 for _, columns in shapes):
            return group
    wanted = ", ".join(map(str, _GROUPS)) if stated is None else str(stated)
    widths = sorted({columns for _, columns in shapes})
    raise FormatError(
        f"format {name}: weights with {widths} input features do not all divide into groups of "
        f"{wanted}; name another group size, or -1 for one group"
    )
