"""What a kernel is compiled with, so that it can be compiled where there is no GPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Specimen:
    """One compilation that a launcher asks for. A kernel's file lists its own as `SPECIMENS`."""

    kernel: Any
    """The function under `triton.jit`."""
    signature: Mapping[str, str | tuple[str, ...]]
    """Triton's type of every argument that is not a constant: `*bf16`, `i32`, …, or a tuple."""
    constants: dict[str, object]
    num_warps: int = 4
    num_stages: int = 3
    aligned: tuple[str, ...] = ()
    """Arguments divisible by 16, as addresses and extents mostly are: loads of 16 bytes hang on it.

    `parts.2` is in a tuple `parts`.
    """
    capabilities: tuple[int, ...] = (80, 90)
    """Of the devices on which it is launched so."""
    registers: int | None = None
    """Of a thread, at most, if the launcher says so."""
    spilled: int = 128
    """Bytes of registers that a thread may spill, at most: 32 registers outside of a loop do no
    harm.
    """
