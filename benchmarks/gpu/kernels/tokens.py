"""Ops that choose and remove tokens, on one GPU: checked against the reference, then timed.

    PYTHONPATH=packages/aphrodite-kernels/src python3 benchmarks/gpu/kernels/tokens.py

--only picks sections: check, chain, shapes, time. Times are of calls inside a CUDA graph, in
microseconds, beside the floor of the bytes that must move and beside what torch takes. Logits:
`peaked` have a few hundred likely tokens, as models give; `flat` are normal numbers, whose nucleus
is thousands of tokens; `ties` are flat ones in bfloat16.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from aphrodite_kernels.backends import reference
from aphrodite_kernels.backends.triton.sampling_argmax import argmax_on
from aphrodite_kernels.backends.triton.sampling_draw import draw_on
from aphrodite_kernels.backends.triton.sampling_keep import (
    keep_near_on,
    keep_on,
    least_from_on,
)
from aphrodite_kernels.backends.triton.sampling_spread import deviation_on, uncertainty_on
from aphrodite_kernels.backends.triton.sampling_top import keep_top_k_on, keep_top_p_on
from aphrodite_kernels.backends.triton.sampling_typical import keep_typical_on
from aphrodite_kernels.backends.triton.sampling_uniform import uniform_on
from gauge import DEVICE, READ, Allowance, run_sections, timed
from torch import Tensor

VOCABULARY = 128256
ALLOWANCE = Allowance(70)
ROTATED = 200e6
"""Bytes of copies of the logits; the L2 cache has 50 MB."""
OFF = 1e-5
"""How far a sum of probabilities may be off."""

Call = Callable[[Tensor], object]

VERDICTS: list[bool] = []

argmax = argmax_on(overlapped=True)
draw = draw_on(overlapped=True)
keep = keep_on(above=False, overlapped=True)
keep_top_k = keep_top_k_on(overlapped=True)
keep_top_p = keep_top_p_on(overlapped=True)
uniform = uniform_on(overlapped=True)


def make(kind: str, rows: int, width: int = VOCABULARY) -> Tensor:
    logits = torch.randn(rows, width, device=DEVICE)
    if kind == "peaked":
        return logits * 2 + 12 * torch.rand(rows, width, device=DEVICE).pow(40)
    return (3 * logits).bfloat16().float() if kind == "ties" else 3 * logits


@cache
def copies(kind: str, rows: int, dtype: torch.dtype) -> list[Tensor]:
    size = rows * VOCABULARY * dtype.itemsize
    return [make(kind, rows).to(dtype) for _ in range(max(2, min(40, round(ROTATED / size))))]


def column(value: float, rows: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full((rows, 1), value, dtype=dtype, device=DEVICE)


def report(name: str, verdict: object, seen: str = "") -> None:
    VERDICTS.append(bool(verdict))
    if not verdict:
        print(f"check {name}: FAIL {seen}", flush=True)


def check() -> None:
    backend = reference.create(DEVICE, threads=None, dtype=torch.bfloat16)
    seeds = torch.randint(-(2**63), 2**63 - 1, (1000,), device=DEVICE)
    small = torch.randint(0, 2**31 - 1, (2, 1000), dtype=torch.int32, device=DEVICE)
    numbers = uniform(seeds, small[0], small[1], 0)
    report("uniform", torch.equal(numbers, backend.uniform(seeds, small[0], small[1], 0)))
    for width in (VOCABULARY, 32000, 262144, 151936, 50257):
        for kind in ("peaked", "flat", "ties"):
            logits = make(kind, 24, width)
            name = f"{kind} {width}"
            for dtype in (torch.float32, torch.bfloat16):
                pair = (argmax(logits.to(dtype)), backend.argmax(logits.to(dtype)))
                same = all(map(torch.equal, *pair))
                report(f"argmax {name} {dtype}", same)
            check_draw(logits, numbers[:24], name)
            check_top_k(logits, backend.keep_top_k, name)
            check_top_p(logits, name)
    print(f"check: {sum(VERDICTS)} of {len(VERDICTS)} pass", flush=True)


def check_draw(logits: Tensor, numbers: Tensor, name: str) -> None:
    tokens, valid = draw(logits, numbers)
    place = tokens.long()[:, None]
    probabilities = logits.double().softmax(-1)
    own = probabilities.gather(1, place)[:, 0]
    upto = probabilities.cumsum(-1).gather(1, place)[:, 0]
    off = torch.maximum(numbers - upto, upto - own - numbers).max().item()
    alone = all(draw(logits[r : r + 1], numbers[r : r + 1])[0] == tokens[r] for r in range(8))
    good = bool(valid.all()) and bool((own > 0).all()) and alone and off < OFF
    report(f"draw {name}", good, f"off by {off:.1e}, the same alone: {alone}")


def check_top_k(logits: Tensor, expected: Callable[[Tensor, Tensor], None], name: str) -> None:
    counts = [0, 1, 2, 20, 40, 50, 100, 1000, 5000, 60000, logits.shape[1], -1]
    count = torch.tensor(counts * 2, device=DEVICE)[:, None]
    ours, theirs = logits.clone(), logits.clone()
    keep_top_k(ours, count)
    expected(theirs, count)
    alone = all(_same_alone(keep_top_k, logits, count, ours, row) for row in range(12))
    report(f"keep_top_k {name}", torch.equal(ours, theirs) and alone, f"the same alone: {alone}")


def check_top_p(logits: Tensor, name: str) -> None:
    shares = [1.0, 0.5, 0.9, 0.95, 0.999, 1e-6, 0.05, 1 - 2**-24]
    share = torch.tensor(shares * 3, device=DEVICE)[:, None]
    ours = logits.clone()
    keep_top_p(ours, share)
    kept = ours > -torch.inf
    least = logits.where(kept, torch.inf).amin(-1, keepdim=True)
    probabilities = logits.double().softmax(-1)
    mass = probabilities.where(kept, 0).sum(-1, keepdim=True)
    without = probabilities.where(logits > least, 0).sum(-1, keepdim=True)
    off = torch.maximum(share - mass, torch.where(share < 1, without - share, 0)).max().item()
    whole = torch.equal(kept, logits >= least) and torch.equal(ours[kept], logits[kept])
    alone = all(_same_alone(keep_top_p, logits, share, ours, row) for row in range(8))
    report(
        f"keep_top_p {name}",
        whole and alone and off < OFF,
        f"off {off:.1e}, the same alone: {alone}",
    )


def _same_alone(
    op: Callable[[Tensor, Tensor], None], logits: Tensor, limit: Tensor, out: Tensor, row: int
) -> bool:
    alone = logits[row : row + 1].clone()
    op(alone, limit[row : row + 1])
    return torch.equal(alone[0], out[row])


def show(
    name: str, rows: int, moved: float, ours: Call, theirs: Call, buffers: list[Tensor]
) -> None:
    """moved: bytes of a row of float32 or bfloat16 logits that are read or written."""
    if not ALLOWANCE.left:
        return
    floor = 1e6 * rows * moved / READ
    try:
        micros = timed([partial(ours, each) for each in buffers])
        print(
            f"{name} r{rows}: {micros:.1f}, floor {floor:.1f} (x{micros / floor:.1f}), "
            f"torch {timed([partial(theirs, each) for each in buffers[:4]]):.1f}",
            flush=True,
        )
    except Exception as failure:
        print(f"{name} r{rows} failed: {str(failure).splitlines()[:1]}", flush=True)


def times() -> None:
    for rows in (1, 64, 256):
        row = 4.0 * VOCABULARY
        for dtype, moved in ((torch.bfloat16, row / 2), (torch.float32, row)):
            buffers = copies("peaked", rows, dtype)
            show(f"argmax {dtype}", rows, moved, argmax, lambda x: x.argmax(-1), buffers)
        numbers = torch.rand(rows, device=DEVICE)
        buffers = copies("peaked", rows, torch.float32)
        show("draw", rows, row, partial(draw, uniform=numbers), torch_draw, buffers)
        least, buffers = column(0.5, rows), [buffer.clone() for buffer in buffers]
        show(
            "keep",
            rows,
            2 * row,
            partial(keep, threshold=least),
            partial(torch_keep, least=least),
            buffers,
        )
    for kind in ("peaked", "flat", "ties"):
        for rows in (1, 64, 256) if kind == "peaked" else (64,):
            top(kind, rows)


def top(kind: str, rows: int) -> None:
    """Each op restores nothing: a graph's second run treats what the first left, so copy first."""
    row = 4.0 * VOCABULARY
    buffers = copies(kind, rows, torch.float32)
    work = torch.empty_like(buffers[0])
    copied = timed([partial(work.copy_, each) for each in buffers])
    print(f"copy r{rows}: {copied:.1f}, contained in each of the following")
    counts = [column(value, rows, torch.int64) for value in (50, 1000, 20000)]
    shares = [column(value, rows) for value in (0.5, 0.9, 0.99)]
    for count in counts:
        size = int(count[0, 0])
        show(
            f"copy, keep_top_k {kind} {size}", rows, 4 * row,
            lambda x, c=count: keep_top_k(work.copy_(x), c),
            lambda x, k=size: torch_top_k(work.copy_(x), k), buffers,
        )  # fmt: skip
    for share in shares:
        show(
            f"copy, keep_top_p {kind} {float(share[0, 0]):.2f}", rows, 4 * row,
            lambda x, s=share: keep_top_p(work.copy_(x), s),
            lambda x, s=share: torch_top_p(work.copy_(x), s), buffers,
        )  # fmt: skip


