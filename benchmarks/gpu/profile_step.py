"""Which kernels a decoding step is made of, and how long the device does nothing.

    python benchmarks/gpu/profile_step.py [--format bf16] [--batches 1,32,256] [--context 512]

All requests decode at once, greedily, through the real engine. Of some 20 steps torch's profiler
keeps every kernel, those of CUDA graphs too. Busy is the time in which at least one kernel ran.
The profiler itself slows the host: where a step is bound by the host, idle time is overstated, so
the time of a step without the profiler stands beside it.
"""

import argparse
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from aphrodite_engine.request import EngineRequest
from aphrodite_engine.sampling.params import SamplingParams
from formats import FORMATS
from report import say
from scenarios import GREEDY
from session import Session, open_session, random_prompts
from shapes import SHAPES
from torch.profiler import ProfilerActivity, profile

WARM_UP, OUTPUT = 8, 96


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch."""

    name: str
    start: float
    """Microseconds."""
    end: float


def fill(session: Session, requests: int, context: int) -> None:
    """Requests that all decode: returns once each has its first token, and a few more."""
    params = SamplingParams(max_tokens=OUTPUT, ignore_eos=True, stages=GREEDY)
    for index, prompt in enumerate(
        random_prompts(requests, [context], session.info.vocab_size, seed=requests)
    ):
        session.clock.add(
            EngineRequest(
                id=f"{requests}-{index}", prompt=prompt, params=params, arrival=time.monotonic()
            )
        )
    begun = 0
    while begun < requests:
        begun += sum(len(output.tokens) == 1 for output in session.clock.engine.step())
    for _ in range(WARM_UP):
        session.clock.step()


def record(session: Session, steps: int, activity: ProfilerActivity, trace: Path | None) -> Any:
    """The profiler's events of so many steps."""
    with profile(activities=[activity]) as profiler:
        for _ in range(steps):
            session.clock.step()
        if activity == ProfilerActivity.CUDA:
            torch.cuda.synchronize()
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    return profiler.events()


def kernels_of(events: Any, device: torch.device) -> list[Kernel]:
    """By start; on a CPU, operations that no other one contains."""
    wanted = "CUDA" if device.type == "cuda" else "CPU"
    found = [
        Kernel(event.name, event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == wanted and event.cpu_parent is None
    ]
    return sorted(found, key=lambda kernel: kernel.start)


def busy_time(kernels: Sequence[Kernel]) -> float:
    """Microseconds in which at least one ran; they come by start."""
    busy, reached = 0.0, 0.0
    for kernel in kernels:
        busy += max(0.0, kernel.end - max(kernel.start, reached))
        reached = max(reached, kernel.end)
    return busy


def table(kernels: Sequence[Kernel], steps: int, most: int) -> str:
    """Per step: launches and microseconds by name, the dearest first."""
    times: dict[str, list[float]] = defaultdict(list)
    for kernel in kernels:
        times[shortened(kernel.name)].append(kernel.end - kernel.start)
    total = sum(map(sum, times.values()))
    ranked = sorted(times.items(), key=lambda item: -sum(item[1]))
    lines = [f"{'us/step':>9} {'share':>6} {'launches':>9} {'us each':>8}  kernel"]
    for name, each in ranked[:most]:
        lines.append(
            f"{sum(each) / steps:9.1f} {sum(each) / total:6.1%} {len(each) / steps:9.1f} "
            f"{sum(each) / len(each):8.1f}  {name}"
        )
    rest = ranked[most:]
    if rest:
        others = sum(sum(each) for _, each in rest)
        count = sum(len(each) for _, each in rest)
        lines.append(
            f"{others / steps:9.1f} {others / total:6.1%} {count / steps:9.1f} "
            f"{others / count:8.1f}  {len(rest)} others"
        )
    return "\n".join(lines)


def shortened(name: str) -> str:
    """Without template arguments; at most 70 characters."""
    plain = re.sub(r"<.*>", "<…>", name.removeprefix("void "))
    return re.sub(r"\(.*\)$", "", plain)[:70]


def examine(session: Session, batch: int, arguments: argparse.Namespace) -> str:
    """The report of one batch size."""
    device = torch.device(arguments.device)
    fill(session, batch, arguments.context)
    started = time.perf_counter()
    for _ in range(arguments.steps):
        session.clock.step()
    alone = 1e6 * (time.perf_counter() - started) / arguments.steps
    on_gpu = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    trace = arguments.trace and arguments.trace.with_stem(f"{arguments.trace.stem}-{batch}")
    kernels = kernels_of(record(session, arguments.steps, activity, trace), device)
    session.clock.reset()
    if not kernels:
        return f"batch {batch}: {alone:.0f} us/step; the profiler saw no kernels"
    steps = arguments.steps
    span = kernels[-1].end - kernels[0].start
    busy = busy_time(kernels)
    gaps = f"busy {busy / steps:.0f}, idle {(span - busy) / steps:.0f} us/step"
    head = f"batch {batch}: {alone:.0f} us/step; profiled {span / steps:.0f}: {gaps}; "
    head += f"{len(kernels) / steps:.0f} kernels/step"
    return f"{head}\n{table(kernels, steps, arguments.most)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--format", choices=FORMATS, default="bf16")
    parser.add_argument("--batches", default="1,32,256")
    parser.add_argument("--context", type=int, default=512, help="tokens of the prompts")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--most", type=int, default=25, help="kernels of the table")
    parser.add_argument("--trace", type=Path, help="write Chrome traces here, one per batch size")
    parser.add_argument("--eager", action="store_true", help="without recorded programs")
    arguments = parser.parse_args()
    kind, shape = FORMATS[arguments.format], SHAPES[arguments.shape]
    device = torch.device(arguments.device)
    batches = [int(batch) for batch in arguments.batches.split(",")]
    session = open_session(
        kind.open(shape, device),
        device,
        max_model_len=arguments.context + OUTPUT,
        max_num_seqs=max(batches),
        enable_prefix_caching=False,
        enforce_eager=arguments.eager,
        **kind.options,
    )
    say(f"{kind.name}, {shape.name}, contexts of {arguments.context}: {session.info.backend}")
    for batch in batches:
        say(examine(session, batch, arguments))
    session.close()


if __name__ == "__main__":
    main()
