"""NormalFloat of four bits with a scale for every 64 columns of a row."""

import torch
from aphrodite_kernels.layouts import Dense, Lookup
from aphrodite_kernels.layouts.grouped import pack_codes

from aphrodite_quant.normal_float import NORMAL_FLOAT, nearest_in
from aphrodite_quant.online_groups import by_slabs, grouped

PER_WEIGHT = 0.5 + 4 / 64

_GROUP = 64


def quantize(weight: Dense) -> Lookup:
    """Each number becomes the nearest there is; FormatError if K is not a multiple of 64."""
    return by_slabs(weight, _quantize)


def _quantize(weight: Dense) -> Lookup:
    groups = grouped(weight, _GROUP, "nf4")
    scale = groups.abs().amax(2)
    table = torch.tensor(NORMAL_FLOAT, device=groups.device)
    scaled = (groups / scale.where(scale > 0, 1.0)[..., None]).flatten(1)
    codes = nearest_in(table, scaled)
    return Lookup(pack_codes(codes, 4), table[None], scale, _GROUP)
