"""docs/samplers.md and its drawings are those of the engine's stages."""

import importlib.util
import re
from pathlib import Path

import pytest
from aphrodite_engine.sampling.catalog import stage_fields

ROOT = Path(__file__).parents[1]
ADVICE = "run: python scripts/generate_sampler_docs.py"


@pytest.fixture(scope="module")
def generator():
    path = ROOT / "scripts" / "generate_sampler_docs.py"
    spec = importlib.util.spec_from_file_location("generate_sampler_docs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_fresh(generator):
    written = (ROOT / generator.TARGET).read_text(encoding="utf-8")
    assert generator.document() == written, ADVICE
    for declared in stage_fields():
        assert f"`{declared.name}`" in written
    for link in re.findall(r"\]\((\w[\w./]*)\)", written):
        assert (ROOT / "docs" / link).is_file(), link


def test_drawings_are_fresh(generator):
    """To the pixel, or one beside it: another machine may round otherwise."""
    made = generator.drawings()
    folder = ROOT / generator.DRAWINGS
    assert {path.name for path in folder.iterdir()} == set(made), ADVICE
    for name, text in made.items():
        written = (folder / name).read_text(encoding="utf-8")
        assert re.sub(r"\d+", "", text) == re.sub(r"\d+", "", written), ADVICE
        numbers = zip(re.findall(r"\d+", text), re.findall(r"\d+", written), strict=True)
        assert all(abs(int(new) - int(old)) <= 1 for new, old in numbers), f"{name}: {ADVICE}"
