"""Checks that every shim makes before it hands a pointer to compiled code."""

import torch
from torch import Tensor

from aphrodite_kernels.errors import ShapeError


def require(condition: bool, message: str) -> None:  # noqa: FBT001
    """ShapeError with this message unless the condition holds."""
    if not condition:
        raise ShapeError(message)


def require_rows(
    name: str, x: Tensor, *shape: int | None, dtype: torch.dtype = torch.float32
) -> None:
    """ShapeError unless x is on the CPU, of this dtype and shape, with contiguous last dimension.

    None in the shape: any extent.
    """
    # Few questions: with cold caches each one to torch takes 10 to 20 us.
    extents = x.shape
    fits = len(extents) == len(shape) and all(
        wanted is None or wanted == found for wanted, found in zip(shape, extents, strict=True)
    )
    if not fits or x.dtype is not dtype or not x.is_cpu:
        wanted = ", ".join("any" if extent is None else str(extent) for extent in shape)
        raise ShapeError(
            f"{name} must be [{wanted}] {dtype} on the CPU, "
            f"not {list(extents)} {x.dtype} on {x.device}"
        )
    if extents[-1] > 1 and x.stride(-1) != 1:
        raise ShapeError(f"the last dimension of {name} must be contiguous, not {x.stride()}")


def address(tensor: Tensor | None) -> int | None:
    """Where its numbers begin; None is a null pointer."""
    return None if tensor is None else tensor.data_ptr()


def require_whole(
    name: str, x: Tensor, *shape: int | None, dtype: torch.dtype = torch.float32
) -> None:
    """As `require_rows`, and contiguous throughout."""
    require_rows(name, x, *shape, dtype=dtype)
    require(x.is_contiguous(), f"{name} must be contiguous, not strided {x.stride()}")
