"""EXL2: columns ordered by their size, in groups of fewer and fewer bits."""

from collections.abc import Sequence
from typing import Any

import torch
from encoders.shared import Encoded, Encoder, Shapes, stream
from torch import Tensor

_GROUP = 64
_PLAN = (8, 6, 5, 4, 4, 4, 3, 3, 2)
"""Bits of each ninth of the columns."""


def encode(weight: Tensor) -> Encoded:
    order = weight.square().sum(0).argsort(descending=True)
    parts = weight[:, order].split(_GROUP, 1)
    plan = [_PLAN[index * len(_PLAN) // len(parts)] for index in range(len(parts))]
    words, steps, largest, decoded = (list[Tensor]() for _ in range(4))
    listed: list[int] = []
    for part, bits in zip(parts, plan, strict=True):
        wanted = part.abs().amax(1) / (1 << bits - 1)
        most = wanted.max().half()
        step = (wanted / most.float()).sqrt().mul(16).ceil().clamp(1, 16)
        scale = step.square() * most.float() / 256
        half = 1 << bits - 1
        codes = (part / scale[:, None]).round().add(half).clamp(0, 2 * half - 1).long()
        listed += [bits, sum(len(each) for each in words)]
        words.append(stream(codes, bits).T)
        steps.append(step.long() - 1)
        largest.append(most)
        decoded.append((codes - half) * scale[:, None])
    dense = torch.empty_like(weight)
    dense[:, order] = torch.cat(decoded, 1)
    tensors = {
        "q_weight": torch.cat(words).contiguous(),
        "q_groups": torch.tensor(listed).short(),
        "q_scale": stream(torch.stack(steps), 4),
        "q_scale_max": torch.stack(largest),
        "q_invperm": order.argsort().short(),
    }
    return Encoded(tensors, dense)


def _config(encoded: Shapes, plain: Sequence[str]) -> dict[str, Any]:
    return {
        "quant_method": "exl2",
        "version": "0.2.3",
        "bits": round(sum(_PLAN) / len(_PLAN), 2),
        "head_bits": 16,
        "calibration": {"rows": 0, "length": 0, "dataset": "(none)"},
    }


ENCODERS = {"exl2": Encoder(encode, _config)}
