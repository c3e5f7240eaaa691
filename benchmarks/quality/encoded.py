"""Formats that no tool at hand can write: whole models in them, and whether they are read as meant.

    python3 -m uv run python benchmarks/quality/encoded.py [NAME ...] [--device cuda]
    python3 -m uv run python benchmarks/quality/encoded.py --table

The demo model's weights are put into each format by the plainest way there is (`encoders/`): the
nearest code, no calibration, nothing tuned. So the numbers say little of a format; they show that
a model of it runs, and runs as it should. For the encoder also decodes its own codes, without this
engine, and a plain checkpoint is made of what it finds. A row of the results has the error of the
weights; the largest difference between what is read and what was meant, in units of a matrix's root
mean square; what `inspect --verify` has against the checkpoint; the usual comparison with the
original; and the KL of the predictions from those of the plain checkpoint, once as models run on
the device and once by the reference, which rounds no activations. Results of another device than
the CPU, or of another --model, go to --output.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import markdown
import torch
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.execution.device import choose_device
from aphrodite_engine.inspecting.facts import inspect_checkpoint
from aphrodite_engine.loading.model import OpenModel, open_model, weights_of
from aphrodite_engine.loading.source import find_model_path
from aphrodite_engine.quantizing.observed import Projection
from aphrodite_engine.quantizing.output import Output
from aphrodite_engine.quantizing.side_files import plain_dtype, write_side_files
from aphrodite_engine.quantizing.survey import REST, Survey, survey_model
from aphrodite_kernels.backend import Backend, backend_for
from aphrodite_kernels.backends import reference
from aphrodite_quant import Weights
from encoders import aqlm, awq, bitnet, exl2, marlin, quip, quip_sharp, squeezellm, vptq
from encoders.shared import Encoded, Encoder
from predictions import RESULTS, Predictions, load, record, size
from torch import Tensor

ENCODERS: dict[str, Encoder] = {
    name: encoder
    for family in (aqlm, vptq, quip, quip_sharp, squeezellm, exl2, marlin, bitnet, awq)
    for name, encoder in family.ENCODERS.items()
}
FILE = RESULTS / "encoded.json"
PIECES = 2
"""Of the held-out text, in the comparison with the plain checkpoint; by the reference, one."""


@dataclass(frozen=True, slots=True)
class Original:
    """The model whose weights are encoded."""

    source: OpenModel
    weights: Weights
    survey: Survey

    @classmethod
    def open(cls, path: Path) -> "Original":
        source = open_model(path)
        weights = weights_of(source, source.checkpoint.store)
        survey = survey_model(source, weights, _plainest(torch.device("cpu")))
        return cls(source, weights, survey)

    def matrix(self, module: str, shape: tuple[int, int]) -> Tensor:
        return self.weights.packed(module, shape).dequantize()

    def vectors(self, block: str) -> dict[str, Tensor]:
        found = self.survey.vectors_in(block)
        return {name: self.weights.tensor(name, found[name]).to(self.dtype) for name in found}

    @property
    def dtype(self) -> torch.dtype:
        return plain_dtype(self.source)


@dataclass(frozen=True, slots=True)
class Written:
    """A model in a format, and the same model plain."""

    path: Path
    decoded: Path
    encoded: Mapping[str, tuple[int, int]]
    error: float
    """Of the weights that are encoded, relative to their root mean square."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ENCODERS))
    parser.add_argument("--folder", type=Path, default=Path("quality-checkpoints"))
    parser.add_argument("--pieces", type=int, default=8, help="of the held-out text")
    parser.add_argument("--model", type=Path, help="other weights than those of the demo model")
    parser.add_argument("--device", default="cpu", help="that models run on; they are encoded here")
    parser.add_argument("--output", type=Path, default=FILE, help="a JSON file, rows are added to")
    parser.add_argument("--table", action="store_true", help="print what was measured as Markdown")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.output.read_text())))
        return
    if options.output == FILE and (options.model is not None or options.device != "cpu"):
        parser.error("results of another model or device need an --output of their own")
    path = options.model or find_model_path("demo", None, None)
    backend = backend_for(choose_device(options.device))
    original, predicted = Original.open(path), Predictions.of_text(path, options.pieces, backend)
    named = ["--device", options.device] if options.device != "cpu" else []
    named += ["--model", "PATH"] if options.model is not None else []
    for name in options.names or ENCODERS:
        written = write(original, ENCODERS[name], options.folder / name)
        row = measure(original, predicted, written)
        record(options.output, name, row, ["benchmarks/quality/encoded.py", name, *named])


