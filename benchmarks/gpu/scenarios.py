"""What is timed: batches of equal requests through the offline `LLM`, greedy unless said."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.stage import Stage
from aphrodite_engine.sampling.stages.dry import Dry
from aphrodite_engine.sampling.stages.min_p import MinP
from aphrodite_engine.sampling.stages.penalties import Penalties
from aphrodite_engine.sampling.stages.temperature import Temperature
from aphrodite_engine.sampling.stages.top_k import TopK
from aphrodite_engine.sampling.stages.top_p import TopP
from aphrodite_engine.sampling.stages.xtc import Xtc
from session import Clock, Session, random_prompts

GREEDY: tuple[Stage, ...] = (Temperature(temperature=0.0),)
SAMPLERS: Mapping[str, tuple[Stage, ...]] = {
    "greedy": GREEDY,
    "temperature, min_p, repetition": (
        Penalties(repetition_penalty=1.1),
        Temperature(temperature=0.8),
        MinP(min_p=0.05),
    ),
    "top_p, top_k": (TopK(top_k=40), TopP(top_p=0.9)),
    "DRY, XTC, min_p, penalties": (
        Dry(dry_multiplier=0.8),
        Penalties(repetition_penalty=1.1, presence_penalty=0.1, frequency_penalty=0.1),
        MinP(min_p=0.05),
        Xtc(xtc_probability=0.5),
    ),
}


@dataclass(frozen=True, slots=True)
class Workload:
    """Equal requests that arrive at once."""

    requests: int
    prompt: int
    """Tokens."""
    output: int
    """Tokens."""

    def short(self) -> "Workload":
        """To warm up with: the same steps, fewer of them."""
        return replace(self, requests=min(self.requests, 64), output=min(self.output, 8))


FULL: Mapping[str, Workload] = {
    "batch1": Workload(1, 32, 256),
    "batch32": Workload(32, 32, 256),
    "prefill": Workload(16, 2048, 1),
    "throughput": Workload(512, 512, 256),
    "sampling": Workload(64, 512, 128),
}
SMALL: Mapping[str, Workload] = {
    "batch1": Workload(1, 8, 16),
    "batch32": Workload(4, 8, 16),
    "prefill": Workload(2, 64, 1),
    "throughput": Workload(8, 32, 16),
    "sampling": Workload(4, 32, 16),
}


class Figure(NamedTuple):
    """What is measured."""

    scenario: str
    unit: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure of one scenario."""

    scenario: str
    """With the variant, if there are several."""
    unit: str
    value: float
    """The median."""
    runs: tuple[float, ...]
    workload: Workload
    warm_up: float
    """Seconds of the short run before, kernels compiled for the first time included."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often, and how long, a scenario may run."""

    rounds: int
    seconds: float
    """No round begins that would not end within this; a round that does not end is given up."""


def run(session: Session, workload: Workload, stages: tuple[Stage, ...] = GREEDY) -> float:
    """Seconds from the first request to the last token."""
    session.clock.reset()
    prompts = random_prompts(workload.requests, [workload.prompt], session.info.vocab_size)
    params = SamplingParams(max_tokens=workload.output, ignore_eos=True, stages=stages)
    started = time.perf_counter()
    session.generate(prompts, params, progress=False)
    return time.perf_counter() - started


def measure(
    session: Session,
    figure: Figure,
    workload: Workload,
    patience: Patience,
    value: Callable[[float], float],
    stages: tuple[Stage, ...] = GREEDY,
) -> Measured:
    """Warm up, then as many runs as patience allows, at least one; `value` of each's seconds."""
    clock, values, seconds = session.clock, list[float](), 0.0
    clock.deadline = time.perf_counter() + 2 * patience.seconds
    try:
        warm_up = run(session, workload.short(), stages)
        clock.deadline = time.perf_counter() + patience.seconds
        while len(values) < patience.rounds and not _in_vain(session, values, seconds):
            seconds = run(session, workload, stages)
            values.append(value(seconds))
    finally:
        clock.deadline = math.inf
    return Measured(*figure, statistics.median(values), tuple(values), workload, warm_up)


def _in_vain(session: Session, values: list[float], seconds: float) -> bool:
    return bool(values) and time.perf_counter() + seconds > session.clock.deadline


def step_seconds(clock: Clock, requests: int) -> float:
    """Seconds between two tokens, from the step that gave the last request its first token on."""
    first = seen = 0
    while seen < requests:
        seen += clock.tokens[first]
        first += 1
    last = max(index for index, tokens in enumerate(clock.tokens) if tokens)
    return (clock.ends[last] - clock.ends[first - 1]) / (last - first + 1)


def decode(
    scenario: str, session: Session, workload: Workload, patience: Patience
) -> Iterator[Measured]:
    """Milliseconds per step of all requests."""

    def value(_: float) -> float:
        return 1e3 * step_seconds(session.clock, workload.requests)

    yield measure(session, Figure(scenario, "ms/step"), workload, patience, value)


def prefill(
    scenario: str, session: Session, workload: Workload, patience: Patience
) -> Iterator[Measured]:
    """Prompt tokens per second, to the last first token."""
    tokens = workload.requests * workload.prompt
    figure = Figure(scenario, "tok/s")
    yield measure(session, figure, workload, patience, lambda seconds: tokens / seconds)


def throughput(
    scenario: str, session: Session, workload: Workload, patience: Patience
) -> Iterator[Measured]:
    """Output tokens per second, prompts included in the time."""
    yield _outputs(scenario, session, workload, patience, GREEDY)


def sampling(
    scenario: str, session: Session, workload: Workload, patience: Patience
) -> Iterator[Measured]:
    """Output tokens per second of each sampler, and what share of greedy that is."""
    greedy = 0.0
    for name, stages in SAMPLERS.items():
        figure = _outputs(f"{scenario}: {name}", session, workload, patience, stages)
        greedy = greedy or figure.value
        yield replace(figure, note=f"{figure.value / greedy:.1%} of greedy")


def _outputs(
    scenario: str,
    session: Session,
    workload: Workload,
    patience: Patience,
    stages: tuple[Stage, ...],
) -> Measured:
    tokens = workload.requests * workload.output
    figure = Figure(scenario, "tok/s")
    return measure(session, figure, workload, patience, lambda seconds: tokens / seconds, stages)


Scenario = Callable[[str, Session, Workload, Patience], Iterator[Measured]]
SCENARIOS: Mapping[str, Scenario] = {
    "batch1": decode,
    "batch32": decode,
    "prefill": prefill,
    "throughput": throughput,
    "sampling": sampling,
}
