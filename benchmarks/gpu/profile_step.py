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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from aphrodite_engine.request import EngineRequest
from aphrodite_engine.sampling.params import SamplingParams
from formats import FORMATS
from report import say
from scenarios import GREEDY, Workload, run
from session import Session, open_session, random_prompts
from shapes import SHAPES
from torch.profiler import ProfilerActivity, profile

WARM_UP, OUTPUT = 8, 256


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
    begun: set[str] = set()
    while len(begun) < requests:
        begun |= {output.id for output in session.clock.step()}
    for _ in range(WARM_UP):
        session.clock.step()


def record(step: Callable[[], object], steps: int, trace: Path | None) -> list[Kernel]:
    """What the device ran in so many steps, by start; nothing if there is no device."""
    on_gpu = torch.cuda.is_available()
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as profiler:
        for _ in range(steps):
            step()
        if on_gpu:
            torch.cuda.synchronize()
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    found = [
        Kernel(event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type.name == "CUDA"
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
    """Without the words that all names have; at most 90 characters."""
    return re.sub(r"^void |at::native::|\(anonymous namespace\)::", "", name)[:90]


def decode(session: Session, batch: int, arguments: argparse.Namespace) -> str:
    """The report of decoding steps of one size."""
    fill(session, batch, arguments.context)
    started = time.perf_counter()
    for _ in range(arguments.steps):
        session.clock.step()
    alone = 1e6 * (time.perf_counter() - started) / arguments.steps
    trace = arguments.trace and arguments.trace.with_stem(f"{arguments.trace.stem}-{batch}")
    kernels = record(session.clock.step, arguments.steps, trace)
    session.clock.reset()
    title = f"decoding, batch {batch}: {alone:.0f} us/step"
    return report_of(title, kernels, arguments.steps, arguments.most)


def prefill(session: Session, tokens: int, arguments: argparse.Namespace) -> str:
    """The report of prompts of so many tokens in all, a context each; a step is all of them."""
    load = Workload(max(1, tokens // arguments.context), arguments.context, 1)
    run(session, load)
    alone = 1e6 * run(session, load)
    trace = arguments.trace and arguments.trace.with_stem(f"{arguments.trace.stem}-prefill")
    kernels = record(lambda: run(session, load), 1, trace)
    title = f"{load.requests} prompts of {load.prompt}: {alone:.0f} us"
    return report_of(title, kernels, 1, arguments.most)


def report_of(title: str, kernels: Sequence[Kernel], steps: int, most: int) -> str:
    """Title, gaps, table."""
    if not kernels:
        return f"{title}; the profiler saw no kernels"
    span = kernels[-1].end - kernels[0].start
    busy = busy_time(kernels)
    gaps = f"busy {busy / steps:.0f}, idle {(span - busy) / steps:.0f} us/step"
    head = f"{title}; profiled {span / steps:.0f}: {gaps}; {len(kernels) / steps:.0f} kernels/step"
    return f"{head}\n{table(kernels, steps, most)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--format", choices=FORMATS, default="bf16")
    parser.add_argument("--batches", default="1,32,256")
    parser.add_argument("--context", type=int, default=512, help="tokens of the prompts")
    parser.add_argument("--prefill", type=int, default=0, help="tokens; profile prompts as well")
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
        say(decode(session, batch, arguments))
    if arguments.prefill:
        say(prefill(session, arguments.prefill, arguments))
    session.close()


if __name__ == "__main__":
    main()