@torch.inference_mode()
def write(original: Original, encoder: Encoder, path: Path) -> Written:
    """Both checkpoints of a format."""
    decoded = path.with_name(f"{path.name}-decoded")
    blocks, lost, total = original.survey.blocks, 0.0, 0.0
    outputs = [Output.open(each, blocks, {}, overwrite=True) for each in (path, decoded)]
    encoded: dict[str, tuple[int, int]] = {}
    for number, block in enumerate(blocks):
        made, plain = original.vectors(block), original.vectors(block)
        for module, parts in modules(encoder, block, original.survey.projections_in(block)).items():
            weights = [original.matrix(one.module, one.shape) for one in parts]
            if encoder.blocks is not None and number >= encoder.blocks:
                named = zip(parts, weights, strict=True)
                left = {f"{one.module}.weight": each.to(original.dtype) for one, each in named}
                made, plain = made | left, plain | left
                continue
            found = encoded_as(encoder, weights)
            made |= {f"{module}.{leaf}": tensor for leaf, tensor in found.tensors.items()}
            meant = found.decoded.split([len(weight) for weight in weights])
            for one, weight, decoded_part in zip(parts, weights, meant, strict=True):
                plain[f"{one.module}.weight"] = decoded_part.contiguous()
                lost += float((decoded_part - weight).square().sum())
                total += float(weight.square().sum())
                encoded[one.module] = one.shape
        if block == REST:
            for module, shape in original.survey.matrices.items():
                made[f"{module}.weight"] = original.matrix(module, shape).to(original.dtype)
            plain = made
        for output, tensors in zip(outputs, (made, plain), strict=True):
            output.write(block, tensors, [])
    left = [one.module for one in original.survey.projections if one.module not in encoded]
    stated = {encoder.stated_in: encoder.config(encoded, left)}
    for output, config in zip(outputs, (stated, {}), strict=True):
        write_side_files(original.source, output, config, {})
        output.close()
    return Written(path, decoded, encoded, math.sqrt(lost / total))


def modules(
    encoder: Encoder, block: str, projections: Sequence[Projection]
) -> dict[str, list[Projection]]:
    """Of a block: what is stored under which name, fused or alone."""
    known = {one.module: one for one in projections}
    found: dict[str, list[Projection]] = {}
    for name, parts in encoder.fused.items():
        place = f"{block}.{name}".rpartition(".")[0]
        if all(f"{place}.{part}" in known for part in parts):
            found[f"{block}.{name}"] = [known.pop(f"{place}.{part}") for part in parts]
    return found | {module: [one] for module, one in known.items()}


def encoded_as(encoder: Encoder, weights: Sequence[Tensor]) -> Encoded:
    """Matrices of one module."""
    if len(weights) == 1:
        return encoder.encode(weights[0])
    assert encoder.encode_fused is not None, "it has modules that hold several"
    return encoder.encode_fused(weights)


def measure(original: Original, predicted: Predictions, written: Written) -> dict[str, object]:
    backend = predicted.backend
    loaded = load(written.path, backend)
    meant = Predictions.of(written.decoded, predicted.pieces[:PIECES], backend)
    plainest = _plainest(backend.device)
    exact = Predictions.of(written.decoded, predicted.pieces[:1], plainest)
    return {
        "blocks": len({one.rpartition(".layers.")[2].split(".")[0] for one in written.encoded}),
        "weight_error": written.error,
        "largest_difference": difference(written, original.survey.projections),
        "problems": problems(written.path, backend.device),
        **predicted.compare(loaded),
        "divergence_from_decoded": meant.compare(loaded)["divergence"],
        "divergence_from_decoded_by_the_reference": exact.compare(
            load(written.path, exact.backend)
        )["divergence"],
        "megabytes": size(written.path) / 1e6,
    }


def problems(path: Path, device: torch.device) -> str:
    """What `inspect --verify` has against a checkpoint on a device; empty: nothing."""
    config = EngineConfig(model=str(path), device=str(device))
    return "; ".join(inspect_checkpoint(path, config, lambda done, total: None).problems)


def difference(written: Written, projections: tuple[Projection, ...]) -> float:
    """The largest between what is read of a matrix and what was meant, relative to its size."""
    sources = [open_model(path) for path in (written.path, written.decoded)]
    read, meant = (weights_of(source, source.checkpoint.store) for source in sources)
    largest = 0.0
    for one in projections:
        expected = meant.packed(one.module, one.shape).dequantize()
        found = read.packed(one.module, one.shape).dequantize()
        size = float(expected.square().mean().sqrt())
        largest = max(largest, float((found - expected).abs().max()) / size)
    return largest


def _plainest(device: torch.device) -> Backend:
    return reference.create(device, threads=None, dtype=torch.float32)


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """As Markdown, and what was largest of all."""
    kinds = ("divergence", "divergence_from_decoded")
    cells = [
        [
            name,
            f"{row['blocks']}",
            f"{row['weight_error']:.3f}",
            markdown.perplexity(row["perplexity"]),
            *(f"{max(0.0, row[kind]):.4f}" for kind in kinds),
            f"{row['megabytes']:.0f}",
        ]
        for name, row in sorted(rows.items())
    ]
    titles = ["format", "blocks", "error of weights", "perplexity", "KL", "KL from the decoded"]
    most = {
        kind: max(abs(row[kind]) for row in rows.values())
        for kind in ("largest_difference", "divergence_from_decoded_by_the_reference")
    }
    return f"{markdown.table([*titles, 'MB'], cells)}\n\n{json.dumps(most)}"


if __name__ == "__main__":
    main()
