"""What each format costs: perplexity, and how far its predictions are from the original's.

    python3 -m uv run python benchmarks/quality/run.py [FORMAT ...] [--folder DIR]

Every format is quantised from the demo model (a Q4_1 GGUF file, whose weights as bfloat16 are the
original here: no others are at hand) with the calibration text that comes with the engine, and
measured on the pieces of it that are held out. A checkpoint that lies in the folder is not written
again. Results are added to benchmarks/results/quality/<model>.json, with command and date.
"""

import argparse
import datetime
import json
import math
import shlex
import sys
from pathlib import Path

import torch
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.loading.model import LoadedModel, load_model, open_model
from aphrodite_engine.loading.source import find_model_path
from aphrodite_engine.loading.text import load_text
from aphrodite_engine.quantizing.corpus import read_corpus
from aphrodite_engine.quantizing.job import Job
from aphrodite_engine.quantizing.run import quantize_model
from aphrodite_engine.quantizing.sequences import input_of
from aphrodite_kernels.backend import Backend, backend_for

RESULTS = Path(__file__).resolve().parent.parent / "results" / "quality"
LENGTH = 512
JOBS = {
    "fp8": Job(model="demo", format="fp8", output=""),
    "fp8:block": Job(model="demo", format="fp8:block", output=""),
    "int8": Job(model="demo", format="int8", output=""),
    "gptq": Job(model="demo", format="gptq", output="", act_order=True),
    "gptq-3": Job(model="demo", format="gptq", output="", bits=3, act_order=True),
    "awq": Job(model="demo", format="awq", output=""),
    "compressed-tensors": Job(model="demo", format="compressed-tensors", output=""),
    "compressed-tensors:rtn": Job(model="demo", format="compressed-tensors:rtn", output=""),
    "nf4": Job(model="demo", format="nf4", output=""),
    "nf4:nested": Job(model="demo", format="nf4:nested", output=""),
    "mxfp4": Job(model="demo", format="mxfp4", output=""),
    "nvfp4": Job(model="demo", format="nvfp4", output=""),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", default=list(JOBS))
    parser.add_argument("--folder", type=Path, default=Path("quality-checkpoints"))
    parser.add_argument("--pieces", type=int, default=8, help="of the held-out text")
    options = parser.parse_args()
    backend = backend_for(torch.device("cpu"))
    path = find_model_path("demo", None, None)
    tokenizer = load_text(EngineConfig(model=str(path)), lambda line: None).tokenizer
    pieces = read_corpus(None, tokenizer, 1, LENGTH).held_out[: options.pieces]
    original = _load(path, backend)
    for name in options.formats:
        folder = options.folder / name.replace(":", "-")
        if not (folder / "model.safetensors.index.json").exists():
            job = {field: getattr(JOBS[name], field) for field in JOBS[name].__struct_fields__}
            job |= {"output": str(folder), "evaluate": False, "device": "cpu", "length": LENGTH}
            quantize_model(Job(**job), lambda label, done, total: None)
        row = _compare(original, _load(folder, backend), backend, pieces)
        _record(path.stem, name, row | {"megabytes": _size(folder) / 1e6})


def _load(path: Path, backend: Backend) -> LoadedModel:
    return load_model(open_model(path), backend, LENGTH, lambda read, total: None)


@torch.inference_mode()
def _compare(
    original: LoadedModel, other: LoadedModel, backend: Backend, pieces: torch.Tensor
) -> dict[str, float]:
    """Perplexities, mean KL(original, other) in nats, how often both find the same likeliest."""
    surprise, divergence, same, count = [0.0, 0.0], 0.0, 0, 0
    for piece in pieces:
        wanted = piece[1:, None]
        told = []
        for which, loaded in enumerate((original, other)):
            step = input_of(piece[None], loaded.source.config, backend)
            hidden = loaded.model.forward(step)[:-1]
            told.append(loaded.model.logits(hidden).float().log_softmax(1))
            surprise[which] -= float(told[which].gather(1, wanted).sum())
        before, after = told
        divergence += float((before.exp() * (before - after)).sum())
        same += int((before.argmax(1) == after.argmax(1)).sum())
        count += len(wanted)
    return {
        "perplexity_of_the_original": math.exp(surprise[0] / count),
        "perplexity": math.exp(surprise[1] / count),
        "divergence": divergence / count,
        "same_likeliest": same / count,
        "tokens": count,
    }


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _record(model: str, name: str, row: dict[str, float]) -> None:
    file = RESULTS / f"{model}.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    command = "python3 -m uv run python " + shlex.join(["benchmarks/quality/run.py", name])
    found[name] = row | {"command": command, "date": datetime.date.today().isoformat()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2) + "\n")
    print(name, json.dumps(row), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
