"""What encoders share: a matrix in a format, codebooks, rounding, bit streams."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from torch import Tensor

_AT_ONCE = 1 << 20
"""Distances, which a cache holds."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A matrix as a format has it."""

    tensors: Mapping[str, Tensor]
    """By the last part of their names."""
    decoded: Tensor
    """[N, K] float32: what they stand for, from the codes before they were packed."""


Shapes = Mapping[str, tuple[int, int]]
"""Of modules: [N, K]."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """How a whole model is put into a format."""

    encode: Callable[[Tensor], Encoded]
    """Of a matrix [N, K] float32."""
    config: Callable[[Shapes, Sequence[str]], dict[str, Any]]
    """What config.json states, of the modules that are encoded and of those that are left plain."""
    blocks: int | None = None
    """Of the model's blocks so many are encoded, as more take too long; None: all."""
    stated_in: str = "quantization_config"
    """Where config.json has the configuration."""
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Of a block: modules that hold several, from the first rows to the last."""
    encode_fused: Callable[[Sequence[Tensor]], Encoded] | None = None
    """Of matrices [N, K] float32 that become one such module."""


def nearest(points: Tensor, entries: Tensor) -> Tensor:
    """Of each point [V, D]: the entry [E, D] that is nearest, [V] int64."""
    table, bias = (2 * entries).T.contiguous(), -entries.square().sum(1)
    step = max(1, _AT_ONCE // len(entries))
    found, room = torch.empty(len(points), dtype=torch.long), torch.empty(step, len(entries))
    for start in range(0, len(points), step):
        part = points[start : start + step]
        near = torch.addmm(bias, part, table, out=room[: len(part)])
        found[start : start + step] = near.max(1)[1]
    return found


def cluster(points: Tensor, count: int, rounds: int = 8) -> Tensor:
    """Entries [count, D] float16 for points [V, D]: k-means of a sample, or a sample of them."""
    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    entries = points[chosen[torch.arange(count) % len(points)]].clone()
    sample = points[chosen[: 16 * count]]
    for _ in range(rounds if len(sample) >= 4 * count else 0):
        code = nearest(sample, entries)
        size = code.bincount(minlength=count)
        sums = torch.zeros_like(entries).index_add_(0, code, sample)
        entries = torch.where(size[:, None] > 0, sums / size.clamp(min=1)[:, None], entries)
    return entries.half()


def rounded(weight: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Codes [N, K] int64, 2**(bits - 1) above what they stand for, and scales [N, G] float16."""
    groups = weight.unflatten(1, (-1, group))
    half = 1 << bits - 1
    scale = (groups.abs().amax(2) / (half - 1)).clamp(min=1e-6).half()
    codes = (groups / scale.float()[..., None]).round().add(half).clamp(0, 2 * half - 1)
    return codes.flatten(1).long(), scale


def rounded_between(weight: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [N, K] int64, scales [N, G] float16 and zero points [N, G] int64."""
    groups, most = weight.unflatten(1, (-1, group)), (1 << bits) - 1
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    scale = ((high - low) / most).clamp(min=1e-6).half()
    zero = (-low / scale.float()).round().clamp(0, most)
    codes = (groups / scale.float()[..., None]).round().add(zero[..., None]).clamp(0, most)
    return codes.flatten(1).long(), scale, zero.long()


def scaled(codes: Tensor, scale: Tensor, zero: Tensor | int) -> Tensor:
    """(codes - zero) * scale, float32, where scales and zero points are of groups of columns."""
    group = codes.shape[1] // scale.shape[1]
    wide = zero.repeat_interleave(group, 1) if isinstance(zero, Tensor) else zero
    return (codes - wide) * scale.float().repeat_interleave(group, 1)


def stream(codes: Tensor, bits: int) -> Tensor:
    """Rows of codes [R, C] as little-endian bit streams in whole words, [R, W] int32."""
    each = codes.numpy()[..., None] >> numpy.arange(bits) & 1
    flat = each.astype(numpy.uint8).reshape(len(codes), -1)
    padded = numpy.pad(flat, ((0, 0), (0, -flat.shape[1] % 32)))
    packed = numpy.packbits(padded, axis=1, bitorder="little")
    return torch.from_numpy(packed.view(numpy.int32).copy())


def signed(codes: Tensor, dtype: torch.dtype) -> Tensor:
    """The same bits as numbers with a sign."""
    return codes.to({torch.int8: torch.uint8, torch.int16: torch.uint16}[dtype]).view(dtype)
