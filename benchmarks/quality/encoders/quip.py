"""QuIP# as QuIP-for-all writes it: nearest points of E8 after random transforms of both sides."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from typing import Any

import torch
from encoders.shared import Encoded, Encoder, Shapes, nearest, signed, stream
from torch import Tensor

_BITS = torch.tensor([7, 5, 6, 4, 3, 1, 2, 0])
"""Of each number of a point: the bit of its code that negates it."""
_NORM_12 = (
    "31113333 13113333 11313333 11133333 33313311 33313131 33311331 33313113 33311313 33311133"
    " 33133311 33133131 33131331 33133113 33131313 33131133 31333311 31333131 31331331 31333113"
    " 31331313 13331133 13333311 13333131 13331331 13333113 13331313 11331333 33113331"
)
_AT_ONCE = 1 << 11
_INPUT_SCALE = 1.03
"""Of normally distributed numbers, for E8P."""
RESIDUALS = {"E8P12": 0.0, "E8P12RVQ3B": 1 / 2.04, "E8P12RVQ4B": 1 / 3.45}
"""Of codebooks: what residual points are multiplied by."""


def encode(weight: Tensor, codebook: str) -> Encoded:
    generator = torch.Generator().manual_seed(0)
    (left_base, left), (right_base, right) = (_transform(n, generator) for n in weight.shape)
    sides = [(2.0 * torch.randint(2, (n,), generator=generator) - 1).half() for n in weight.shape]
    rows, columns = sides[0].float()[:, None], sides[1].float()
    inner = left.T @ (weight * rows * columns) @ right.T
    scale = inner.square().mean().sqrt() / _INPUT_SCALE
    points = (inner / scale).view(-1, 8)
    code, decoded = e8p(points, _BITS)
    factor = RESIDUALS[codebook]
    if codebook == "E8P12":
        stored = signed(code, torch.int16).view(len(weight), -1)
    else:
        rest = (points - decoded) / factor
        more, residual = e8p(rest, _BITS) if codebook == "E8P12RVQ4B" else e81b(rest)
        decoded += factor * residual
        bits = 16 if codebook == "E8P12RVQ4B" else 8
        stored = stream((code << bits | more).view(len(weight), -1), 16 + bits)
    dense = left @ decoded.view(weight.shape) @ right * scale * rows * columns
    tensors = {"Qidxs": stored, "Wscale": scale, "SU": sides[1], "SV": sides[0]}
    tensors |= {"had_left": right_base.T.contiguous(), "had_right": left_base}
    return Encoded(tensors, dense)


def _transform(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """An orthogonal matrix of the odd factor of a size, and its product with a Hadamard matrix."""
    power = size & -size
    odd = size // power
    base = torch.linalg.qr(torch.randn(odd, odd, generator=generator))[0].half().contiguous()
    return base, beside_hadamard(base.float(), power)


def beside_hadamard(base: Tensor, power: int) -> Tensor:
    """`base` beside the orthonormal Hadamard matrix [power, power], a power of two."""
    hadamard = torch.ones(1, 1)
    while len(hadamard) < power:
        hadamard = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), hadamard)
    return torch.kron(base, hadamard / power**0.5)


@cache
def _sizes() -> Tensor:
    """[256, 8]: absolute values of the numbers of points, in the order of codes."""
    short = [v for v in product((0.5, 1.5, 2.5), repeat=8) if sum(n * n for n in v) <= 10]
    long = [[int(digit) / 2 for digit in vector] for vector in _NORM_12.split()]
    return torch.cat((torch.tensor(short), torch.tensor(long)))


def e8p(points: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [V] of the nearest points, and those points [V, 8].

    `bits` [8] are those of a code that negate its numbers.
    """
    found = [_e8p_part(part, bits) for part in points.split(_AT_ONCE)]
    return torch.cat([code for code, _ in found]), torch.cat([point for _, point in found])


def _e8p_part(points: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
    sizes = _sizes()
    odd = sizes.sum(1) % 2 == 1  # sizes of which an odd number is negative in every point
    made: list[tuple[Tensor, Tensor, Tensor]] = []
    for lowered in (False, True):  # all numbers are a quarter above the lattice, or below
        moved = points + (0.25 if lowered else -0.25)
        negative = moved < 0
        wrong = (negative.sum(1) % 2 == 1)[:, None] != odd  # [V, 256]: one sign must change,
        costs = moved.abs().T[..., None] * sizes.T[:, None]  # where it costs least, [8, V, 256]
        gain = 2 * (moved.abs() @ sizes.T) - 4 * costs.amin(0) * wrong - sizes.square().sum(1)
        best, row = gain.max(1)[1], torch.arange(len(points))
        flipped = costs[:, row, best].argmin(0)
        negative[row, flipped] ^= wrong[row, best]
        point = sizes[best] * torch.where(negative, -1, 1) + (-0.25 if lowered else 0.25)
        flips = negative.clone()
        flips[:, 7] ^= odd[best]  # counted from a point whose last number has the sign it needs
        code = best << 8 | (flips.long() << bits).sum(1) ^ int(lowered)
        made.append((code, point, (points - point).square().sum(1)))
    (code, point, lost), (low_code, low_point, low_lost) = made
    lower = low_lost < lost
    return torch.where(lower, low_code, code), torch.where(lower[:, None], low_point, point)


@cache
def _short_points() -> Tensor:
    """[256, 8]: E81B, the shortest points of E8 in the order of codes."""
    whole = [v for v in product((-1.0, 0.0, 1.0), repeat=8) if sum(n * n for n in v) <= 2]
    halves = list(product((-0.5, 0.5), repeat=8))
    axes = 2 * torch.eye(8)
    even = torch.tensor([v for v in whole + halves if sum(v) % 2 == 0])
    return torch.cat((even, axes, -axes[:7]))


def e81b(points: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [V] of the nearest points of one bit, and those points [V, 8]."""
    code = nearest(points, _short_points())
    return code, _short_points()[code]


def _encoder(codebook: str, blocks: int | None = None) -> Encoder:
    def config(encoded: Shapes, plain: Sequence[str]) -> dict[str, Any]:
        return {
            "quant_method": "QUiP",
            "rescale_WH": False,
            "use_rand": True,
            "codebook": codebook,
            "codesz": 8,
            "idx_dtype": f"torch.int{16 if codebook == 'E8P12' else 32}",
            "merge_suv": False,
            "per_channel": False,
            "opt_resid_scale": RESIDUALS[codebook] or -1,
            "modules_to_not_convert": list(plain),
        }

    encode_one: Callable[[Tensor], Encoded] = lambda weight: encode(weight, codebook)  # noqa: E731
    return Encoder(encode_one, config, blocks)


ENCODERS = {
    "quip-e8p12": _encoder("E8P12", blocks=6),
    "quip-e8p12rvq3b": _encoder("E8P12RVQ3B", blocks=6),
    "quip-e8p12rvq4b": _encoder("E8P12RVQ4B", blocks=6),
}
