"""A model becomes one GGUF file, in the types of a recipe.

With a calibration text the inputs of every projection are weighed by what the text brings there.
A run that is stopped leaves nothing and begins again: unlike a directory, the file cannot be half
there.
"""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from aphrodite_quant.ggml.recipe import Recipe, find_recipe
from aphrodite_quant.ggml.write import Written, size_of, write_model
from torch import Tensor

from aphrodite_engine.errors import ConfigError
from aphrodite_engine.loading.model import weights_of
from aphrodite_engine.quantizing.corpus import Corpus
from aphrodite_engine.quantizing.gguf_source import GgufContents, gguf_contents
from aphrodite_engine.quantizing.importance import importance_of
from aphrodite_engine.quantizing.job import Job, Progress
from aphrodite_engine.quantizing.report import ModuleRecord, Report
from aphrodite_engine.quantizing.subject import Subject

FORMAT = "gguf"
_DEFAULT = "q4_k_m"
_WEIGHT = ".weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Everything that is known before the first weight is read."""

    subject: Subject
    output: Path
    contents: GgufContents
    recipe: Recipe
    corpus: Corpus | None
    """None: nothing is run."""


def write_gguf_model(job: Job, progress: Progress) -> Report:
    """Write the file.

    Raises:
        EngineError, QuantError, KernelError: see loading/errors.py.
    """
    plan = _plan(job)
    _check_room(plan)
    written = write_model(
        plan.output,
        plan.contents.metadata,
        plan.contents.tensors,
        plan.recipe,
        importance=_importance(plan, progress),
        progress=partial(progress, "quantising"),
    )
    records = [_record(one) for one in written if one.error]
    size = sum(one.bytes for one in written)
    return plan.subject.report(plan.output, records, size, plan.corpus, progress)


def _plan(job: Job) -> _Plan:
    job.options.only(FORMAT, "variant")
    recipe = find_recipe(job.options.variant or _DEFAULT)
    output = Path(job.output)
    if output.suffix != ".gguf" or output.is_dir():
        raise ConfigError(f"--output {output}: the format gguf writes a file; name one in .gguf")
    if output.exists() and not job.overwrite:
        raise ConfigError(f"{output} exists; remove it, or add --overwrite")
    named = msgspec.structs.replace(job, format=f"{FORMAT}:{recipe.name}")
    subject = Subject.open(named)
    if output.exists() and output.samefile(subject.path):
        raise ConfigError(f"{output} is the model itself; name another --output")
    return _Plan(
        subject=subject,
        output=output,
        contents=gguf_contents(subject.source, subject.text, subject.backend),
        recipe=recipe,
        corpus=subject.corpus(calibrated=job.calibration is not None),
    )


def _check_room(plan: _Plan) -> None:
    """ConfigError if there is no such directory, or its disk has not the room."""
    if not plan.output.parent.is_dir():
        raise ConfigError(f"--output {plan.output}: its directory does not exist; make it first")
    needed = size_of(plan.output, plan.contents.metadata, plan.contents.tensors, plan.recipe)
    free = shutil.disk_usage(plan.output.parent).free
    if free < needed:
        raise ConfigError(
            f"{plan.output} needs {needed / 1e9:.2f} GB, but its disk has {free / 1e9:.2f} GB "
            "left; free some, or name an --output elsewhere"
        )


def _importance(plan: _Plan, progress: Progress) -> dict[str, Tensor]:
    """By GGUF name; empty without a calibration text of the user's."""
    subject = plan.subject
    if subject.job.calibration is None or plan.corpus is None:
        return {}
    progress("weighing inputs", 0, 1)
    weights = weights_of(subject.source, subject.source.checkpoint.store)
    found = importance_of(subject.source, weights, subject.backend, plan.corpus.calibration)
    progress("weighing inputs", 1, 1)
    name = plan.contents.stored_name
    return {f"{name(module)}{_WEIGHT}": squares for module, squares in found.items()}


def _record(one: Written) -> ModuleRecord:
    return ModuleRecord(
        module=one.name.removesuffix(_WEIGHT),
        shape=one.matrix,
        error=one.error,
        output_error=None,
    )
