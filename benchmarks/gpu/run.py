"""The engine on one GPU, end to end: random weights of a real shape, beside the existing engine.

    python benchmarks/gpu/run.py [--formats bf16,fp8,q4_k_m] [--scenarios batch1,throughput]

The packages are installed, or their src folders are on PYTHONPATH.

Every scenario runs through the offline `LLM`: scheduler, sampler, text. Answers are checked first,
on a model of the same widths and two layers. A scenario that fails says so in a line and the next
one runs. `--shape tiny --device cpu` tries everything in a minute. NOTES.md says what is timed.
"""

import argparse
import gc
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from aphrodite_engine.config import EngineConfig
from checks import check_answers, check_company, check_session
from figures import card_named, compare
from formats import FORMATS, WeightFormat
from report import HEADS, Report, Row, conditions, folder_of, say
from scenarios import FULL, SCENARIOS, SMALL, Measured, Patience, Workload, throughput
from session import Session, open_session
from shapes import CHECKED, SHAPES, TINY, Shape
from start_up import room_for, start_twice

NAMES = (*SCENARIOS, "deterministic", "start-up")


@dataclass(slots=True)
class Benchmark:
    """One call of this script."""

    report: Report
    device: torch.device
    shape: Shape
    scenarios: list[str]
    patience: Patience
    options: dict[str, Any]
    """Of EngineConfig, for all engines that are timed."""
    deadline: float
    """time.perf_counter() after which nothing new begins."""

    @property
    def workloads(self) -> dict[str, Workload]:
        return dict(SMALL if self.shape == TINY else FULL)

    def attempt(self, what: str, action: Callable[[], None]) -> None:
        """Run a part; what it raises is its own end only."""
        if time.perf_counter() > self.deadline:
            self.report.fail(what, TimeoutError("not begun: this call's time is over"))
            return
        try:
            action()
        except Exception as error:
            self.report.fail(what, error)
        _free(self.device)

    def check(self, kind: WeightFormat, shape: Shape) -> None:
        """Both checks of a format."""
        for check in (check_answers, check_company):
            self.attempt(
                f"{kind.name}, {check.__name__}",
                lambda check=check: self.report.check(check(kind, shape, self.device)),
            )

    def time(self, kind: WeightFormat) -> None:
        """The scenarios of a format that share one engine, then those that need their own."""
        shared = [name for name in self.scenarios if name in SCENARIOS]
        if shared:
            self.attempt(f"{kind.name}, engine", lambda: self._shared(kind, shared))
        if "deterministic" in self.scenarios:
            self.attempt(f"{kind.name}, deterministic", lambda: self._deterministic(kind))
        if "start-up" in self.scenarios and kind.name == "bf16":
            self.attempt(f"{kind.name}, start-up", lambda: self._start_up(kind))

    def _shared(self, kind: WeightFormat, names: list[str]) -> None:
        session = self._open(kind)
        for name in names:
            scenario = SCENARIOS[name]
            self.attempt(
                f"{kind.name}, {name}",
                lambda name=name, scenario=scenario: self._take(
                    kind, scenario(name, session, self.workloads[name], self.patience)
                ),
            )
        self._close(kind.name, session)

    def _deterministic(self, kind: WeightFormat) -> None:
        session = self._open(kind, deterministic=True)
        name = f"{kind.name} on {self.shape.name}, deterministic"
        self.report.check(check_session(session, name))
        workload = self.workloads["throughput"]
        for figure in throughput("deterministic", session, workload, self.patience):
            usual = self._found(kind, "throughput")
            note = f"{figure.value / usual:.1%} of the usual" if usual else ""
            self._take(kind, [replace(figure, note=note)])
        self._close(f"{kind.name}, deterministic", session)

    def _start_up(self, kind: WeightFormat) -> None:
        folder = Path(tempfile.gettempdir())
        if not room_for(self.shape, folder):
            raise OSError(f"{folder} has no room for the checkpoint")
        options = {"max_model_len": 4096, **kind.options}
        starts = start_twice(self.shape, str(self.device), options, folder, 200)
        for name, phases in starts:
            self.report.start_ups[name] = phases
            say(f"start-up, {name}: " + "; ".join(f"{k} {v:.2f}" for k, v in phases.items()))
        workload = Workload(1, 32, 1)
        total = self.report.start_ups["warm"]["in all"]
        self._take(kind, [Measured("start-up", "s", total, (total,), workload, 0.0)])

    def _take(self, kind: WeightFormat, figures: Iterator[Measured] | list[Measured]) -> None:
        on_gpu = self.device.type == "cuda"
        card = card_named(torch.cuda.get_device_name(self.device)) if on_gpu else None
        for figure in figures:
            beside = compare(figure.scenario, self.shape, kind, figure.workload, card)
            self.report.add(Row(kind.name, figure, beside))

    def _found(self, kind: WeightFormat, scenario: str) -> float | None:
        for row in self.report.rows:
            if (row.format, row.measured.scenario) == (kind.name, scenario):
                return row.measured.value
        return None

    def _open(self, kind: WeightFormat, **options: Any) -> Session:
        started = time.perf_counter()
        session = open_session(
            kind.open(self.shape, self.device),
            self.device,
            max_model_len=min(4096, self.shape.positions),
            enable_prefix_caching=False,
            **{**self.options, **kind.options, **options},
        )
        seconds = time.perf_counter() - started
        say(f"{kind.name}: {session.info.backend}; ready after {seconds:.1f} s")
        return session

    def _close(self, name: str, session: Session) -> None:
        if session.profile:
            self.report.profiles[name] = session.profile
            say(session.profile)
        session.close()


