"""Tensors as the copy engine of sm_90 and later devices reads them."""

from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


def described(tensor: Tensor, *tile: int) -> TensorDescriptor:
    """To be read in tiles of so many elements of each dimension, zeros beyond the edge.

    Its address and all strides but the last, which is 1, are multiples of 16 bytes.
    """
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), list(tile))
