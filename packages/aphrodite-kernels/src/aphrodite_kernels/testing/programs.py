"""Cases of recording and replaying."""

from torch import Tensor

from aphrodite_kernels.layouts import GgmlType
from aphrodite_kernels.testing.case import Draw, assert_close
from aphrodite_kernels.testing.kinds.ggml import random_blocks


def check_capture(draw: Draw) -> None:
    """A replay over fewer rows gives what the ops give; a backend that cannot record passes."""
    backend, capture = draw.backend, draw.backend.capture
    if capture is None:
        return
    weight = backend.prepare(random_blocks(GgmlType.Q8_0, 192, 96, draw.generator))
    matmul, norm = backend.matmul_for(weight), draw.float32(96)
    x, index = draw.normal(13, 96), draw.integers(0, 13, 5)

    def step() -> Tensor:
        wide = matmul(backend.rms_norm(x, norm, 1e-6), weight)
        return backend.select(backend.gated(wide[:, :96], wide[:, 96:], "silu"), index)

    whole, parts = (13, 7, 5), ((3, 2, 2), (1, 1, 1))
    program, result = capture(step, *whole)
    for tokens, requests, outputs in (whole, *(parts if backend.elastic else ()), whole):
        x.copy_(draw.normal(13, 96))
        index.copy_(draw.integers(0, tokens, 5))
        expected = step()[:outputs].clone()
        program.replay(tokens, requests, outputs)
        assert_close(result[:outputs], expected)
