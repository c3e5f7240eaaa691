"""SqueezeLLM: every row in numbers of its own, by k-means of all weights alike.

With outliers, the largest weights of the matrix are stored beside, and the others encoded alone.
"""

from collections.abc import Callable, Sequence
from functools import partial
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


def encode_sparsely(weight: Tensor, bits: int, share: float) -> Encoded:
    """With so large a share of the weights as outliers, and the row with most of them whole."""
    least = weight.abs().flatten().kthvalue(round(weight.numel() * (1 - share))).values
    large = weight.abs() > least
    whole = large.sum(1).argmax()
    large[whole] = True
    outliers = torch.where(large, weight, 0)
    rest = encode(weight - outliers, bits)
    apart = outliers[whole].clone()
    outliers[whole] = 0
    row, column = outliers.nonzero(as_tuple=True)
    beside = {
        "rows": torch.searchsorted(row, torch.arange(len(weight) + 1)).int(),
        "cols": column.int(),
        "vals": outliers[row, column],
        "full_rows": apart[:, None],
        "full_row_indices": whole[None].int(),
    }
    outliers[whole] = apart
    return Encoded({**rest.tensors, **beside}, rest.decoded + outliers)


def _nearest(weight: Tensor, table: Tensor) -> Tensor:
    """Of each number of a row, the place of the nearest of the row's table, which ascends."""
    return torch.searchsorted((table[:, 1:] + table[:, :-1]) / 2, weight)


def _encoder(bits: int, encode_one: Callable[[Tensor], Encoded]) -> Encoder:
    def config(encoded: Shapes, plain: Sequence[str]) -> dict[str, Any]:
        return {"quant_method": "squeezellm", "wbits": bits}

    return Encoder(encode_one, config)


ENCODERS = {
    "squeezellm-4": _encoder(4, partial(encode, bits=4)),
    "squeezellm-3": _encoder(3, partial(encode, bits=3)),
    "squeezellm-4-sparse": _encoder(4, partial(encode_sparsely, bits=4, share=0.0045)),
}
