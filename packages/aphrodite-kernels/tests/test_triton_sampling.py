"""Kernels that choose and remove tokens, with rows of many small parts.

The conformance suite's rows have few parts, of the size that is fast on a device.
"""

from dataclasses import replace

import pytest
import torch
from aphrodite_kernels.backends import reference
from aphrodite_kernels.backends.triton import device_obstacle
from aphrodite_kernels.testing import conformance_cases

if obstacle := device_obstacle():
    pytest.skip(f"no Triton kernel can run here: {obstacle}", allow_module_level=True)

from aphrodite_kernels.backends.triton import (
    sampling_argmax,
    sampling_draw,
    sampling_keep,
    sampling_spread,
    sampling_sums,
    sampling_top,
)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CASES = {case.name: case for case in conformance_cases()}


@pytest.fixture
def in_parts(monkeypatch):
    monkeypatch.setattr(sampling_argmax, "_CHUNK", 128)
    monkeypatch.setattr(sampling_draw, "CHUNK", 128)
    monkeypatch.setattr(sampling_sums, "CHUNK", 128)
    monkeypatch.setattr(sampling_top, "_BLOCK", 16)
    monkeypatch.setattr(sampling_keep, "_CHUNK", 64)
    monkeypatch.setattr(sampling_spread, "BLOCK", 64)
    backend = reference.create(DEVICE, threads=None, dtype=torch.float16)
    return replace(
        backend,
        argmax=sampling_argmax.argmax_on(overlapped=False),
        draw=sampling_draw.draw_on(overlapped=False),
        logsumexp=sampling_sums.logsumexp_on(overlapped=False),
        uncertainty=sampling_spread.uncertainty_on(overlapped=False),
        deviation=sampling_spread.deviation_on(overlapped=False),
        keep=sampling_keep.keep_on(above=False, overlapped=False),
        keep_near=sampling_keep.keep_near_on(overlapped=False),
        keep_up_to=sampling_keep.keep_on(above=True, overlapped=False),
        least_from=sampling_keep.least_from_on(overlapped=False),
        keep_top_k=sampling_top.keep_top_k_on(overlapped=False),
        keep_top_p=sampling_top.keep_top_p_on(overlapped=False),
    )


@pytest.mark.parametrize(
    "name",
    [
        "argmax-5001",
        "draw-5001",
        "logsumexp-5001",
        "draw-few-5001",
        "draw-failed",
        "keep_top_k-300",
        "keep_top_p-300",
        "keep-300",
        "keep_near-300",
        "keep_up_to-300",
        "keep-failed",
        "uncertainty-300",
        "deviation-300",
        "shapes-failed",
    ],
)
def test_parts_of_rows(in_parts, name):
    CASES[name].check(in_parts)


def test_few_tokens_are_left_to_the_largest_counts(in_parts):
    """Fewer tokens are possible than are asked for, and some slots hold more than they remember."""
    logits = torch.full((3, 1000), -torch.inf, device=DEVICE)
    logits[0, ::7] = 1.0
    logits[1, 16::16] = torch.arange(62.0, device=DEVICE)
    logits[2, 5] = -1e30
    count = torch.tensor([[150], [40], [2]], device=DEVICE)
    expected = logits.clone()
    in_parts.keep_top_k(logits, count)
    reference.create(DEVICE, threads=None, dtype=torch.float16).keep_top_k(expected, count)
    assert torch.equal(logits, expected)
