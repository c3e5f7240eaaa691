"""What can go wrong between a path and a packed weight.

QuantError
├── CheckpointError    the path holds no checkpoint that can be opened
├── ContainerError     the bytes of a file contradict its container: cut short, corrupt, unsupported
├── FormatError        the checkpoint's quantisation is not one that is present here
└── TensorError        a tensor is missing, or not of the type or shape that is needed

Every message is one sentence or two: file, tensor, what was found, what was expected or to do.
"""

from collections.abc import Sequence

_NAMED_AT_MOST = 6


def listed(names: Sequence[str]) -> str:
    """Names for a message: the first few, and how many more."""
    more = len(names) - _NAMED_AT_MOST
    shown = ", ".join(names[:_NAMED_AT_MOST])
    return f"{shown} and {more} more" if more > 0 else shown


class QuantError(Exception):
    """Any error of this package."""


class CheckpointError(QuantError):
    """The path holds no checkpoint that can be opened."""


class ContainerError(QuantError):
    """The bytes of a file contradict its container."""


class FormatError(QuantError):
    """The checkpoint's quantisation is not one that is present here."""


class TensorError(QuantError):
    """A tensor is missing, or not of the type or shape that is needed."""
