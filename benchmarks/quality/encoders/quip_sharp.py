"""QuIP# as quip-sharp writes it: nearest points; q, k, v are one matrix, up and gate another."""

from collections.abc import Sequence
from typing import Any

import torch
from aphrodite_quant.hadamard import hadamard_base
from encoders.quip import RESIDUALS, beside_hadamard, e8p, e81b
from encoders.shared import Encoded, Encoder, Shapes
from torch import Tensor

_BITS = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
"""Of each number of a point: the bit of its code that negates it."""
_CODEBOOKS = {
    "E8P12": (7, 1, 4, 1.03),
    "E8P12RVQ3B": (18, 0, 8 / 3, 0.98),
    "E8P12RVQ4B": (17, 1, 2, 1.03),
}
"""Number, version, codes in a word, and the size of normally distributed numbers."""
_FUSED = {
    "self_attn.qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "mlp.upgate_proj": ("up_proj", "gate_proj"),
}


def encode(weights: Sequence[Tensor], codebook: str) -> Encoded:
    number, _, _, size = _CODEBOOKS[codebook]
    parts = torch.stack([weight.square().mean().sqrt().half() for weight in weights])
    fused = {"fuse_scales": parts} if len(weights) > 1 else {}
    sizes = parts.float() if fused else torch.ones(1)
    part_scale = sizes.repeat_interleave(torch.tensor([len(weight) for weight in weights]))
    weight = torch.cat(list(weights)) / part_scale[:, None]
    generator = torch.Generator().manual_seed(0)
    left, right = (_transform(extent) for extent in weight.shape)
    rows, columns = (2.0 * torch.randint(2, (n,), generator=generator) - 1 for n in weight.shape)
    inner = left.T @ (weight * rows[:, None] * columns) @ right
    scale = (inner.square().mean().sqrt() / size).half().float()
    points = (inner / scale).view(-1, 8)
    code, decoded = e8p(points, _BITS)
    stored = [_packed(code.view(len(weight), -1))]
    if factor := RESIDUALS[codebook]:
        rest = (points - decoded) / factor
        more, residual = e8p(rest, _BITS) if codebook == "E8P12RVQ4B" else e81b(rest)
        decoded += factor * residual
        more = more.view(len(weight), -1)
        whole = codebook == "E8P12RVQ4B"
        stored.append(_packed(more) if whole else more.to(torch.uint8).view(torch.int64))
    dense = left @ decoded.view(weight.shape) @ right.T * columns
    tensors = {
        "Qidxs": torch.cat(stored, 1), "codebook_id": torch.tensor(number), "SU": columns.half(),
        "SV": (rows * scale).half(), "Wscale": torch.tensor(1.0).half(),
    }  # fmt: skip
    return Encoded(tensors | fused, dense * (rows * scale * part_scale)[:, None])


def _transform(size: int) -> Tensor:
    """[size, size]: the matrix of four times the odd factor beside a Hadamard matrix."""
    odd = size // (size & -size)
    base = torch.ones(1, 1) if odd == 1 else hadamard_base(4 * odd, torch.device("cpu"))
    assert base is not None, f"quip-sharp has no matrix for {size}"
    return beside_hadamard(base, size // len(base))


def _packed(codes: Tensor) -> Tensor:
    """Codes [N, K / 8] as words [N, K / 32]: each has two codes of two rows."""
    rows, columns = codes.shape
    tiles = codes.view(rows // 16, 8, 2, columns // 8, 4, 2)  # of [16, 8], pair and row, and so on
    words = torch.zeros(rows // 16, 8, columns // 8, 4, dtype=torch.int64)
    for place in range(4):
        code = tiles[:, :, place % 2, :, :, place // 2]
        words |= code >> 8 << 8 * place
        for bit in range(8):
            words |= (code >> bit & 1) << 32 + 4 * bit + place
    return words.transpose(1, 2).reshape(rows, columns // 4)


def _encoder(codebook: str, blocks: int) -> Encoder:
    _, version, packed, _ = _CODEBOOKS[codebook]

    def config(encoded: Shapes, plain: Sequence[str]) -> dict[str, Any]:
        return {
            "lora_rank": 0,
            "rescale_WH": False,
            "codebook": codebook,
            "codebook_version": version,
            "codesz": 8,
            "idx_dtype": "torch.int64",
            "packsz": packed,
            "resid_scale_override": -1,
        }

    return Encoder(
        lambda weight: encode([weight], codebook),
        config,
        blocks,
        stated_in="quip_params",
        fused=_FUSED,
        encode_fused=lambda weights: encode(weights, codebook),
    )


ENCODERS = {f"quip-sharp-{name.lower()}": _encoder(name, blocks=6) for name in _CODEBOOKS}
