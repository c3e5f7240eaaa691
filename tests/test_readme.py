"""The examples that need a model run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def examples(document: Path) -> list[str]:
    """Python blocks that need no running server."""
    blocks = re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)
    return [block for block in blocks if "import" in block and "aphrodite_client" not in block]


CASES = [
    (path, place, code)
    for path in [ROOT / "README.md", ROOT / "packages" / "aphrodite-engine" / "README.md"]
    for place, code in enumerate(examples(path))
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "place", "code"),
    CASES,
    ids=[f"{path.parent.name}-{place}" for path, place, _ in CASES],
)
def test_an_example_runs(path: Path, place: int, code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{path}, example {place}:\n{done.stderr}"
