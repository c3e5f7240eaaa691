"""What can go wrong between a path and a packed weight.

QuantError
├── CheckpointError    the path holds no checkpoint that can be opened
├── ContainerError     the bytes of a file contradict its container: cut short, corrupt, unsupported
├── FormatError        the checkpoint's quantisation is not one that is present here
└── TensorError        a tensor is missing, or not of the type or shape that is needed

Every message is one sentence or two: file, tensor, what was found, what was expected or to do.
"""


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