def _free(device: torch.device) -> None:
    """What an abandoned engine held; the traceback that held it is gone by now."""
    gc.collect()
    if device.type == "cuda" and _alive(device):
        torch.cuda.empty_cache()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--formats", type=_names(FORMATS), default="bf16,fp8,q4_k_m")
    parser.add_argument("--scenarios", type=_names(NAMES), default=",".join(NAMES[:-1]))
    parser.add_argument("--rounds", type=int, default=3, help="most runs of a scenario")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of a scenario")
    parser.add_argument("--deadline", type=float, default=480.0, help="seconds of this call")
    parser.add_argument("--no-checks", action="store_true")
    parser.add_argument("--only-checks", action="store_true")
    parser.add_argument("--profile-steps", action="store_true", help="host time by phase")
    parser.add_argument("--option", action="append", default=[], help="NAME=VALUE of EngineConfig")
    parser.add_argument("--commit", help="where there is no history to ask")
    parser.add_argument("--output", type=Path, help="JSON; default: benchmarks/results/…")
    return parser.parse_args()


def _names(known: Any) -> Callable[[str], list[str]]:
    """A parser of names with commas between them."""

    def names(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        if wrong := set(found) - set(known):
            raise argparse.ArgumentTypeError(f"{sorted(wrong)} is none of {', '.join(known)}")
        return found

    return names


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Engine options of the command line; numbers and booleans as such."""
    words = {"true": True, "false": False}
    options: dict[str, Any] = {}
    for text in arguments.option:
        name, _, value = text.partition("=")
        options[name] = words.get(value, int(value) if value.isdigit() else value)
    if arguments.profile_steps:
        options["profile_steps"] = True
    if unknown := set(options) - set(EngineConfig.__struct_fields__):
        sys.exit(f"{sorted(unknown)} are no fields of EngineConfig")
    return options


def _alive(device: torch.device) -> bool:
    """A kernel that failed leaves nothing but errors to its process."""
    try:
        torch.zeros(1, device=device).tolist()
    except RuntimeError:
        return False
    return True


def _elsewhere(formats: list[str], benchmark: Benchmark) -> int:
    """The formats that are left, in a process of their own."""
    say(f"the device is of no use to this process any more: {formats} go to another")
    path = benchmark.report.path
    left = benchmark.deadline - time.perf_counter()
    again = [
        *sys.argv,
        f"--formats={','.join(formats)}",
        f"--output={path.with_stem(f'{path.stem}-rest')}",
        f"--deadline={left}",
    ]
    return 1 + subprocess.run([sys.executable, *again], check=False).returncode


def main() -> int:
    arguments = parse()
    began = time.perf_counter()
    logging.getLogger("aphrodite_engine.profile").setLevel(logging.ERROR)  # said once, at the end
    device = torch.device(arguments.device)
    facts = conditions(device, arguments.shape, arguments.commit)
    default = folder_of(device) / f"{arguments.shape}-{'-'.join(arguments.formats)}.json"
    benchmark = Benchmark(
        report=Report(arguments.output or default, facts),
        device=device,
        shape=SHAPES[arguments.shape],
        scenarios=arguments.scenarios,
        patience=Patience(rounds=arguments.rounds, seconds=arguments.budget),
        options=_options(arguments),
        deadline=began + arguments.deadline,
    )
    say(f"{facts['device']}, {facts['versions']}, commit {facts['commit']}")
    for index, name in enumerate(arguments.formats, 1):
        if not arguments.no_checks:
            benchmark.check(FORMATS[name], CHECKED[arguments.shape])
        if not arguments.only_checks:
            benchmark.time(FORMATS[name])
        if index < len(arguments.formats) and not _alive(device):
            return _elsewhere(arguments.formats[index:], benchmark)
    report = benchmark.report
    say("\n".join(["", HEADS, *map(str, report.rows)]))
    say("\n".join(f"FAILED  {line:.300}" for line in report.failures))
    say(f"{time.perf_counter() - began:.0f} s; written to {report.path}")
    return int(bool(report.failures) or not all(check.passed for check in report.checks))


if __name__ == "__main__":
    sys.exit(main())
