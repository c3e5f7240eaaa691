"""The gemv versions of AWQ: four bits in groups of 64 columns, rounded to the nearest."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from encoders.shared import Encoded, Encoder, Shapes, rounded_between, scaled, stream
from torch import Tensor
from torch.nn.functional import pad

_GROUP = 64


def encode_gemv(weight: Tensor) -> Encoded:
    codes, scale, zero = rounded_between(weight, 4, _GROUP)
    missing = -scale.shape[1] % 16
    tensors = {
        "qweight": stream(codes, 4),
        "qzeros": stream(pad(zero, (0, missing)), 4),
        "scales": pad(scale, (0, missing)),
    }
    return Encoded(tensors, scaled(codes, scale, zero))


def encode_gemv_fast(weight: Tensor) -> Encoded:
    rows, columns = weight.shape
    codes, scale, zero = rounded_between(weight, 4, _GROUP)
    shift = -(scale.float() * zero).half()
    # Columns 0, 1, 8, 9, 16, … of 32 come first, then of those eights the even ones, then the odd.
    mixed = codes.view(rows, -1, 4, 4, 2).transpose(2, 3).reshape(rows, -1, 4, 2)
    by_row = mixed.transpose(2, 3).reshape(rows // 4, 4, columns // 64, 64)
    words = stream(by_row.transpose(1, 2).reshape(rows // 4, -1), 4)
    missing = -scale.shape[1] % 16
    tensors = {
        "qweight": words.view(torch.int16),
        "scales": pad(scale, (0, missing)).T.contiguous(),
        "qzeros": pad(shift, (0, missing)).T.contiguous(),
    }
    group = codes.shape[1] // scale.shape[1]
    wide = shift.float().repeat_interleave(group, 1)
    return Encoded(tensors, scaled(codes, scale, 0) + wide)


def _encoder(version: str, encode: Callable[[Tensor], Encoded]) -> Encoder:
    def config(encoded: Shapes, plain: Sequence[str]) -> dict[str, Any]:
        sizes = {"bits": 4, "group_size": _GROUP, "zero_point": True}
        return {"quant_method": "awq", "version": version, **sizes}

    return Encoder(encode, config)


ENCODERS = {
    "awq-gemv": _encoder("gemv", encode_gemv),
    "awq-gemv_fast": _encoder("gemv_fast", encode_gemv_fast),
}
