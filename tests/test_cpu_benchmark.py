"""The benchmark of host time keeps up with the engine that it looks into."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_host_time_is_measured():
    script = ROOT / "benchmarks" / "cpu" / "host_time.py"
    command = [sys.executable, str(script), "--batches", "1", "3", "--steps", "4", "--dry-run"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    assert [line.split()[0] for line in run.stdout.splitlines()[2:4]] == ["1", "3"]
