"""From a matrix to a trellis: rotated until it looks like noise, then coded block by block.

Rows are scaled alike, signs drawn, and both axes turned by Hadamard transforms of 128 (QTIP's
incoherence processing). Sixteen input features at a time are coded, and what they lack is made up
for in those that follow, as the Hessian of their products tells (block LDLQ).
"""

import torch
from aphrodite_kernels.layouts.hadamard import hadamard
from aphrodite_kernels.layouts.trellis import (
    TRELLIS_BLOCK,
    Trellis,
    TrellisCodebook,
    symbol_places,
    trellis_numbers,
)
from torch import Tensor

from aphrodite_quant.hessian import inverse_factor
from aphrodite_quant.trellis.search import find_paths

_TILE = 16
_SIGNS = 0x5EED


def encode(weight: Tensor, hessian: Tensor, bits: int, codebook: TrellisCodebook) -> Trellis:
    """A weight [N, K] float32 whose inputs x have the mean of x xᵀ `hessian` [K, K] float32.

    N and K are multiples of 128.
    """
    device = weight.device
    suh, signs = (_signs(size, device) for size in weight.shape[::-1])
    height = weight.square().mean(1).sqrt()
    svh = signs * height.where(height > 0, 1.0)
    numbers = trellis_numbers(codebook, device).float()
    svh = (svh / numbers.std()).half().float()
    turned = _turn(_turn((weight / svh[:, None] * suh).T.contiguous()).T.contiguous())
    upper = inverse_factor(_turn(_turn(hessian * suh * suh[:, None]).T.contiguous()))
    symbols = _code(turned, upper, bits, numbers)
    trellis = Trellis(_pack(symbols, bits), suh.half(), svh.half(), codebook)
    return _refit(trellis, weight, hessian)


def _signs(size: int, device: torch.device) -> Tensor:
    """As good as random, and the same every time."""
    generator = torch.Generator().manual_seed(_SIGNS + size)
    return (torch.randint(0, 2, (size,), generator=generator) * 2.0 - 1).to(device)


def _turn(matrix: Tensor) -> Tensor:
    """Each 128 columns transformed."""
    return hadamard(matrix.view(len(matrix), -1, TRELLIS_BLOCK)).view_as(matrix)


def _code(turned: Tensor, upper: Tensor, bits: int, numbers: Tensor) -> Tensor:
    """Symbols [K / 16, N / 16, 256] of a matrix [N, K], which is used up."""
    places = symbol_places().to(turned.device)
    back = places.argsort()
    coded: list[Tensor] = []
    for start in range(0, turned.shape[1], _TILE):
        part, rest = slice(start, start + _TILE), slice(start + _TILE, None)
        wanted = turned[:, part].clone()  # [N, in]
        tiles = wanted.view(-1, _TILE, _TILE).transpose(1, 2).reshape(-1, 256)[:, places]
        symbols = find_paths(tiles, bits, numbers)
        values = numbers[ring_states(symbols, bits)][:, back]
        found = values.view(-1, _TILE, _TILE).transpose(1, 2).reshape(wanted.shape)
        error = (wanted - found) @ torch.inverse(upper[part, part])
        turned[:, rest] -= error @ upper[part, rest]
        coded.append(symbols)
    return torch.stack(coded)


def ring_states(symbols: Tensor, bits: int) -> Tensor:
    """The 16 bits of a ring that end with each symbol: [n, 256] int64."""
    state = torch.zeros_like(symbols)
    for back in range(-(-16 // bits)):
        state |= symbols.roll(back, 1) << back * bits
    return state & 0xFFFF


def _pack(symbols: Tensor, bits: int) -> Tensor:
    """[..., 256] -> [..., 16 bits] int16: a stream from the highest bit of words of two halves."""
    shifts = torch.arange(bits - 1, -1, -1, device=symbols.device)
    stream = (symbols.unsqueeze(-1) >> shifts & 1).flatten(-2).unflatten(-1, (-1, 16))
    weights = 1 << torch.arange(15, -1, -1, device=symbols.device)
    halves = (stream * weights).sum(-1)
    order = torch.arange(16 * bits, device=symbols.device) ^ 1
    return halves[..., order].int().short()


def _refit(trellis: Trellis, weight: Tensor, hessian: Tensor) -> Trellis:
    """The same with the scale of each row that leaves its product the least error."""
    found = trellis.dequantize()
    seen = found @ hessian
    power = (seen * found).sum(1)
    scale = ((seen * weight).sum(1) / power).where(power > 0, 1.0)
    svh = (trellis.svh.float() * scale).half()
    return Trellis(trellis.trellis, trellis.suh, svh, trellis.codebook)
