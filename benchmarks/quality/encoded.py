"""Formats that no tool at hand can write: whole models in them, and whether they are read as meant.

    python3 -m uv run python benchmarks/quality/encoded.py [NAME ...] [--folder DIR]
    python3 -m uv run python benchmarks/quality/encoded.py --table

The demo model's weights are put into each format by the plainest way there is (`encoders/`): the
nearest code, no calibration, nothing tuned. So the numbers say little of a format; they show that
a model of it runs, and runs as it should. For the encoder also decodes its own codes, without this
engine, and a plain checkpoint is made of what it finds. A row of the results has the error of the
weights; the largest difference between what is read and what was meant, in units of a matrix's root
mean square; what `inspect --verify` has against the checkpoint; the usual comparison with the
original; and the KL of the predictions from those of the plain checkpoint, once as models run on
this CPU and once by the reference, which rounds no activations.
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from answers import verified
from aphrodite_engine.loading.model import OpenModel, open_model, weights_of
from aphrodite_engine.loading.source import find_model_path
from aphrodite_engine.quantizing.observed import Projection
from aphrodite_engine.quantizing.output import Output
from aphrodite_engine.quantizing.side_files import plain_dtype, write_side_files
from aphrodite_engine.quantizing.survey import REST, Survey, survey_model
from aphrodite_kernels.backend import backend_for
from aphrodite_kernels.backends import reference
from encoders import aqlm, awq, bitnet, exl2, marlin, quip, squeezellm, vptq
from encoders.shared import Encoder
from predictions import RESULTS, Predictions, load, record, size
from torch import Tensor

ENCODERS: dict[str, Encoder] = {
    name: encoder
    for family in (aqlm, vptq, quip, squeezellm, exl2, marlin, bitnet, awq)
    for name, encoder in family.ENCODERS.items()
}
FILE = RESULTS / "encoded.json"
PIECES = 2
"""Of the held-out text, in the comparison with the plain checkpoint; by the reference, one."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo model, whose weights are encoded."""

    source: OpenModel
    survey: Survey

    @classmethod
    def open(cls) -> "Demo":
        source = open_model(find_model_path("demo", None, None))
        weights = weights_of(source, source.checkpoint.store)
        return cls(source, survey_model(source, weights, backend_for(torch.device("cpu"))))

    def matrix(self, module: str, shape: tuple[int, int]) -> Tensor:
        weights = weights_of(self.source, self.source.checkpoint.store)
        return weights.packed(module, shape).dequantize()

    def vectors(self, block: str) -> dict[str, Tensor]:
        weights, dtype = weights_of(self.source, self.source.checkpoint.store), self.dtype
        found = self.survey.vectors_in(block)
        return {name: weights.tensor(name, shape).to(dtype) for name, shape in found.items()}

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
    parser.add_argument("--table", action="store_true", help="print what was measured as Markdown")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(FILE.read_text())))
        return
    demo, original = Demo.open(), Predictions.of_demo(options.pieces)
    for name in options.names or ENCODERS:
        written = write(demo, ENCODERS[name], options.folder / name)
        row = measure(demo, original, written)
        record(FILE, name, row, ["benchmarks/quality/encoded.py", name])


@torch.inference_mode()
def write(demo: Demo, encoder: Encoder, path: Path) -> Written:
    """Both checkpoints of a format."""
    decoded = path.with_name(f"{path.name}-decoded")
    blocks, lost, total = demo.survey.blocks, 0.0, 0.0
    outputs = [Output.open(each, blocks, {}, overwrite=True) for each in (path, decoded)]
    encoded: dict[str, tuple[int, int]] = {}
    for number, block in enumerate(blocks):
        made, plain = demo.vectors(block), demo.vectors(block)
        for one in demo.survey.projections_in(block):
            weight = demo.matrix(one.module, one.shape)
            if encoder.blocks is not None and number >= encoder.blocks:
                made[f"{one.module}.weight"] = plain[f"{one.module}.weight"] = weight.to(demo.dtype)
                continue
            found = encoder.encode(weight)
            made |= {f"{one.module}.{leaf}": tensor for leaf, tensor in found.tensors.items()}
            plain[f"{one.module}.weight"] = found.decoded
            lost += float((found.decoded - weight).square().sum())
            total += float(weight.square().sum())
            encoded[one.module] = one.shape
        if block == REST:
            for module, shape in demo.survey.matrices.items():
                made[f"{module}.weight"] = demo.matrix(module, shape).to(demo.dtype)
            plain = made
        for output, tensors in zip(outputs, (made, plain), strict=True):
            output.write(block, tensors, [])
    left = [one.module for one in demo.survey.projections if one.module not in encoded]
    for output, config in zip(outputs, (encoder.config(encoded, left), {}), strict=True):
        write_side_files(demo.source, output, config)
        output.close()
    return Written(path, decoded, encoded, math.sqrt(lost / total))


def measure(demo: Demo, original: Predictions, written: Written) -> dict[str, object]:
    loaded = load(written.path, original.backend)
    meant = Predictions.of(written.decoded, original.pieces[:PIECES])
    plainest = reference.create(torch.device("cpu"), threads=None, dtype=None)
    exact = Predictions.of(written.decoded, original.pieces[:1], plainest)
    return {
        "blocks": len({one.rpartition(".layers.")[2].split(".")[0] for one in written.encoded}),
        "weight_error": written.error,
        "largest_difference": difference(written, demo.survey.projections),
        "problems": verified(str(written.path)),
        **original.compare(loaded),
        "divergence_from_decoded": meant.compare(loaded)["divergence"],
        "divergence_from_decoded_by_the_reference": exact.compare(
            load(written.path, exact.backend)
        )["divergence"],
        "megabytes": size(written.path) / 1e6,
    }


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


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """As Markdown, and what was largest of all."""
    titles = [
        "format",
        "blocks",
        "error of weights",
        "perplexity",
        "KL",
        "KL from the decoded",
        "MB",
    ]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for name, row in sorted(rows.items()):
        perplexity = row["perplexity"]
        cells = [name, f"{row['blocks']}", f"{row['weight_error']:.3f}"]
        cells += [f"{perplexity:.3f}" if perplexity < 100 else f"{perplexity:.0f}"]
        cells += [
            f"{max(0.0, row[kind]):.4f}" for kind in ("divergence", "divergence_from_decoded")
        ]
        lines.append("| " + " | ".join([*cells, f"{row['megabytes']:.0f}"]) + " |")
    most = {
        kind: max(abs(row[kind]) for row in rows.values())
        for kind in ("largest_difference", "divergence_from_decoded_by_the_reference")
    }
    return "\n".join([*lines, "", json.dumps(most)])


if __name__ == "__main__":
    main()
