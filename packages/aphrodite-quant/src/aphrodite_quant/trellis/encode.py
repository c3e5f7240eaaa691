"""From a matrix to a trellis: rotated until it looks like noise, then coded block by block.

Channels are scaled, signs drawn, and both axes turned by Hadamard transforms of 128 (QTIP's
incoherence processing, arXiv 2406.11235). Sixteen input features at a time are coded, and what they
lack is made up for in those that follow, as the Hessian of their products tells (block LDLQ).
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
from aphrodite_kernels.protocols import FindPaths
from torch import Tensor

from aphrodite_quant.hessian import inverse_factor

_TILE = 16
_SIGNS = 0x5EED
_SPREAD: dict[float, float] = {
    1: 1.1, 1.5: 1.03, 2: 0.98, 2.5: 0.96, 3: 0.92, 3.5: 0.93,
    4: 0.88, 5: 0.85, 6: 0.82, 7: 0.79, 8: 0.76,
}  # fmt: skip
"""Bits -> standard deviation of what is coded, in those of the codebook, that errs least.

The more bits, the more a number beyond the codebook's largest would cost. Measured on normal
numbers; with spread 1, errors of four bits are 6 % larger, those of eight bits eleven times.
"""


def encode(
    weight: Tensor, hessian: Tensor, bits: float, codebook: TrellisCodebook, find_paths: FindPaths
) -> Trellis:
    """A weight [N, K] float32 whose inputs x have the mean of x xᵀ `hessian` [K, K] float32.

    N and K are multiples of 128.
    """
    numbers = trellis_numbers(codebook, weight.device).float()
    suh, svh = _scales(weight, hessian.diagonal(), _SPREAD[bits] * float(numbers.std()))
    turned = _turned(weight, svh, suh)
    upper = inverse_factor(_turned(hessian, 1 / suh, 1 / suh))
    symbols = _code(turned, upper, bits, numbers, find_paths)
    trellis = Trellis(_pack(symbols, bits), suh.half(), svh.half(), codebook)
    return _refit(trellis, weight, hessian)


def _scales(weight: Tensor, importance: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    """suh [K] and svh [N] with which all blocks of the turned weight have one spread.

    Within a block, rows are scaled alike. An input feature is scaled by its weights' size a and
    its inputs' power h as a^½ h^-⅛: half of the way to like sizes, and some of it to like powers.
    That left the least errors of products, by a tenth to a fifth, among nine ways on SmolLM2's
    layers.
    """
    suh, svh = (_signs(size, weight.device) for size in weight.shape[::-1])
    svh = svh * _or_one(weight.square().mean(1).sqrt())
    suh = suh * _or_one((weight / svh[:, None]).square().mean(0)) ** 0.25
    suh = suh / _or_one(importance / _or_one(importance.mean())).clamp(min=1e-9) ** 0.125
    for _ in range(2):
        svh = svh * _block_sizes(_turned(weight, svh, suh).T)
        suh = suh * _block_sizes(_turned(weight, svh, suh))
    size = float(_turned(weight, svh, suh).square().mean().sqrt())
    return suh.half().float(), (svh * ((size or 1.0) / spread)).half().float()


def _or_one(numbers: Tensor) -> Tensor:
    return numbers.where(numbers > 0, 1.0)


def _block_sizes(matrix: Tensor) -> Tensor:
    """For each column the root of the mean square of its block of 128."""
    sizes = matrix.square().mean(0).view(-1, TRELLIS_BLOCK).mean(1).sqrt()
    return _or_one(sizes).repeat_interleave(TRELLIS_BLOCK)


def _signs(size: int, device: torch.device) -> Tensor:
    """As good as random, and the same every time."""
    generator = torch.Generator().manual_seed(_SIGNS + size)
    return (torch.randint(0, 2, (size,), generator=generator) * 2.0 - 1).to(device)


def _turned(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The matrix without the scales of its rows and columns, both axes transformed."""
    plain = matrix / rows[:, None] / columns
    return _turn(_turn(plain.T.contiguous()).T.contiguous())


def _turn(matrix: Tensor) -> Tensor:
    """Each 128 columns transformed."""
    return hadamard(matrix.view(len(matrix), -1, TRELLIS_BLOCK)).view_as(matrix)


def _code(
    turned: Tensor, upper: Tensor, bits: float, numbers: Tensor, find_paths: FindPaths
) -> Tensor:
    """Symbols [K / 16, N / 16, 256] of a matrix [N, K], which is used up."""
    places = symbol_places().to(turned.device)
    back = places.argsort()
    coded: list[Tensor] = []
    for start in range(0, turned.shape[1], _TILE):
        part, rest = slice(start, start + _TILE), slice(start + _TILE, None)
        wanted = turned[:, part].clone()  # [N, in]
        tiles = wanted.view(-1, _TILE, _TILE).transpose(1, 2).reshape(-1, 256)[:, places]
        symbols = find_paths(tiles.contiguous(), bits, numbers)
        values = numbers[ring_states(symbols, bits)][:, back]
        found = values.view(-1, _TILE, _TILE).transpose(1, 2).reshape(wanted.shape)
        error = (wanted - found) @ torch.inverse(upper[part, part])
        turned[:, rest] -= error @ upper[part, rest]
        coded.append(symbols)
    return torch.stack(coded)


def ring_states(symbols: Tensor, bits: float) -> Tensor:
    """The 16 bits of a ring that end with each symbol: [n, 256] int64."""
    symbols, pair_bits = symbols.long(), int(2 * bits)
    place = torch.arange(256, device=symbols.device)
    ends = (place + 1) * pair_bits // 2
    state = torch.zeros_like(symbols)
    for back in range(-(-16 // int(bits))):
        state |= symbols.roll(back, 1) << (ends - (place + 1 - back) * pair_bits // 2)
    return state & 0xFFFF


def _pack(symbols: Tensor, bits: float) -> Tensor:
    """[..., 256] -> [..., 16 bits] int16: a stream from the highest bit of words of two halves."""
    pair_bits, of_second = int(2 * bits), int(2 * bits) - int(bits)
    pairs = symbols[..., ::2].int() << of_second | symbols[..., 1::2]
    shifts = torch.arange(pair_bits - 1, -1, -1, dtype=torch.int32, device=symbols.device)
    stream = (pairs.unsqueeze(-1) >> shifts & 1).flatten(-2).unflatten(-1, (-1, 16))
    weights = 1 << torch.arange(15, -1, -1, device=symbols.device)
    halves = (stream * weights).sum(-1)
    order = torch.arange(8 * pair_bits, device=symbols.device) ^ 1
    return halves[..., order].int().short()


def _refit(trellis: Trellis, weight: Tensor, hessian: Tensor) -> Trellis:
    """The same with the scale of each row that leaves its product the least error."""
    found = trellis.dequantize()
    seen = found @ hessian
    power = (seen * found).sum(1)
    scale = ((seen * weight).sum(1) / power).where(power > 0, 1.0)
    svh = (trellis.svh.float() * scale).half()
    return Trellis(trellis.trellis, trellis.suh, svh, trellis.codebook)
