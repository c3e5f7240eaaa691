"""Capture once, replay many: CUDA graphs."""

from collections.abc import Callable

import torch
from torch import Tensor

from aphrodite_kernels.errors import ShapeError
from aphrodite_kernels.protocols import Capture, Program


class Graph:
    """A captured function: a rigid `Program`."""

    def __init__(self, graph: torch.cuda.CUDAGraph, counts: tuple[int, int, int]) -> None:
        self._graph = graph
        self._counts = counts

    def replay(self, tokens: int, requests: int, outputs: int) -> None:
        """Launch all kernels again, on the current stream."""
        if (tokens, requests, outputs) != self._counts:
            raise ShapeError(
                f"a graph of {self._counts} (tokens, requests, outputs) cannot run over "
                f"{(tokens, requests, outputs)}"
            )
        self._graph.replay()


def capture_on(device: torch.device) -> Capture:
    """Record functions on `device`; all graphs share one pool of memory.

    So the result of a graph is valid until the next one is replayed.
    """
    pool = torch.cuda.graph_pool_handle()

    def capture(
        function: Callable[[], Tensor], tokens: int, requests: int, outputs: int
    ) -> tuple[Program, Tensor]:
        function()  # kernels are compiled and workspaces allocated outside of the recording
        torch.cuda.synchronize(device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            result = function()
        torch.cuda.synchronize(device)
        return Graph(graph, (tokens, requests, outputs)), result

    return capture
