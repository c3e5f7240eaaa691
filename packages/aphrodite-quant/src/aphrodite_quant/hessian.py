"""GPTQ (arXiv 2210.17323): what a column loses by rounding, the columns behind it make up for.

Columns are rounded one after the other. The inverse of the damped Hessian of the inputs has an
upper Cholesky factor U, whose row i says how the error of column i is spread: w_j -= (w_i - q_i) /
U_ii * U_ij for j > i. Columns are handled in blocks, and what lies behind a block is changed once.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from aphrodite_quant.errors import QuantError
from aphrodite_quant.grid import Coded, Grid

_BLOCK = 128
_DAMPING = (0.01, 0.1, 1.0)
"""Of the mean of the diagonal; a larger one is tried where the factorisation fails."""


@dataclass(frozen=True, eq=False, slots=True)
class _Columns:
    """A weight whose columns are being rounded."""

    weight: Tensor
    """[N, K], changed in place."""
    factor: Tensor
    """[K, K]: U."""
    importance: Tensor
    """[K]: the diagonal of the Hessian."""
    codes: Tensor
    """[N, K] uint8, filled."""
    scale: Tensor
    """[N, G], filled."""
    zero: Tensor


def round_by_hessian(
    weight: Tensor, hessian: Tensor, grid: Grid, group: int, *, act_order: bool
) -> Coded:
    """Codes of a weight [N, K] whose inputs have the Hessian [K, K] (mean of x xᵀ).

    Args:
        weight: float32.
        hessian: float32.
        grid: which codes there are.
        group: columns that share a scale.
        act_order: take the columns of the largest inputs first, and group them in that order.

    Raises:
        QuantError: the Hessian is not finite.
    """
    rows, width = weight.shape
    importance = hessian.diagonal().clone()
    order = torch.arange(width, device=weight.device)
    if act_order:
        order = importance.argsort(descending=True, stable=True)
    factor = inverse_factor(hessian[order][:, order])
    shape = (rows, width // group)
    columns = _Columns(
        weight=weight[:, order],
        factor=factor,
        importance=importance[order].clamp(min=1e-12),
        codes=torch.empty(rows, width, dtype=torch.uint8, device=weight.device),
        scale=torch.empty(shape, device=weight.device),
        zero=torch.empty(shape, device=weight.device),
    )
    step = _step(group)
    for start in range(0, width, step):
        _round_block(columns, start, min(start + step, width), grid, group)
    codes, group_of = torch.empty_like(columns.codes), torch.empty_like(order, dtype=torch.int32)
    codes[:, order] = columns.codes
    group_of[order] = torch.arange(width, dtype=torch.int32, device=order.device) // group
    return Coded(codes, columns.scale, columns.zero, group_of)


def inverse_factor(hessian: Tensor) -> Tensor:
    """U with Uᵀ U = (H + damping)⁻¹; features that never occur are as good as independent.

    Raises:
        QuantError: the Hessian is not finite.
    """
    if not bool(hessian.isfinite().all()):
        raise QuantError("the inputs of a projection are not finite numbers over the calibration")
    wide = hessian.double()
    diagonal = wide.diagonal()
    mean = float(diagonal.mean()) or 1.0
    for damping in _DAMPING:
        damped = wide + torch.diag(torch.where(diagonal > 0, damping * mean, mean))
        lower = _cholesky(damped, upper=False)
        if lower is not None:
            factor = _cholesky(torch.cholesky_inverse(lower), upper=True)
            if factor is not None:
                return factor.float()
    raise QuantError("the Hessian of a projection's inputs cannot be factorised: use other text")


def _cholesky(matrix: Tensor, *, upper: bool) -> Tensor | None:
    """The factor; None if the matrix is not positive definite."""
    algebra: Any = torch.linalg
    factor, failed = algebra.cholesky_ex(matrix, upper=upper)
    return None if int(failed) else cast("Tensor", factor)


def _step(group: int) -> int:
    """Columns of a block: whole groups, or a part of one."""
    if group <= _BLOCK:
        return group * (_BLOCK // group)
    return _BLOCK if group % _BLOCK == 0 else group


def _round_block(columns: _Columns, start: int, stop: int, grid: Grid, group: int) -> None:
    """Columns lie as rows meanwhile, so that each is in one place."""
    part = columns.weight[:, start:stop].T.contiguous()
    factor = columns.factor[start:stop, start:stop]
    lost = torch.empty_like(part)
    for offset in range(stop - start):
        place = start + offset
        number = place // group
        if place % group == 0:
            inside = part[offset : offset + group].T
            alike = torch.cat((inside, columns.weight[:, stop : place + group]), 1)
            scale, zero = grid.fit(alike, columns.importance[place : place + group])
            columns.scale[:, number], columns.zero[:, number] = scale[:, 0], zero[:, 0]
        scale, zero = columns.scale[:, number], columns.zero[:, number]
        codes = grid.codes(part[offset], scale, zero)
        columns.codes[:, place] = codes.to(torch.uint8)
        torch.div(part[offset] - (codes - zero) * scale, factor[offset, offset], out=lost[offset])
        part[offset + 1 :].addr_(factor[offset, offset + 1 :], lost[offset], alpha=-1)
    columns.weight[:, stop:].addmm_(lost.T, columns.factor[start:stop, stop:], alpha=-1)
