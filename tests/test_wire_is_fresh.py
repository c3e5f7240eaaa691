"""The client's sampling keywords are those of the engine's stages."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_generated_keywords_are_fresh():
    path = ROOT / "scripts" / "generate_client.py"
    spec = importlib.util.spec_from_file_location("generate_client", path)
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    written = (ROOT / generator.TARGET).read_text(encoding="utf-8")
    assert generator.source() == written, "run: python scripts/generate_client.py"
