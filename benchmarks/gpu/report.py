"""Rows of the table, and the JSON beside it."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import torch
from checks import Check
from figures import Comparison
from scenarios import Measured

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
VERSIONS = ("torch", "triton", "transformers", "safetensors", "numpy", "msgspec")
HEADS = (
    f"{'format':8} {'scenario':40} {'unit':8} {'ours':>9} {'peer':>9} {'ratio':>6} {'floor':>9} "
    f"{'of it':>6} {'least':>8} {'aim':>8}"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A figure and what it stands beside."""

    format: str
    measured: Measured
    beside: Comparison

    @property
    def faster(self) -> float | None:
        """How many times as fast as the peer."""
        return _gain(self.measured, self.beside.peer)

    @property
    def reached(self) -> float | None:
        """Share of the floor's speed."""
        return _gain(self.measured, self.beside.floor)

    def __str__(self) -> str:
        measured, beside = self.measured, self.beside
        verdict = ""
        if beside.least is not None:
            verdict = "met" if (_gain(measured, beside.least) or 0) >= 1 else "MISSED"
        return (
            f"{self.format:8} {measured.scenario:40} {measured.unit:8} {_cell(measured.value, 9)} "
            f"{_cell(beside.peer, 9)} {_cell(self.faster, 6)} {_cell(beside.floor, 9)} "
            f"{_cell(self.reached, 6)} {_cell(beside.least, 8)} {_cell(beside.aim, 8)} "
            f"{verdict} {measured.note}"
        ).rstrip()


@dataclass(slots=True)
class Report:
    """All that a run found; written again after every row, so that nothing is lost."""

    path: Path
    conditions: dict[str, object]
    rows: list[Row] = field(default_factory=list[Row])
    checks: list[Check] = field(default_factory=list[Check])
    failures: list[str] = field(default_factory=list[str])
    profiles: dict[str, str] = field(default_factory=dict[str, str])
    start_ups: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])

    def add(self, row: Row) -> None:
        say(str(row))
        self.rows.append(row)
        self.write()

    def check(self, check: Check) -> None:
        say(f"{'PASS' if check.passed else 'FAIL'}  {check.name}: {check.detail}")
        self.checks.append(check)
        self.write()

    def fail(self, what: str, error: BaseException) -> None:
        """Say what went wrong in a line, and go on."""
        first = (str(error).strip().splitlines() or ["no message"])[0]
        self.failures.append(f"{what}: {type(error).__name__}: {first}")
        say(f"FAILED  {self.failures[-1]:.300}")
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        found = {
            **self.conditions,
            "rows": [
                {"format": row.format, **asdict(row.measured), **asdict(row.beside)}
                | {"times_the_peer": row.faster, "share_of_floor": row.reached}
                for row in self.rows
            ],
            "checks": [asdict(check) for check in self.checks],
            "failures": self.failures,
            "start_ups": self.start_ups,
            "profiles": self.profiles,
        }
        self.path.write_text(json.dumps(found, indent=1) + "\n")


def folder_of(device: torch.device) -> Path:
    """Where results of this machine lie."""
    if device.type != "cuda":
        return RESULTS / device.type
    name = torch.cuda.get_device_name(device).lower().removeprefix("nvidia ")
    return RESULTS / name.replace(" ", "-")


def conditions(device: torch.device, shape: str, commit: str | None) -> dict[str, object]:
    """What a figure holds for."""
    on_gpu = device.type == "cuda"
    return {
        "shape": shape,
        "commit": commit or _commit(),
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "versions": {name: _version(name) for name in VERSIONS} | {"cuda": torch.version.cuda},
        "python": platform.python_version(),
        "backend": os.environ.get("APHRODITE_BACKEND", "the device's own"),
        "command": re.sub(r" --output[= ]\S+", "", " ".join(sys.argv)),  # a path of one machine
        "time": time.strftime("%Y-%m-%d %H:%M"),
    }


def say(line: str) -> None:
    """At once, though the output is a pipe."""
    print(line, flush=True)


def _commit() -> str | None:
    """None: this is a copy without history."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        reply = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return reply.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gain(measured: Measured, other: float | None) -> float | None:
    """Above 1: better than the other, whichever way the unit counts."""
    if other is None:
        return None
    return measured.value / other if measured.unit.endswith("/s") else other / measured.value


def _cell(value: float | None, width: int) -> str:
    if value is None:
        return f"{'-':>{width}}"
    return f"{value:{width}.0f}" if value >= 1000 else f"{value:{width}.2f}"
