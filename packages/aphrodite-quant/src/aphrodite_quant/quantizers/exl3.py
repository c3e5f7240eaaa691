"""Trellis-coded weights of one to eight bits (`quant_method: exl3`); of 1.5, 2.5 and 3.5 with mul1.

`exl3:mul1` (which `exl3` means), `exl3:mcg` and `exl3:3inst` name the codebook. The search for
paths is the backend's: without a kernel it takes minutes for a million weights. Dimensions that
are no multiple of 128 are padded with zeros.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from aphrodite_kernels.backend import Backend
from aphrodite_kernels.backends.reference.trellis import find_paths
from aphrodite_kernels.layouts.trellis import TRELLIS_BLOCK, TrellisCodebook
from aphrodite_kernels.protocols import FindPaths
from torch import Tensor
from torch.nn.functional import pad

from aphrodite_quant.containers.store import TensorInfo
from aphrodite_quant.errors import FormatError
from aphrodite_quant.formats.exl3 import MULTIPLIERS
from aphrodite_quant.quantizer import Options, Quantizer, Statistics
from aphrodite_quant.trellis.encode import encode

_BITS = 4
_HALF_BITS = (1.5, 2.5, 3.5)


def quantizer(options: Options, shapes: Collection[tuple[int, int]]) -> Quantizer:
    """FormatError if bits or codebook are not ones that the format has."""
    options.only("exl3", "variant", "bits")
    bits = _BITS if options.bits is None else options.bits
    if bits not in (*range(1, 9), *_HALF_BITS):
        raise FormatError(
            f"format exl3 has weights of 1 to 8 bits, and of 1.5, 2.5 and 3.5, not {bits}"
        )
    books = [str(book) for book in TrellisCodebook]
    variant = options.variant or TrellisCodebook.MUL1
    if variant not in books:
        raise FormatError(f"exl3:{variant} is not known; present are exl3:{', exl3:'.join(books)}")
    if bits in _HALF_BITS and variant != TrellisCodebook.MUL1:
        raise FormatError(f"exl3:{variant} has no weights of {bits} bits; exl3:mul1 has")
    return Exl3(bits, TrellisCodebook(variant))


@dataclass(frozen=True)
class Exl3(Quantizer):
    """One number of bits for all weights."""

    bits: float
    codebook: TrellisCodebook
    find_paths: FindPaths = find_paths
    calibrated = True

    def on(self, backend: Backend) -> "Exl3":
        return replace(self, find_paths=backend.find_paths)

    @property
    def bits_per_weight(self) -> float:
        return float(self.bits)

    def config(self, plain: Sequence[str]) -> dict[str, Any]:
        return {
            "quant_method": "exl3",
            "version": "0.0.1",
            "bits": float(self.bits),
            "head_bits": 16,
            "codebook": str(self.codebook),
            "out_scales": "always",
        }

    def side_files(
        self, config: Mapping[str, Any], tensors: Collection[TensorInfo]
    ) -> dict[str, dict[str, Any]]:
        """What each module stores, as exllamav3 writes it."""
        modules: dict[str, list[TensorInfo]] = {}
        for info in tensors:
            modules.setdefault(info.name.rpartition(".")[0], []).append(info)
        storage = {module: self._storage(module, stored) for module, stored in modules.items()}
        return {"quantization_config.json": {**config, "tensor_storage": storage}}

    def _storage(self, module: str, stored: Collection[TensorInfo]) -> dict[str, Any]:
        told: dict[str, Any] = {
            "stored_tensors": {
                info.name: {
                    "shape": list(info.shape),
                    "n_bytes": info.nbytes,
                    "dtype": str(info.type),
                }
                for info in stored
            }
        }
        if f"{module}.trellis" not in told["stored_tensors"]:
            return told
        told |= {"quant_format": "exl3", "bits_per_weight": self.bits}
        if self.codebook in MULTIPLIERS:
            told[f"{self.codebook}_multiplier"] = MULTIPLIERS[self.codebook]
        return told

    def quantize(self, weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
        assert statistics is not None, "it is calibrated"
        below, right = (-size % TRELLIS_BLOCK for size in weight.shape)
        hessian = pad(statistics.hessian.to(weight.device), (0, right, 0, right))
        padded = pad(weight, (0, right, 0, below))
        packed = encode(padded, hessian, self.bits, self.codebook, self.find_paths)
        tensors = {"trellis": packed.trellis, "suh": packed.suh, "svh": packed.svh}
        if self.codebook in MULTIPLIERS:
            mark = torch.tensor(MULTIPLIERS[self.codebook], dtype=torch.int64).to(torch.int32)
            tensors[str(self.codebook)] = mark
        return tensors
