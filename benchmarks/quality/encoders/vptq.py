"""VPTQ: vectors of rows from codebooks, after columns are normalised and ordered by their size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from encoders.shared import Encoded, Encoder, Shapes, cluster, nearest, signed, stream
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """Of all matrices of a model."""

    length: int
    bits: int
    residual_bits: int = 0
    groups: int = 1
    outliers: int = 0
    """Columns with vectors and a codebook of their own."""
    outlier_length: int = 0
    outlier_bits: int = 0

    def encode(self, weight: Tensor) -> Encoded:
        bias, scale = weight.mean(0).half(), weight.std(0).clamp(min=1e-6).half()
        order = weight.square().sum(0).argsort(descending=True)
        moved = ((weight - bias.float()) / scale.float())[:, order]
        tensors = {"weight_bias": bias, "weight_scale": scale, "perm": signed(order, torch.int16)}
        parts: list[Tensor] = []
        if self.outliers:
            code, table, decoded = _coded(
                moved[:, : self.outliers], self.outlier_length, self.outlier_bits
            )
            tensors["outlier_indices"] = signed(code, torch.int16)[None]
            tensors["outlier_centroids.weight"] = table
            parts.append(decoded)
        words, tables, residual_tables = list[Tensor](), list[Tensor](), list[Tensor]()
        for part in moved[:, self.outliers :].chunk(self.groups, 1):
            code, table, decoded = _coded(part, self.length, self.bits)
            tables.append(table)
            if self.residual_bits:
                more, table, rest = _coded(part - decoded, self.length, self.residual_bits)
                residual_tables.append(table)
                code, decoded = code | more << self.bits, decoded + rest
            words.append(stream(code, self.bits + self.residual_bits))
            parts.append(decoded)
        tensors |= {"indices": torch.stack(words), "centroids.weight": torch.cat(tables)}
        if residual_tables:
            tensors["res_centroids.weight"] = torch.cat(residual_tables)
        dense = torch.empty_like(weight)
        dense[:, order] = torch.cat(parts, 1)
        return Encoded(tensors, dense * scale.float() + bias.float())

    def config(self, encoded: Shapes, plain: Sequence[str]) -> dict[str, Any]:
        modules = {
            module: {
                "in_features": columns,
                "out_features": rows,
                "vector_lens": [self.outlier_length or -1, self.length],
                "num_centroids": [1 << self.outlier_bits if self.outliers else -1, 1 << self.bits],
                "num_res_centroids": [-1, 1 << self.residual_bits if self.residual_bits else -1],
                "group_num": self.groups,
                "group_size": (columns - self.outliers) // self.groups,
                "outlier_size": self.outliers,
                "enable_norm": True,
                "norm_dim": 0,
                "enable_perm": True,
                "is_indice_packed": True,
                "bias": False,
            }
            for module, (rows, columns) in encoded.items()
        }
        return {"quant_method": "vptq", "config_for_layers": modules, "shared_layer_config": {}}


def _coded(part: Tensor, length: int, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [N / length, K], their entries [1, E * length], and what they stand for [N, K]."""
    vectors = part.unflatten(0, (-1, length)).transpose(1, 2)
    table = cluster(vectors.reshape(-1, length), 1 << bits)
    code = nearest(vectors.reshape(-1, length), table.float())
    decoded = table.float()[code].view(vectors.shape).transpose(1, 2).flatten(0, 1)
    return code.view(vectors.shape[:2]), table.view(1, -1), decoded


_RESIDUAL = Layout(length=8, bits=12, residual_bits=8)
_OUTLIERS = Layout(length=6, bits=10, groups=2, outliers=64, outlier_length=4, outlier_bits=11)
ENCODERS = {
    "vptq-v8-k4096-256": Encoder(_RESIDUAL.encode, _RESIDUAL.config, blocks=4),
    "vptq-v6-k1024-outliers": Encoder(_OUTLIERS.encode, _OUTLIERS.config),
}
