"""Python's garbage collector, kept from what is there to stay."""

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def newcomers_only() -> Generator[None]:
    """Within, the collector looks at objects made within alone; afterwards at all again.

    The others of a process that has loaded PyTorch and a model take it 0.16 s, again and again
    while requests come and go, and a device has nothing to do in that time. What the process had
    frozen itself is thawed with them: it costs time, and changes nothing else.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
