"""Weights that consist of others, to backends that multiply those: runs, rotations, outliers."""

from dataclasses import replace

from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.outlying import Outlying
from aphrodite_kernels.layouts.rotated import Rotated
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.protocols import MatMuls, Repack, Repacks, Takes

__all__ = ["multiplies_within", "packs_within"]


def packs_within(pack: Repack, products: MatMuls) -> Repacks:
    """Packing of what they consist of, if there is a product for all of it."""

    def pack_runs(weight: PackedWeight) -> PackedWeight:
        assert isinstance(weight, Runs), f"bound to {type(weight).__name__}"
        parts = tuple(map(pack, weight.parts))
        known = all(type(part) in products for part in parts)
        return replace(weight, parts=parts) if known else weight

    def pack_inner(weight: PackedWeight) -> PackedWeight:
        assert isinstance(weight, Rotated | Outlying), f"bound to {type(weight).__name__}"
        return replace(weight, weight=pack(weight.weight))

    return {Runs: pack_runs, Rotated: pack_inner, Outlying: pack_inner}


def multiplies_within(products: MatMuls) -> Takes:
    """Whether there are products for all that a weight consists of."""

    def multiplies(weight: PackedWeight) -> bool:
        if isinstance(weight, Runs):
            return all(type(part) in products for part in weight.parts)
        if isinstance(weight, Rotated):
            return weight.picked is None and type(weight.weight) in products
        return isinstance(weight, Outlying) and type(weight.weight) in products

    return multiplies
