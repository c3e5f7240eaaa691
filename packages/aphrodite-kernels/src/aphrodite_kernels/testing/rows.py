"""Cases of the ops that work row by row, random numbers among them."""

from collections.abc import Iterator
from functools import partial

import torch

from aphrodite_kernels.protocols import Activation
from aphrodite_kernels.testing.case import Case, Draw, assert_close


def row_cases() -> Iterator[Case]:
    """Norms, gated activations, gathering."""
    for shape in ((1, 576), (7, 640), (33, 100), (5, 3, 64), (2, 4, 256)):
        label = "x".join(map(str, shape))
        yield Case(f"rms_norm-{label}", partial(_check_rms_norm, shape=shape))
    for rows, width in ((1, 576), (7, 640), (33, 100)):
        yield Case(f"add_rms_norm-{rows}x{width}", partial(_check_add_norm, shape=(rows, width)))
        yield Case(f"select-{rows}x{width}", partial(_check_select, shape=(rows, width)))
        for activation in ("silu", "gelu_tanh"):
            run = partial(_check_gated, shape=(rows, width), activation=activation)
            yield Case(f"gated-{activation}-{rows}x{width}", run)


def _check_rms_norm(draw: Draw, shape: tuple[int, ...]) -> None:
    weight = draw.float32(shape[-1])
    for x in (draw.normal(*shape), draw.strided(*shape), draw.normal(*shape) * 1e-3):
        expected = draw.reference().rms_norm(x, weight, 1e-6)
        assert_close(draw.backend.rms_norm(x, weight, 1e-6), expected)


def _check_add_norm(draw: Draw, shape: tuple[int, int]) -> None:
    weight = draw.float32(shape[-1])
    for x, residual in (
        (draw.normal(*shape), draw.normal(*shape)),
        (draw.strided(*shape), draw.strided(*shape)),
    ):
        before = x.clone(), residual.clone()
        expected = draw.reference().add_rms_norm(x, residual, weight, 1e-5)
        for part, wanted in zip(
            draw.backend.add_rms_norm(x, residual, weight, 1e-5), expected, strict=True
        ):
            assert_close(part, wanted)
        assert torch.equal(x, before[0]), "add_rms_norm changed x"
        assert torch.equal(residual, before[1]), "add_rms_norm changed the residual"


def _check_select(draw: Draw, shape: tuple[int, int]) -> None:
    index = draw.integers(0, shape[0], 5)
    for x in (draw.normal(*shape), draw.strided(*shape)):
        assert torch.equal(draw.backend.select(x, index), x[index])
    numbers = draw.integers(-(1 << 31), 1 << 31, shape[0] * shape[1]).int().view(shape)
    chosen = draw.backend.select(numbers, index)
    assert chosen.dtype == torch.int32
    assert torch.equal(chosen, numbers[index])


def locate_cases() -> Iterator[Case]:
    """Decoding steps and others, of one KV group and of two."""
    for groups, counts, blocks in ((1, (1,) * 5, 3), (2, (1, 7, 1, 20), 3), (1, (2,), 1500)):
        label = f"locate-{groups}x{len(counts)}x{blocks}"
        yield Case(label, partial(_check_locate, groups=groups, counts=counts, blocks=blocks))


def _check_locate(draw: Draw, groups: int, counts: tuple[int, ...], blocks: int) -> None:
    """Of rows in any order, those at rest among them left out."""
    size, every = 16, len(counts) + 3
    tokens = draw.integers(0, 999, every * 48).int().view(every, 48)
    tables = draw.integers(0, 1 << 27, groups * every * blocks).int().view(groups, every, blocks)
    rows = torch.randperm(every)[: len(counts)].int().to(tokens.device)
    owners = torch.repeat_interleave(rows, torch.tensor(counts, device=rows.device))
    positions = draw.integers(0, 48, sum(counts)).int()
    inputs = (rows, owners, positions, tokens, tables, size)
    found, expected = draw.backend.locate(*inputs), draw.reference().locate(*inputs)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def _check_gated(draw: Draw, shape: tuple[int, int], activation: Activation) -> None:
    stacked = draw.normal(shape[0], 2 * shape[1]) * 4
    for gate, up in (
        (draw.normal(*shape), draw.normal(*shape)),
        (stacked[:, : shape[1]], stacked[:, shape[1] :]),
    ):
        expected = draw.reference().gated(gate, up, activation)
        assert_close(draw.backend.gated(gate, up, activation), expected)


def check_uniform(draw: Draw) -> None:
    """Equal bit for bit, also for the largest and smallest seeds and positions."""
    limits = torch.iinfo(torch.int64)
    extremes = torch.tensor([0, 1, -1, limits.max, limits.min, 0xFFFFFFFF, 1 << 32])
    seeds = torch.cat((extremes.to(draw.backend.device), draw.integers(0, limits.max, 200)))
    count = len(seeds)
    choices = draw.integers(0, 64, count).int()
    positions = draw.integers(0, 1 << 31, count).int()
    for purpose in (0, 1, 7):
        actual = draw.backend.uniform(seeds, choices, positions, purpose)
        assert torch.equal(actual, draw.reference().uniform(seeds, choices, positions, purpose))
        assert actual.min() >= 0
        assert actual.max() < 1
