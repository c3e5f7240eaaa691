"""What DRY costs per token as histories grow, beside attention over the same histories.

    python benchmarks/samplers/histories.py [--device cuda --shape 8B --vocabulary 128256]

DRY: one `Sampler.sample` of rows with it less one without, which includes what does not depend on
the history: some thirty small ops. Attention: of one decoding token in each row, of one layer,
times the layers of the model. All in milliseconds, the least of several calls; on a GPU its own
time, by PyTorch's profiler. `share`: DRY over attention. `growth`: the same, of what was added
since the line before, so that what does not depend on the history falls out.

Caches beyond --pool bytes are walked several times by one call, from memory all the same.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from aphrodite_engine import SamplingParams
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.sampler import Sampler, Standing
from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backend import Backend, backend_for
from run import RESULTS, row_start, with_tokens
from torch.profiler import ProfilerActivity, profile

SHAPES = {"demo": (30, 9, 3, 64), "8B": (32, 32, 8, 128)}
"""Layers, heads, heads of keys, their size."""
BLOCK, WORDS = 16, 2000
DRY = {"temperature": 0, "dry_multiplier": 0.8}


def dry_time(backend: Backend, rows: int, length: int, calls: int, vocabulary: int) -> float:
    """What DRY adds to a step's sampling, in ms."""
    device = backend.device
    logits = torch.randn(rows, vocabulary, device=device)
    shape = (rows, length + calls + 1)
    history = torch.randint(WORDS, shape, dtype=torch.int32, device=device)
    spans = []
    for fields in (DRY, {"temperature": 0}):
        sampler = Sampler(backend)
        params = SamplingParams(stages=with_tokens(stages_from(fields)))
        for row, tokens in enumerate(history[:, :length].tolist()):
            start = row_start(row, params, tokens)
            sampler.start(start)
        places = iter(
            Standing([*range(rows)], [at] * rows, torch.full((rows,), at, device=device).int())
            for at in range(length, length + calls + 1)
        )
        spans.append(least(lambda s=sampler, p=places: s.sample(logits, next(p), history), calls))
    return spans[0] - spans[1]


def attention_time(
    backend: Backend, shape: str, rows: int, length: int, calls: int, pool: float
) -> float:
    """Of all layers, in ms."""
    layers, heads, pairs, size = SHAPES[shape]
    needed = rows * -(-length // BLOCK)
    blocks = min(needed, int(pool / (2 * BLOCK * pairs * size * backend.dtype.itemsize)))
    key, value = torch.randn(
        2, blocks + 1, BLOCK, pairs, size, device=backend.device, dtype=backend.dtype
    )
    tables = torch.arange(needed, device=backend.device).remainder(blocks).add(1)
    meta = AttentionMeta(
        block_tables=tables.view(rows, -1).int(),
        seq_lens=torch.full((rows,), length, dtype=torch.int32, device=backend.device),
        query_starts=torch.arange(rows + 1, dtype=torch.int32, device=backend.device),
        slots=torch.zeros(rows, dtype=torch.int64, device=backend.device),
        max_query=1,
        max_seq=length,
    )
    q = torch.randn(rows, heads, size, device=backend.device, dtype=backend.dtype)
    spec, cache = AttentionSpec(scale=size**-0.5), KVCache(key, value)
    return layers * least(lambda: backend.attention(q, cache, meta, spec), calls)


@torch.inference_mode()
def least(call: Callable[[], object], calls: int) -> float:
    """Milliseconds of the fastest of some calls; one before makes ready."""
    call()
    return min(span_of(call) for _ in range(calls))


def span_of(call: Callable[[], object]) -> float:
    if not torch.cuda.is_available():
        begun = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - begun)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    return 1e-3 * sum(each.device_time_total for each in seen.key_averages())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU backend")
    parser.add_argument("--shape", choices=SHAPES, default="demo", help="whose attention")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 8192, 32768, 131072])
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--pool", type=float, default=1e9, help="bytes of cache at most")
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--dry-run", action="store_true", help="write no JSON")
    given = parser.parse_args()
    backend = backend_for(torch.device(given.device), threads=given.threads)
    found: list[dict[str, Any]] = []
    for rows in given.rows:
        before = (0.0, 0.0)
        for length in given.lengths:
            dry = dry_time(backend, rows, length, given.calls, given.vocabulary)
            walk = attention_time(backend, given.shape, rows, length, given.calls, given.pool)
            growth = (dry - before[0]) / (walk - before[1])
            before = dry, walk
            share = dry / walk
            print(
                f"{rows:3} rows, {length:6} tokens: DRY {dry:8.3f} ms, attention {walk:10.2f} ms, "
                f"share {share:7.2%}, growth {growth:7.2%}",
                flush=True,
            )
            found.append({"rows": rows, "length": length, "dry": dry, "attention": walk})
    if given.dry_run:
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = json.dumps({"settings": vars(given), "found": found}, indent=1)
    (RESULTS / f"histories-{given.device}.json").write_text(report + "\n")


if __name__ == "__main__":
    main()
