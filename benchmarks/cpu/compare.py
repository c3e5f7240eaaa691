"""Aphrodite beside llama.cpp on one GGUF file, interleaved in one run.

    python benchmarks/cpu/compare.py [MODEL.gguf] --peer PYTHON [--rounds 3]

PYTHON is an interpreter that has `llama-cpp-python`, built natively; each engine runs in a process
of its own, one at a time, with the same number of threads. Without --peer only our side runs. The
JSON goes to benchmarks/results/cpu/, the table to standard output.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "cpu"
SCENARIOS = ("prefill", "decode", "parallel4", "parallel8", "parallel16")


@dataclass(frozen=True)
class Row:
    """One scenario: tokens per second of every round, and the ratio of the medians."""

    scenario: str
    ours: list[float]
    peer: list[float]

    @property
    def ratio(self) -> float | None:
        if not self.peer:
            return None
        return statistics.median(self.ours) / statistics.median(self.peer)


def measure(python: str, script: str, model: Path, threads: int) -> dict[str, float]:
    """Tokens per second by scenario, from one side in its own process."""
    command = [python, str(HERE / script), str(model), "--threads", str(threads)]
    reply = subprocess.run(command, capture_output=True, text=True, check=False)
    if reply.returncode:
        sys.exit(f"{script} failed:\n{reply.stderr[-3000:]}")
    return json.loads(reply.stdout.splitlines()[-1])


def table(rows: list[Row]) -> str:
    """Medians, tokens per second."""
    lines = [f"{'scenario':12} {'aphrodite':>10} {'llama.cpp':>10} {'ratio':>6}"]
    for row in rows:
        peer = f"{statistics.median(row.peer):10.1f}" if row.peer else f"{'-':>10}"
        ratio = f"{row.ratio:6.2f}" if row.ratio is not None else f"{'-':>6}"
        lines.append(f"{row.scenario:12} {statistics.median(row.ours):10.1f} {peer} {ratio}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--peer", help="interpreter with llama-cpp-python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    model = demo() if arguments.model == "demo" else Path(arguments.model)
    ours: list[dict[str, float]] = []
    peer: list[dict[str, float]] = []
    for _ in range(arguments.rounds):
        ours.append(measure(sys.executable, "ours.py", model, arguments.threads))
        if arguments.peer:
            peer.append(measure(arguments.peer, "llama_cpp_side.py", model, arguments.threads))
    rows = [Row(name, [r[name] for r in ours], [r[name] for r in peer]) for name in SCENARIOS]
    print(table(rows))
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = {
        "model": model.name,
        "threads": arguments.threads,
        "machine": platform.processor() or platform.machine(),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "rows": [asdict(row) | {"ratio": row.ratio} for row in rows],
    }
    path = RESULTS / f"{model.stem}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {path.relative_to(HERE.parent.parent)}")


def demo() -> Path:
    """The demo model's file."""
    from aphrodite_engine.loading.source import find_model_path

    return find_model_path("demo", None, None)


if __name__ == "__main__":
    main()
