"""From a model to a quantised checkpoint of it."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from math import prod
from pathlib import Path

import torch
from aphrodite_kernels.backend import Backend
from aphrodite_kernels.backends.cpu.cores import physical_cores
from aphrodite_quant import Quantizer, find_quantizer

from aphrodite_engine.errors import ConfigError
from aphrodite_engine.loading.model import weights_of
from aphrodite_engine.loading.weights import RecordingStore
from aphrodite_engine.quantizing.blocks import BlockWriter, quantize_alone, reader_of
from aphrodite_engine.quantizing.calibration import quantize_by_calibration
from aphrodite_engine.quantizing.corpus import Corpus
from aphrodite_engine.quantizing.gguf import FORMAT as GGUF
from aphrodite_engine.quantizing.gguf import write_gguf_model
from aphrodite_engine.quantizing.job import Job, Progress
from aphrodite_engine.quantizing.output import Output
from aphrodite_engine.quantizing.report import Report
from aphrodite_engine.quantizing.side_files import plain_dtype, write_side_files
from aphrodite_engine.quantizing.subject import Subject
from aphrodite_engine.quantizing.survey import REST, Survey, survey_model

_PLAIN = ("lm_head",)
"""Linear modules that stay as they are; an embedding is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Everything that is known before the first weight is read."""

    subject: Subject
    survey: Survey
    quantizer: Quantizer
    corpus: Corpus | None
    """None: nothing is run."""


def quantize_model(job: Job, progress: Progress) -> Report:
    """Write the checkpoint; what a killed run of the same job finished is kept, unless it is GGUF.

    Raises:
        EngineError, QuantError, KernelError: see loading/errors.py.
    """
    if job.format_name == GGUF:
        return write_gguf_model(job, progress)
    plan = _plan(job)
    identity = job.identity(plan.subject.path, calibrated=plan.quantizer.calibrated)
    output = Output.open(Path(job.output), plan.survey.blocks, identity, overwrite=job.overwrite)
    _check_room(plan, output)
    resumed = len(output.finished)
    with _threads(plan.subject.backend):
        _write(plan, output, progress)
    records = tuple(record for block in output.finished.values() for record in block)
    size = output.close()
    return plan.subject.report(output.path, records, size, plan.corpus, progress, resumed=resumed)


def _plan(job: Job) -> _Plan:
    file = find_quantizer(job.format_name)
    subject = Subject.open(job)
    weights = weights_of(subject.source, subject.source.checkpoint.store)
    survey = survey_model(subject.source, weights, subject.backend)
    shapes = {one.shape for one in survey.projections}
    quantizer = file.quantizer(job.options, shapes).on(subject.backend)
    corpus = subject.corpus(calibrated=quantizer.calibrated)
    return _Plan(subject=subject, survey=survey, quantizer=quantizer, corpus=corpus)


def _write(plan: _Plan, output: Output, progress: Progress) -> None:
    """All files of the checkpoint but its index."""
    source, survey, done = plan.subject.source, plan.survey, count(1)
    recorded = RecordingStore(source.checkpoint.store, lambda read, total: None)
    writer = BlockWriter(
        weights=weights_of(source, recorded),
        quantizer=plan.quantizer,
        read=reader_of(output.path, plan.quantizer, _PLAIN),
        survey=survey,
        output=output,
        dtype=plain_dtype(source),
        device=plan.subject.backend.device,
        progress=lambda: progress("quantising", next(done), len(survey.projections)),
    )
    if plan.quantizer.calibrated:
        assert plan.corpus is not None, "planned with one"
        quantize_by_calibration(source, writer, plan.subject.backend, plan.corpus.calibration)
    else:
        quantize_alone(writer)
    writer.write_rest()
    recorded.check_all_read(tied_head=source.config.tied)
    quantization = plan.quantizer.config(_PLAIN)
    beside = plan.quantizer.side_files(quantization, output.tensors())
    write_side_files(source, output, {"quantization_config": quantization}, beside)


def _check_room(plan: _Plan, output: Output) -> None:
    """ConfigError if the disk has not the room for what is left to write."""
    survey, itemsize = plan.survey, plain_dtype(plan.subject.source).itemsize
    bits = plan.quantizer.bits_per_weight
    left = [block for block in survey.blocks if block not in output.finished]
    parts = [one for block in left for one in survey.projections_in(block)]
    needed = sum(prod(one.shape) * bits / 8 for one in parts)
    needed += sum(prod(shape) * itemsize for shape in survey.matrices.values() if REST in left)
    free = shutil.disk_usage(output.path).free
    if free < needed:
        raise ConfigError(
            f"{output.path} needs about {needed / 1e9:.2f} GB, but its disk has {free / 1e9:.2f} "
            "GB left; free some, or name an --output elsewhere"
        )


@contextmanager
def _threads(backend: Backend) -> Generator[None]:
    """PyTorch's own threads while weights are quantised: a backend on the CPU leaves it one."""
    if backend.device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(physical_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)
