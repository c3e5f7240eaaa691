"""What each format costs: perplexity, and how far its predictions are from the original's.

    python3 -m uv run python benchmarks/quality/run.py [FORMAT ...] [--folder DIR]
    python3 -m uv run python benchmarks/quality/run.py --checkpoint NAME=PATH [...]

A format is quantised from the demo model (a Q4_1 GGUF file, whose weights are the original here: no
others are at hand) with the calibration text that comes with the engine, and measured on the pieces
of it that are held out. A checkpoint that lies in the folder is not written again; one that another
tool wrote is named by --checkpoint, a plain one perhaps with what --quantization makes of it.
Results are added to benchmarks/results/quality/<model>.json, with command and date.
"""

import argparse
import datetime
import json
import math
import shlex
import sys
from dataclasses import dataclass
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
from aphrodite_quant.ggml.recipe import RECIPES

RESULTS = Path(__file__).resolve().parent.parent / "results" / "quality"
LENGTH = 512
JOBS: dict[str, dict[str, object]] = {
    **{name: {"format": name} for name in ("fp8", "fp8:tensor", "fp8:block", "int8")},
    **{name: {"format": name} for name in ("nf4", "nf4:nested", "mxfp4", "nvfp4", "awq")},
    **{name: {"format": name} for name in ("compressed-tensors", "compressed-tensors:rtn")},
    "gptq": {"format": "gptq", "act_order": True},
    "gptq-3": {"format": "gptq", "act_order": True, "bits": 3},
    "gptq-8": {"format": "gptq", "bits": 8},
    "exl3": {"format": "exl3"},
    **{f"gguf:{name}": {"format": f"gguf:{name}"} for name in RECIPES},
}


@dataclass(frozen=True, slots=True)
class _Original:
    """What others are compared with."""

    loaded: LoadedModel
    hidden: list[torch.Tensor]
    """Of each piece, [L - 1, K], before the head."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(JOBS))
    parser.add_argument("--checkpoint", nargs="+", metavar="NAME=PATH", default=[])
    parser.add_argument("--quantization", metavar="KIND", help="of plain checkpoints named")
    parser.add_argument("--folder", type=Path, default=Path("quality-checkpoints"))
    parser.add_argument("--pieces", type=int, default=8, help="of the held-out text")
    options = parser.parse_args()
    backend = backend_for(torch.device("cpu"))
    path = find_model_path("demo", None, None)
    tokenizer = load_text(EngineConfig(model=str(path)), lambda line: None).tokenizer
    pieces = read_corpus(None, tokenizer, 1, LENGTH).held_out[: options.pieces]
    loaded = _load(path, backend)
    original = _Original(loaded, [_hidden(loaded, backend, piece) for piece in pieces])
    online = ["--quantization", options.quantization] if options.quantization else []
    for name in options.formats or ([] if options.checkpoint else JOBS):
        row = _measure(original, _written(name, options.folder), backend, pieces)
        _record(path.stem, name, row, [name])
    for name, _, place in (one.partition("=") for one in options.checkpoint):
        row = _measure(original, Path(place), backend, pieces, options.quantization)
        _record(path.stem, name, row, ["--checkpoint", f"{name}=PATH", *online])


def _written(name: str, folder: Path) -> Path:
    """The checkpoint of that format in the folder; written if it is not there."""
    place = folder / name.replace(":", "-")
    if str(JOBS[name]["format"]).startswith("gguf"):
        folder.mkdir(parents=True, exist_ok=True)
        place = place.with_name(f"{place.name}.gguf")
        done = place.exists()
    else:
        done = (place / "model.safetensors.index.json").exists()
    if not done:
        job = JOBS[name] | {"model": "demo", "output": str(place), "length": LENGTH}
        quantize_model(Job(**job, evaluate=False, device="cpu"), lambda label, done, total: None)
    return place


def _load(path: Path, backend: Backend, quantization: str | None = None) -> LoadedModel:
    source = open_model(path).quantized(quantization)
    return load_model(source, backend, LENGTH, lambda read, total: None)


def _measure(
    original: _Original,
    path: Path,
    backend: Backend,
    pieces: torch.Tensor,
    quantization: str | None = None,
) -> dict[str, float]:
    row = _compare(original, _load(path, backend, quantization), backend, pieces)
    return row | {"megabytes": _size(path) / 1e6}


@torch.inference_mode()
def _hidden(loaded: LoadedModel, backend: Backend, piece: torch.Tensor) -> torch.Tensor:
    step = input_of(piece[None], loaded.source.config, backend)
    return loaded.model.forward(step)[:-1].clone()


@torch.inference_mode()
def _compare(
    original: _Original, other: LoadedModel, backend: Backend, pieces: torch.Tensor
) -> dict[str, float]:
    """Perplexities, mean KL(original, other) in nats, how often both find the same likeliest."""
    surprise, divergence, same, count = [0.0, 0.0], 0.0, 0, 0
    for piece, expected in zip(pieces, original.hidden, strict=True):
        wanted = piece[1:, None]
        before = original.loaded.model.logits(expected).float().log_softmax(1)
        after = other.model.logits(_hidden(other, backend, piece)).float().log_softmax(1)
        for which, told in enumerate((before, after)):
            surprise[which] -= float(told.gather(1, wanted).sum())
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


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("*.bin")]
    return sum(file.stat().st_size for file in files)


def _record(model: str, name: str, row: dict[str, float], arguments: list[str]) -> None:
    file = RESULTS / f"{model}.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    command = "python3 -m uv run python " + shlex.join(["benchmarks/quality/run.py", *arguments])
    found[name] = row | {"command": command, "date": datetime.date.today().isoformat()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2) + "\n")
    print(name, json.dumps(row), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
