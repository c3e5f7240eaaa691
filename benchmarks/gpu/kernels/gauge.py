"""What the scripts of this folder share: sections, a clock, one line for a failure."""

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch

DEVICE = torch.device("cuda")
READ = 4.6e12
"""Bytes per second that an H200 reads at best: floors are made with it."""


@dataclass
class Allowance:
    """Time after which nothing new is measured, from when it was made."""

    seconds: float
    begun: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> bool:
        return time.monotonic() - self.begun < self.seconds


@dataclass
class Verdict:
    """What came of checks."""

    count: int = 0
    failures: int = 0
    worst: float = 0.0

    def __str__(self) -> str:
        return f"{self.count - self.failures} of {self.count} right, worst {self.worst:.3f}"


def run_sections(
    description: str | None,
    sections: Mapping[str, Callable[[], None]],
    allowance: Allowance,
    parser: argparse.ArgumentParser | None = None,
) -> None:
    """Run those that the command line names, or all; one that fails says so in a line."""
    parser = parser or argparse.ArgumentParser(description=description)
    parser.add_argument("--only", choices=sections, nargs="*", default=list(sections))
    chosen = parser.parse_args().only
    torch.manual_seed(0)
    print(torch.cuda.get_device_name(), flush=True)
    for name in chosen:
        begun = time.monotonic()
        try:
            sections[name]()
        except Exception as failure:
            print(f"{name} failed: {line_of(failure)}", flush=True)
        print(f"[{name}: {time.monotonic() - begun:.0f} s]", flush=True)
    if not allowance.left:
        print("time is up: some variants were left out")


def failures_of(prefix: str, cases: Iterable[tuple[str, Callable[[], float]]]) -> Verdict:
    """Run checks, each of which tells its error in parts of what is allowed; a line per failure."""
    verdict = Verdict()
    for name, run in cases:
        verdict.count += 1
        try:
            excess = run()
            torch.cuda.synchronize()
            verdict.worst = max(verdict.worst, excess)
            if excess <= 1:
                continue
            fault = f"off by {excess:.2f} times what is allowed"
        except Exception as failure:
            fault = line_of(failure)
        verdict.failures += 1
        print(f"FAIL {prefix}{name}: {fault}", flush=True)
    return verdict


def line_of(failure: BaseException) -> str:
    """Its kind and the first line of what it says."""
    text = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {text[0] if text else ''}"[:160]


def timed(calls: Sequence[Callable[[], object]]) -> float:
    """Microseconds of one call, of all replayed from a graph."""
    calls[0]()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    spans = [_span(graph, 1)]
    repeats = max(1, min(50, int(6e3 / spans[0])))
    spans = [_span(graph, repeats) / repeats for _ in range(3)]
    return median(spans) / len(calls)


def _span(graph: torch.cuda.CUDAGraph, repeats: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        graph.replay()
    end.record()
    end.synchronize()
    return 1e3 * start.elapsed_time(end)
