"""What every way to quantise a model begins and ends with: the model, opened, and the report."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from aphrodite_kernels.backend import Backend, backend_for

from aphrodite_engine.config import EngineConfig
from aphrodite_engine.execution.device import choose_device
from aphrodite_engine.loading.model import OpenModel, open_model
from aphrodite_engine.loading.source import find_model_path
from aphrodite_engine.loading.text import TextModel, load_text
from aphrodite_engine.quantizing.corpus import Corpus, read_corpus
from aphrodite_engine.quantizing.job import Job, Progress
from aphrodite_engine.quantizing.perplexity import compare
from aphrodite_engine.quantizing.report import ModuleRecord, Report


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model of a job."""

    job: Job
    path: Path
    source: OpenModel
    backend: Backend
    started: float
    """By the monotonic clock."""

    @classmethod
    def open(cls, job: Job) -> Self:
        """The model that the job names, on the device that it names."""
        started = time.monotonic()
        path = find_model_path(job.model, job.revision, None)
        return cls(
            job=job,
            path=path,
            source=open_model(path),
            backend=backend_for(choose_device(job.device)),
            started=started,
        )

    @cached_property
    def text(self) -> TextModel:
        """Its tokenizer, and what comes with it."""
        return load_text(EngineConfig(model=str(self.path)), lambda line: None)

    def corpus(self, *, calibrated: bool) -> Corpus | None:
        """The text of the job; None if it is run neither for calibration nor to measure."""
        job = self.job
        if not calibrated and not job.evaluate:
            return None
        return read_corpus(job.calibration, self.text.tokenizer, job.samples, job.length)

    def report(
        self,
        output: Path,
        modules: Sequence[ModuleRecord],
        written: int,
        corpus: Corpus | None,
        progress: Progress,
        *,
        resumed: int = 0,
    ) -> Report:
        """What came of it, `written` bytes of weights among them, measured if the job says so."""
        store, perplexity = self.source.checkpoint.store, None
        if corpus is not None and self.job.evaluate:
            perplexity = compare(self.path, output, self.backend, corpus.held_out, progress)
        return Report(
            model=self.job.model,
            format=self.job.format,
            output=str(output),
            modules=tuple(modules),
            bytes_before=sum(store.info(name).nbytes for name in store.names()),
            bytes_after=written,
            resumed=resumed,
            perplexity=perplexity,
            seconds=time.monotonic() - self.started,
        )
