"""What a format makes of a checkpoint's configuration."""

from collections.abc import Callable

from aphrodite_kernels.layouts import PackedWeight

from aphrodite_quant.containers.store import TensorStore

Reader = Callable[[TensorStore, str], PackedWeight]
"""From a store and a prefix to the weight of the linear layer whose tensors are `<prefix>.…`.

Raises TensorError if they are missing or not as the format has them.
"""
