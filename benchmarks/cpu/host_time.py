"""Where the time of a decode step goes: inside the kernels, and outside of them on the host.

    python benchmarks/cpu/host_time.py [MODEL.gguf] [--draw] [--steps 48] [--threads 2]

All sequences decode at once, greedily or (--draw) at temperature 0.8 with top-p 0.95. A step's wall
time runs from the start of its forward pass to that of the next one; inside are the replays of the
forward pass and of the head. Other programs on the machine make single steps late, so the first
quartile and the median are shown, not means. The JSON goes to benchmarks/results/cpu/.
"""

import argparse
import json
import platform
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from aphrodite_engine.build import build_engine
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.engine import Engine
from aphrodite_engine.execution.programs import Likeliest, Programs
from aphrodite_engine.execution.step import Step
from aphrodite_engine.request import EngineRequest
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.stage import Stage
from aphrodite_engine.sampling.stages.temperature import Temperature
from aphrodite_engine.sampling.stages.top_p import TopP
from torch import Tensor

RESULTS = Path(__file__).resolve().parent.parent / "results" / "cpu"
BATCHES = (1, 8, 64, 256)
CONTEXT, WARM_UP, PREFILL_STEPS = 16, 6, 24
GREEDY = (Temperature(temperature=0),)
DRAWN = (Temperature(temperature=0.8), TopP(top_p=0.95))


@dataclass(frozen=True)
class Row:
    """Milliseconds per step: first quartile and median."""

    batch: int
    wall: tuple[float, float]
    inside: tuple[float, float]
    outside: tuple[float, float]


class TimedPrograms:
    """Programs; of every step it keeps when it began and the seconds spent inside."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self.begun: list[float] = []
        self.inside: list[float] = []

    def forward(self, step: Step, *, every: bool) -> None:
        started = time.perf_counter()
        self._programs.forward(step, every=every)
        self.begun.append(started)
        self.inside.append(time.perf_counter() - started)

    def logits(self, step: Step, outputs: int) -> Tensor:
        started = time.perf_counter()
        logits = self._programs.logits(step, outputs)
        self.inside[-1] += time.perf_counter() - started
        return logits

    def likeliest(self, step: Step) -> Likeliest | None:
        return self._programs.likeliest(step)

    @property
    def repeats(self) -> bool:
        return self._programs.repeats


def instrument(engine: Engine) -> TimedPrograms:
    """Put a clock around the programs of an engine that is already whole."""
    executor = engine._runner._executor  # type: ignore[attr-defined]
    executor._programs = timed = TimedPrograms(executor._programs)
    return timed


def measure(
    engine: Engine, timed: TimedPrograms, batch: int, steps: int, stages: tuple[Stage, ...]
) -> Row:
    """Decode `batch` sequences; prompts and the first steps are left out."""
    chooser = random.Random(batch)
    limit = PREFILL_STEPS + WARM_UP + steps + 4
    params = SamplingParams(max_tokens=limit, ignore_eos=True, stages=stages)
    for index in range(batch):
        prompt = chooser.sample(range(100, 20000), CONTEXT)
        name = f"{batch}-{index}"
        engine.add(EngineRequest(id=name, prompt=prompt, params=params, arrival=time.monotonic()))
    begun: set[str] = set()
    while len(begun) < batch:
        begun.update(output.id for output in engine.step())
    for _ in range(WARM_UP):
        engine.step()
    first = len(timed.begun)
    for _ in range(steps + 1):
        engine.step()
    begun, inside = timed.begun[first : first + steps + 1], timed.inside[first : first + steps]
    while engine.unfinished:
        engine.step()
    walls = [after - before for before, after in pairwise(begun)]
    outside = [wall - within for wall, within in zip(walls, inside, strict=True)]
    return Row(batch, quartiles(walls), quartiles(inside), quartiles(outside))


def quartiles(seconds: list[float]) -> tuple[float, float]:
    first, median, _ = statistics.quantiles(seconds, n=4)
    return round(1e3 * first, 3), round(1e3 * median, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--dry-run", action="store_true", help="write no JSON")
    arguments = parser.parse_args()
    config = EngineConfig(
        model=arguments.model,
        threads=arguments.threads,
        max_model_len=1024,
        max_num_seqs=max(arguments.batches),
        max_num_batched_tokens=512,
        enable_prefix_caching=False,
    )
    engine, info = build_engine(config, [], lambda line: None)
    timed = instrument(engine)
    rows = []
    heads = " ".join(f"{name:>15}" for name in ("wall", "inside", "outside"))
    sys.stdout.write(f"{info.backend}; ms per step\nbatch {heads}\n")
    for batch in arguments.batches:
        row = measure(engine, timed, batch, arguments.steps, DRAWN if arguments.draw else GREEDY)
        rows.append(row)
        cells = " ".join(f"{a:7.3f} {b:7.3f}" for a, b in (row.wall, row.inside, row.outside))
        sys.stdout.write(f"{row.batch:5} {cells}\n")
    engine.close()
    if arguments.dry_run:
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = {
        "model": Path(info.path).name,
        "machine": platform.processor() or platform.machine(),
        "backend": info.backend,
        "sampling": "temperature 0.8, top-p 0.95" if arguments.draw else "greedy",
        "milliseconds": "first quartile and median of a step",
        "rows": [asdict(row) for row in rows],
    }
    name = f"host_time-{'draw' if arguments.draw else 'greedy'}.json"
    (RESULTS / name).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
