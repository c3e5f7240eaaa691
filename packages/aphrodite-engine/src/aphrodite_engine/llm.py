"""Offline generation: the same engine, in this process.

>>> from aphrodite_engine import LLM
>>> llm = LLM("demo")
>>> llm.generate("The capital of France is", {"max_tokens": 8})[0].text
"""

import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import msgspec
from tqdm import tqdm

from aphrodite_engine.beams import TextBeams, all_choices, ranked
from aphrodite_engine.build import build_engine
from aphrodite_engine.collector import newcomers_only
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.engine import Engine
from aphrodite_engine.errors import InternalError, RequestError
from aphrodite_engine.info import ModelInfo
from aphrodite_engine.loading.generation_config import MODEL, sampling_defaults
from aphrodite_engine.loading.text import TextModel, load_text
from aphrodite_engine.outputs import RequestOutput
from aphrodite_engine.request import EngineRequest, FinishReason
from aphrodite_engine.sampling.explanation import Explanation
from aphrodite_engine.sampling.params import SamplingParams, params_from
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs
from aphrodite_engine.text.automaton import Release, TextAutomaton
from aphrodite_engine.text.output import TextOutput

Prompt: TypeAlias = str | list[int]
Conversation: TypeAlias = Sequence[Mapping[str, Any]]
Asked: TypeAlias = SamplingParams | Mapping[str, Any]
"""Limits and samplers as the fields of a request, by the names of the HTTP API, or made already."""
_log = logging.getLogger(__name__)


class Completion(msgspec.Struct, kw_only=True):
    """One completion of a prompt."""

    text: str = ""
    tokens: list[int] = []
    logprobs: list[TokenLogprobs] = []
    explanations: list[Explanation] = []
    """What the sampler did for each token drawn, those that a stop string cut off included."""
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None

    def append(self, news: TextOutput) -> None:
        """Take what came."""
        self.text += news.text
        self.tokens += news.tokens
        self.logprobs += news.logprobs
        self.explanations += news.explanations
        self.finish_reason = news.finish_reason
        self.stop_reason = news.stop_reason


class Generation(msgspec.Struct, kw_only=True):
    """A prompt and its completions."""

    prompt: str
    prompt_tokens: list[int]
    completions: list[Completion]
    prompt_logprobs: list[TokenLogprobs] = []

    @property
    def text(self) -> str:
        """Of the first completion."""
        return self.completions[0].text


class _Job:
    """One prompt under way."""

    def __init__(self, generation: Generation, automata: list[TextAutomaton]) -> None:
        self.generation = generation
        self._automata = automata
        self._live = set(range(len(automata)))

    def take(self, output: RequestOutput, engine: Engine) -> None:
        """Read an output, and tell the engine what its text demands."""
        if output.choice not in self._live:
            return
        automaton = self._automata[output.choice]
        text = automaton.feed(output)
        match automaton.demand:
            case None:
                pass
            case Release():
                engine.abort(output.id, output.choice)
            case back:
                engine.rewind(output.id, output.choice, back.kept, back.banned)
        self.generation.completions[output.choice].append(text)
        self.generation.prompt_logprobs += text.prompt_logprobs
        if text.finish_reason is not None:
            self._live.discard(output.choice)

    @property
    def done(self) -> bool:
        return not self._live


