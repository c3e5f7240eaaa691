"""NormalFloat of four bits (QLoRA, arXiv:2305.14314, appendix E): what its codes stand for."""

import torch
from torch import Tensor

NORMAL_FLOAT = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
"""Quantiles of a normal distribution, the largest scaled to 1, zero among them."""


def nearest_in(table: Tensor, values: Tensor) -> Tensor:
    """The place, uint8, of the entry of an ascending table that is nearest to each."""
    between = (table[1:] + table[:-1]) / 2
    return torch.bucketize(values, between).to(torch.uint8)
