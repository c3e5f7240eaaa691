"""SqueezeLLM, dense: every row in numbers of its own, by k-means of all weights alike."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from encoders.shared import Encoded, Encoder, Shapes, stream
from torch import Tensor

_ROUNDS = 20


def encode(weight: Tensor, bits: int) -> Encoded:
    count = 1 << bits
    quantiles = (torch.arange(count) + 0.5) / count
    table = weight.quantile(quantiles, 1).T.contiguous()  # [N, E], ascending
    for _ in range(_ROUNDS):
        codes = _nearest(weight, table)
        size = torch.zeros_like(table).scatter_add_(1, codes, torch.ones_like(weight))
        sums = torch.zeros_like(table).scatter_add_(1, codes, weight)
        table = torch.where(size > 0, sums / size.clamp(min=1), table).sort(1)[0]
    table = table.half()
    codes = _nearest(weight, table.float())
    tensors = {"qweight": stream(codes, bits).T.contiguous(), "lookup_table": table}
    return Encoded(tensors, table.float().gather(1, codes))


def _nearest(weight: Tensor, table: Tensor) -> Tensor:
    """Of each number of a row, the place of the nearest of the row's table, which ascends."""
    return torch.searchsorted((table[:, 1:] + table[:, :-1]) / 2, weight)


def _encoder(bits: int) -> Encoder:
    def config(encoded: Shapes, plain: Sequence[str]) -> dict[str, Any]:
        return {"quant_method": "squeezellm", "wbits": bits}

    encode_one: Callable[[Tensor], Encoded] = lambda weight: encode(weight, bits)  # noqa: E731
    return Encoder(encode_one, config)


ENCODERS = {"squeezellm-4": _encoder(4), "squeezellm-3": _encoder(3)}
