"""What stages remember of a row from one token to the next: numbers on the device, by row id.

A number lives here from the row's start until someone else starts there. A copy of every change
goes to the host with the token that made it, so that a request that loses its row starts again
with the numbers it had.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aphrodite_engine.sampling.logprobs import to_host
from aphrodite_engine.sampling.row import RowSpec
from aphrodite_engine.sampling.stage import Stage


def names_of(stage: type[Stage]) -> list[str]:
    """What the numbers of a stage are called outside of it."""
    return [f"{stage.name()}.{name}" for name in stage.remembers]


@dataclass(frozen=True, slots=True)
class Remembered:
    """Numbers after a step, of the rows that have a stage; on the device or on the host."""

    stage: type[Stage]
    places: Sequence[int]
    """Of the rows among the rows of the step."""
    numbers: Tensor
    """[n, number of names] float32."""

    def map(self, move: Callable[[Tensor], Tensor]) -> "Remembered":
        """The same elsewhere."""
        return replace(self, numbers=move(self.numbers))

    def read_into(self, rows: Sequence[dict[str, float]]) -> None:
        """Add to the numbers of each row of the step."""
        names = names_of(self.stage)
        flat = iter(to_host(self.numbers.reshape(-1)))
        for place in self.places:
            rows[place].update(zip(names, flat, strict=False))


class Memory:
    """The numbers of all rows, one tensor for each name."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._numbers: dict[str, Tensor] = {}

    def start(self, spec: RowSpec, stages: Sequence[Stage]) -> None:
        """Set a row's numbers: those known of it, or else what its stages recall."""
        for stage in stages:
            if not stage.remembers:
                continue
            recalled = stage.recall(spec.tokens)
            for name, outside in zip(stage.remembers, names_of(type(stage)), strict=True):
                number = spec.remembered.get(outside, recalled[name])
                self._room(outside, spec.row)[spec.row] = number

    def read(self, stage: type[Stage], rows: Tensor) -> dict[str, Tensor]:
        """Numbers of a stage for rows [n], by its own names: [n, 1] each, copies."""
        return {
            name: self._numbers[outside][rows, None]
            for name, outside in zip(stage.remembers, names_of(stage), strict=True)
        }

    def write(self, stage: type[Stage], rows: Tensor, numbers: Mapping[str, Tensor]) -> None:
        """The reverse of `read`."""
        for name, outside in zip(stage.remembers, names_of(stage), strict=True):
            self._numbers[outside][rows] = numbers[name][:, 0]

    def _room(self, name: str, row: int) -> Tensor:
        """The tensor of a name, long enough for a row."""
        numbers = self._numbers.get(name)
        if numbers is None or row >= len(numbers):
            longer = torch.zeros(2 * row + 16, device=self._device)
            if numbers is not None:
                longer[: len(numbers)] = numbers
            numbers = self._numbers[name] = longer
        return numbers