class LLM:
    """A model in memory."""

    def __init__(self, model: str, *, generation_config: str = MODEL, **options: Any) -> None:
        """Load it.

        Args:
            model: as in `EngineConfig`.
            generation_config: sampling defaults of requests that are no beam search: `auto`, those
                of the model's generation_config.json or of its GGUF file; `none`; or the path of a
                generation_config.json or of its folder. They fill the fields that a request leaves
                out; one that it sets stays as it is, be it off. Stages made by hand do not tell
                which of their fields were set: the defaults fill those that stand at their own
                defaults, except in a stage all of whose fields stand there, such as
                `Temperature()`.
            options: further fields of `EngineConfig`.

        Raises:
            EngineError, QuantError, KernelError: see loading/errors.py.
        """
        config = EngineConfig(model=model, **options)
        text = load_text(config, _log.info)
        defaults = sampling_defaults(generation_config, text.path)
        local = msgspec.structs.replace(config, model=str(text.path))
        engine, info = build_engine(local, sorted(text.tokenizer.end_ids), _log.info)
        self._hold(engine, msgspec.structs.replace(info, name=model), text, defaults)

    def _hold(
        self, engine: Engine, info: ModelInfo, text: TextModel, defaults: Mapping[str, Any]
    ) -> None:
        """Take an engine that is ready, wherever it comes from."""
        self._engine, self.info = engine, info
        self.tokenizer, self.template = text.tokenizer, text.template
        self._defaults = defaults
        self._ids = itertools.count()

    @newcomers_only()
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: Asked | Sequence[Asked] | None = None,
        *,
        progress: bool = True,
    ) -> list[Generation]:
        """Complete prompts (texts or token ids), batched, in the order given.

        Args:
            prompts: one prompt or several.
            params: for all prompts, or one for each: a request's fields, such as
                `{"max_tokens": 16, "seed": 1, "min_p": 0.05}`, or `SamplingParams`.
            progress: show a bar on standard error.

        Raises:
            RequestError: a prompt or its parameters are unusable; nothing was generated.
            InternalError: a request failed inside the engine.
        """
        several = _as_prompts(prompts)
        each = self._complete(params, len(several))
        drawn = [place for place, one in enumerate(each) if not one.use_beam_search]
        made = self._draw([several[i] for i in drawn], [each[i] for i in drawn], progress=progress)
        found = dict(zip(drawn, made, strict=True))
        for place in sorted(set(range(len(several))) - found.keys()):
            found[place] = self._search(several[place], each[place])
        return [found[place] for place in range(len(several))]

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        params: Asked | Sequence[Asked] | None = None,
        *,
        progress: bool = True,
    ) -> list[Generation]:
        """Answer one conversation or several, each a list of {role, content}."""
        single = bool(messages) and isinstance(messages[0], Mapping)
        conversations = cast("Sequence[Conversation]", [messages] if single else messages)
        prompts = [self.template.tokens(conversation) for conversation in conversations]
        return self.generate(prompts, params, progress=progress)

    def close(self) -> None:
        """Free the device."""
        self._engine.close()

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _complete(self, params: Asked | Sequence[Asked] | None, count: int) -> list[SamplingParams]:
        """Of each prompt, with defaults filled in; the same object for all is filled once."""
        if params is None or isinstance(params, SamplingParams | Mapping):
            return self._complete([params or {}], 1) * count
        if len(params) != count:
            raise RequestError(f"{count} prompts came with {len(params)} sampling parameters")
        return [self._filled(one).resolve(self.tokenizer) for one in params]

    def _filled(self, asked: Asked) -> SamplingParams:
        if isinstance(asked, SamplingParams):
            return asked.completed(self._defaults)
        return params_from(asked, self._defaults)

    def _draw(
        self, prompts: Sequence[Prompt], asked: Sequence[SamplingParams], *, progress: bool
    ) -> list[Generation]:
        each = [all_choices(one) if one.width > one.n else one for one in asked]
        jobs = {str(next(self._ids)): self._job(p, q) for p, q in zip(prompts, each, strict=True)}
        self._finish(jobs, each, progress=progress)
        generations = [job.generation for job in jobs.values()]
        for generation, one in zip(generations, asked, strict=True):
            if one.width > one.n:
                _keep_best(generation, one)
        return generations

    def _finish(
        self, jobs: dict[str, _Job], params: Sequence[SamplingParams], *, progress: bool
    ) -> None:
        try:
            self._enqueue(jobs, params)
            for _ in self._run(jobs, progress=progress):
                pass
        except BaseException:
            for request_id in jobs:
                self._engine.abort(request_id)
            raise

    def _search(self, prompt: Prompt, params: SamplingParams) -> Generation:
        """By beam search; every token of every beam is a job of its own."""
        whole = self._job(prompt, params).generation
        beams = TextBeams(self.tokenizer, params, whole.prompt_tokens, self.info.max_model_len)
        while not beams.search.done:
            wanted, asked = beams.search.wanted, beams.search.steps
            jobs = {
                str(next(self._ids)): self._job(*each) for each in zip(wanted, asked, strict=True)
            }
            self._finish(jobs, asked, progress=False)
            steps = [job.generation for job in jobs.values()]
            scores = [one.completions[0].logprobs[0] for one in steps]
            whole.prompt_logprobs += steps[0].prompt_logprobs
            beams.advance(scores)
        whole.completions = [Completion() for _ in beams.search.best]
        for completion, text in zip(whole.completions, beams.texts(), strict=True):
            completion.append(text)
        whole.prompt = self._text_of(whole)
        return whole

    def _job(self, prompt: Prompt, params: SamplingParams) -> _Job:
        text = prompt if isinstance(prompt, str) else ""
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        self.tokenizer.check(tokens)
        completions = [Completion() for _ in range(params.n)]
        automata = TextAutomaton.each(self.tokenizer, params, tokens)
        generation = Generation(prompt=text, prompt_tokens=tokens, completions=completions)
        return _Job(generation, automata)

    def _text_of(self, generation: Generation) -> str:
        """Of a prompt that came as tokens."""
        return generation.prompt or self.tokenizer.decode(generation.prompt_tokens)

    def _enqueue(self, jobs: dict[str, _Job], params: Sequence[SamplingParams]) -> None:
        for (request_id, job), each in zip(jobs.items(), params, strict=True):
            self._engine.add(
                EngineRequest(
                    id=request_id,
                    prompt=job.generation.prompt_tokens,
                    params=each,
                    arrival=time.monotonic(),
                )
            )

    def _run(self, jobs: dict[str, _Job], *, progress: bool) -> Iterator[None]:
        unread, unfinished = set(jobs), set(jobs)
        with tqdm(total=len(jobs), desc="Generating", unit="prompt", disable=not progress) as bar:
            while unfinished:
                for output in self._engine.step():
                    job = jobs[output.id]
                    if output.error is not None:
                        raise InternalError(output.error)
                    job.take(output, self._engine)
                    if output.id in unread:  # the device is at work on what follows
                        job.generation.prompt = self._text_of(job.generation)
                        unread.discard(output.id)
                    if job.done and output.id in unfinished:
                        unfinished.discard(output.id)
                        bar.update()
                yield


def _keep_best(generation: Generation, params: SamplingParams) -> None:
    """The `n` best of `best_of` completions, best first."""
    completions = generation.completions
    places = ranked([one.logprobs for one in completions], params.n)
    generation.completions = [completions[place] for place in places]
    if params.logprobs is None:
        for completion in generation.completions:
            completion.logprobs = []


def _as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    several = list(prompts)
    if several and all(isinstance(item, int) for item in several):
        return [several]  # pyright: ignore[reportReturnType] - one prompt of token ids
    return several  # pyright: ignore[reportReturnType]
