"""What the vendor's libraries reach on this card with the steps of a 512-run, and nothing else.

    python benchmarks/gpu/library.py [--seconds 6] [--rows 256]

Products by torch (cuBLAS), attention by the faster backend of scaled_dot_product_attention over
keys and values that lie in one piece: no norm, gate, rotation, cache, sampler or host. A step is
captured once and replayed for seconds, so that the power limit holds as in a run. Cards of one
name differ by some per cent under it, so a figure of run.py belongs beside this one of the same
card: what an engine that uses these libraries could reach if all that it does itself took no time.
"""

import argparse
import time
from collections.abc import Callable

import torch
from report import say
from scenarios import FULL
from shapes import LLAMA_8B, Shape
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

CHUNK = 8192
"""Tokens of a step of prompts."""
BACKENDS = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION)


def random_matrix(*shape: int) -> Tensor:
    """Elements as in run.py's models: a standard deviation of 1 / sqrt(K)."""
    return torch.randn(shape, dtype=torch.bfloat16, device="cuda") * shape[-1] ** -0.5


class Weights:
    """The matrices of a model as an engine multiplies with them: parts that share inputs in one."""

    def __init__(self, shape: Shape) -> None:
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.shape = shape
        self.layers = [
            (
                random_matrix(queries + 2 * keys, shape.hidden),
                random_matrix(shape.hidden, queries),
                random_matrix(2 * shape.mlp, shape.hidden),
                random_matrix(shape.hidden, shape.mlp),
            )
            for _ in range(shape.layers)
        ]
        self.head = random_matrix(shape.vocabulary, shape.hidden)

    def step(self, rows: int, sampled: int, attend: Callable[[int], Tensor]) -> None:
        """All products of a step of `rows` tokens; attend: layer -> outputs [rows, queries]."""
        hidden = torch.randn(rows, self.shape.hidden, dtype=torch.bfloat16, device="cuda")
        gated = torch.randn(rows, self.shape.mlp, dtype=torch.bfloat16, device="cuda")
        for layer, (qkv, output, gate_up, down) in enumerate(self.layers):
            torch.mm(hidden, qkv.t())
            torch.mm(attend(layer), output.t())
            torch.mm(hidden, gate_up.t())
            torch.mm(gated, down.t())
        torch.mm(hidden[:sampled], self.head.t())


def attention(queries: Tensor, keys: Tensor, values: Tensor, *, causal: bool) -> Tensor:
    """By the backend that is faster for these."""

    def by(backend: SDPBackend) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(queries, keys, values, is_causal=causal)

    key = (queries.shape, keys.shape)
    if key not in _FASTER:
        _FASTER[key] = min(BACKENDS, key=lambda backend: _seconds(lambda: by(backend)))
        say(f"attention {tuple(queries.shape)} over {tuple(keys.shape)}: {_FASTER[key].name}")
    return by(_FASTER[key])


_FASTER: dict[tuple[torch.Size, torch.Size], SDPBackend] = {}


def _seconds(action: Callable[[], object], times: int = 20) -> float:
    action()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        action()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / times


def replayed(step: Callable[[], None], seconds: float) -> float:
    """Seconds of a captured step, replayed for so long; the first third does not count."""
    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    once = _seconds(graph.replay, 3)
    _seconds(graph.replay, max(1, int(seconds / 3 / once)))
    return _seconds(graph.replay, max(1, int(seconds * 2 / 3 / once)))


def decoding(weights: Weights, rows: int, context: int, seconds: float) -> float:
    """Seconds of a step in which each of `rows` requests gets a token."""
    shape = weights.shape
    size = (rows, shape.kv_heads, context, shape.head_dim)
    caches = [(random_matrix(*size), random_matrix(*size)) for _ in range(shape.layers)]
    group = shape.heads // shape.kv_heads
    queries = random_matrix(rows, shape.kv_heads, group, shape.head_dim)

    def attend(layer: int) -> Tensor:
        return attention(queries, *caches[layer], causal=False).reshape(rows, -1)

    return replayed(lambda: weights.step(rows, rows, attend), seconds)


def prompts(weights: Weights, length: int, seconds: float) -> float:
    """Seconds of a step of whole prompts."""
    shape = weights.shape
    heads = (CHUNK // length, shape.heads, length, shape.head_dim)
    queries, keys, values = (random_matrix(*heads) for _ in range(3))

    def attend(layer: int) -> Tensor:
        return attention(queries, keys, values, causal=True).transpose(1, 2).reshape(CHUNK, -1)

    return replayed(lambda: weights.step(CHUNK, CHUNK // length, attend), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each kind of step")
    parser.add_argument("--rows", type=int, default=256, help="requests at once")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    workload = FULL["throughput"]
    say(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    weights = Weights(LLAMA_8B)
    context = workload.prompt + workload.output // 2
    for _ in range(arguments.rounds):
        chunk = prompts(weights, workload.prompt, arguments.seconds)
        step = decoding(weights, arguments.rows, context, arguments.seconds)
        whole = workload.requests * workload.prompt / CHUNK * chunk
        whole += workload.requests / arguments.rows * workload.output * step
        say(
            f"{CHUNK} tokens of prompts {1e3 * chunk:.1f} ms, {arguments.rows} requests decoding "
            f"{1e3 * step:.2f} ms: {workload.requests * workload.output / whole:.0f} tok/s"
        )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
