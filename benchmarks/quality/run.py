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
from pathlib import Path

from aphrodite_engine.loading.source import find_model_path
from aphrodite_engine.quantizing.job import Job
from aphrodite_engine.quantizing.run import quantize_model
from aphrodite_quant.ggml.recipe import RECIPES
from predictions import LENGTH, RESULTS, Predictions, load, record, size

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(JOBS))
    parser.add_argument("--checkpoint", nargs="+", metavar="NAME=PATH", default=[])
    parser.add_argument("--quantization", metavar="KIND", help="of plain checkpoints named")
    parser.add_argument("--folder", type=Path, default=Path("quality-checkpoints"))
    parser.add_argument("--pieces", type=int, default=8, help="of the held-out text")
    options = parser.parse_args()
    path = find_model_path("demo", None, None)
    original = Predictions.of_text(path, options.pieces)
    file = RESULTS / f"{path.stem}.json"
    program = "benchmarks/quality/run.py"
    for name in options.formats or ([] if options.checkpoint else JOBS):
        record(file, name, _measured(original, _written(name, options.folder)), [program, name])
    online = ["--quantization", options.quantization] if options.quantization else []
    for name, _, place in (one.partition("=") for one in options.checkpoint):
        row = _measured(original, Path(place), options.quantization)
        record(file, name, row, [program, "--checkpoint", f"{name}=PATH", *online])


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


def _measured(
    original: Predictions, path: Path, quantization: str | None = None
) -> dict[str, float]:
    row = original.compare(load(path, original.backend, quantization))
    return row | {"megabytes": size(path) / 1e6}


if __name__ == "__main__":
    main()
