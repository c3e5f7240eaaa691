"""What can go wrong in the kernels.

KernelError
├── LayoutError        a packed weight cannot be built, split or stacked as asked
├── BackendError       a backend is unknown, or cannot run on this machine
├── CaptureError       a function does something that a program cannot replay
└── ShapeError         an op was called with tensors that do not fit together
"""


class KernelError(Exception):
    """Any error of this package."""


class LayoutError(KernelError):
    """A packed weight cannot be built, split or stacked as asked."""


class BackendError(KernelError):
    """A backend is unknown, or cannot run on this machine."""


class CaptureError(KernelError):
    """A function does something that a program cannot replay."""


class ShapeError(KernelError, ValueError):
    """An op was called with tensors that do not fit together."""
