"""Every Triton kernel compiles for the devices it is launched on, without any device."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="triton is not installed")
@pytest.mark.timeout(600)
def test_specimens_compile_without_spilling():
    """In processes of their own: in this one kernels are for the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).parent / "compile_specimens.py"
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert reports, "no specimens were found"
    faults = [f"{each['name']}: {each['fault']}" for each in reports if each["fault"]]
    assert not faults, "\n".join(faults)