def chain() -> None:
    """Top-k, top-p and a draw, as for a row with temperature, 64 rows."""
    rows = 64
    count, share = column(50, rows, torch.int64), column(0.9, rows)
    numbers = torch.rand(rows, device=DEVICE)
    for kind in ("peaked", "flat"):
        buffers = copies(kind, rows, torch.float32)
        work = torch.empty_like(buffers[0])

        def ours(logits: Tensor, work: Tensor = work) -> None:
            work.copy_(logits)
            keep_top_k(work, count)
            keep_top_p(work, share)
            draw(work, numbers)

        def theirs(logits: Tensor, work: Tensor = work) -> None:
            torch_top_p(torch_top_k(work.copy_(logits), 50), share)
            torch_draw(work)

        show(f"copy, top_k, top_p, draw {kind}", rows, 7 * 4.0 * VOCABULARY, ours, theirs, buffers)


def shapes() -> None:
    """Ops on a row's whole distribution, beside the reference, which alone knows some of them."""
    plain = reference.create(DEVICE, threads=None, dtype=torch.bfloat16)
    row = 4.0 * VOCABULARY
    for rows in (1, 64):
        buffers = copies("peaked", rows, torch.float32)
        work = torch.empty_like(buffers[0])
        gap, half = column(-1e9, rows), column(0.5, rows)
        near, least = keep_near_on(overlapped=True), least_from_on(overlapped=True)
        typical = keep_typical_on(overlapped=True)
        for name, moved, ours, theirs in (
            ("keep_near", 2, partial(near, gap=gap), partial(plain.keep_near, gap=gap)),
            (
                "least_from", 1,
                partial(least, threshold=half), partial(plain.least_from, threshold=half),
            ),
            ("uncertainty", 1, uncertainty_on(overlapped=True), plain.uncertainty),
            ("deviation", 1, deviation_on(overlapped=True), plain.deviation),
            (
                "copy, keep_typical", 4,
                lambda x, to=work, op=typical, at=half: op(to.copy_(x), at),
                lambda x, to=work, at=half: plain.keep_typical(to.copy_(x), at),
            ),
        ):  # fmt: skip
            show(name, rows, moved * row, ours, theirs, buffers)
        for name, op in (("keep_tail_free", plain.keep_tail_free), ("skew", plain.skew)):
            sole = [
                partial(lambda x, to=work, op=op, at=half: op(to.copy_(x), at), x)
                for x in buffers[:4]
            ]
            print(f"copy, {name} r{rows}: the reference takes {timed(sole):.1f}", flush=True)


def torch_draw(logits: Tensor) -> Tensor:
    return (logits.softmax(-1) / torch.empty_like(logits).exponential_()).argmax(-1)


def torch_keep(logits: Tensor, least: Tensor) -> Tensor:
    return logits.masked_fill_(logits < least, -torch.inf)


def torch_top_k(logits: Tensor, count: int) -> Tensor:
    return torch_keep(logits, logits.topk(count).values[:, -1:])


def torch_top_p(logits: Tensor, share: Tensor) -> Tensor:
    ordered, place = logits.sort(-1, descending=True)
    upto = ordered.softmax(-1).cumsum(-1)
    ordered.masked_fill_(upto - ordered.softmax(-1) > share, -torch.inf)
    return logits.scatter_(1, place, ordered)


SECTIONS = {"check": check, "chain": chain, "shapes": shapes, "time": times}


if __name__ == "__main__":
    run_sections(__doc__, SECTIONS, ALLOWANCE)
