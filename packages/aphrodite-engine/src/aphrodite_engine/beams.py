"""Beam search: the likeliest completions instead of drawn ones.

`BeamSearch` does no work of its own: it says which texts of tokens want one more token, is told the
likeliest ones of each, and knows when no better completion is to be expected. Whoever drives it
(`LLM`, `AsyncEngine`) asks the engine for each as a request of one token, whose prompt lies in the
prefix cache. Scores and their stopping rules are those of transformers' `generate`.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from aphrodite_engine.errors import ContextLengthError
from aphrodite_engine.outputs import RequestOutput
from aphrodite_engine.request import FinishReason
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs
from aphrodite_engine.text.automaton import TextAutomaton
from aphrodite_engine.text.output import TextOutput
from aphrodite_engine.text.tokenizer import Tokenizer

_IMPOSSIBLE = -9999.0  # what log-probabilities say for minus infinity


@dataclass(frozen=True, slots=True)
class Beam:
    """A completion, as far as it has come."""

    tokens: tuple[int, ...] = ()
    scores: tuple[TokenLogprobs, ...] = ()
    """Aligned with `tokens`."""
    total: float = 0.0
    """Sum of the log-probabilities of its tokens."""
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None

    def score(self, length_penalty: float) -> float:
        """What completions are compared by; higher is better. ZeroDivisionError without tokens."""
        return self.total / float(len(self.tokens)) ** length_penalty


class BeamSearch:
    """One prompt's search."""

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        context: int,
        end_tokens: frozenset[int],
        ends: Callable[[Sequence[int]], bool] = lambda tokens: False,
    ) -> None:
        """`context`: most tokens of prompt and completion; `ends`: tokens hold a stop string.

        Raises:
            ContextLengthError: prompt and completion do not fit.
        """
        self._params = params
        self._prompt = list(prompt)
        self._max_tokens = _length(params, len(prompt), context)
        self._end_tokens = end_tokens
        own = frozenset(params.stop_token_ids)
        self._stops = own if params.ignore_eos else own | end_tokens
        self._ends = ends
        self._live = [Beam()]
        self._finished: list[Beam] = []
        self._length = 0
        self._done = False

    @property
    def done(self) -> bool:
        """Nothing is wanted any more."""
        return self._done

    @property
    def wanted(self) -> list[list[int]]:
        """Prompts whose likeliest next tokens `advance` wants to know."""
        return [] if self._done else [[*self._prompt, *beam.tokens] for beam in self._live]

    @property
    def steps(self) -> list[SamplingParams]:
        """How to ask for one token of each wanted prompt; the token itself is of no interest."""
        return [] if self._done else [self._step(beam) for beam in self._live]

    @property
    def best(self) -> list[Beam]:
        """The `n` best completions so far, best first."""
        return self._finished[: self._params.n]

    def advance(self, scores: Sequence[TokenLogprobs]) -> None:
        """Take the scores of the wanted prompts' next tokens, in their order."""
        width = self._params.width
        candidates = sorted(self._candidates(scores), key=lambda beam: -beam.total)
        self._length += 1
        self._live, ended = list[Beam](), list[Beam]()
        for place, candidate in enumerate(candidates):
            if place >= width and len(self._live) == width:
                break
            beam = self._closed(candidate)
            if beam.finish_reason is None:
                self._live.append(beam)
            elif place < width:
                ended.append(beam)
        self._live = self._live[:width]
        self._finished = heapq.nlargest(width, [*self._finished, *ended], key=self._score)
        self._done = not self._live or self._hopeless()

    def _step(self, beam: Beam) -> SamplingParams:
        width, early = self._params.width, self._length < self._params.min_tokens
        stages = (stage.after(beam.tokens) for stage in self._params.stages if stage.beams)
        return SamplingParams(
            use_beam_search=True,
            max_tokens=1,
            min_tokens=1 if early else 0,
            stop_token_ids=tuple(sorted(self._stops)) if early else (),
            ignore_eos=True,
            logprobs=max(2 * width, width + len(self._stops)),
            prompt_logprobs=None if self._length else self._params.prompt_logprobs,
            stages=tuple(stage for stage in stages if stage.acts),
        )

    def _candidates(self, scores: Sequence[TokenLogprobs]) -> Iterator[Beam]:
        for beam, score in zip(self._live, scores, strict=True):
            possible = [each for each in score.top if each[1] > _IMPOSSIBLE]
            for rank, (token, logprob) in enumerate(possible, 1):
                told = TokenLogprobs(token, logprob, rank, possible[: self._params.logprobs or 0])
                yield Beam((*beam.tokens, token), (*beam.scores, told), beam.total + logprob)

    def _closed(self, beam: Beam) -> Beam:
        """With its finish reason, if it has one."""
        token = beam.tokens[-1]
        reason: FinishReason | None = None
        detail = None
        if token in self._stops:
            reason, detail = "stop", None if token in self._end_tokens else token
        elif self._length == self._max_tokens:
            reason = "length"
        elif self._params.stop and self._ends(beam.tokens):
            reason = "stop"
        return Beam(beam.tokens, beam.scores, beam.total, reason, detail)

    def _score(self, beam: Beam) -> float:
        return beam.score(self._params.length_penalty)

    def _hopeless(self) -> bool:
        """No live beam is expected to end among the best."""
        early, penalty = self._params.early_stopping, self._params.length_penalty
        if len(self._finished) < self._params.width:
            return False
        if early is True:
            return True
        length = self._max_tokens if early == "never" and penalty > 0 else self._length
        return self._live[0].total / float(length) ** penalty <= self._score(self._finished[-1])


class TextBeams:
    """A search, and its completions as text."""

    def __init__(
        self, tokenizer: Tokenizer, params: SamplingParams, prompt: list[int], context: int
    ) -> None:
        """ContextLengthError: prompt and completion do not fit."""
        self._tokenizer = tokenizer
        self._params = params
        self._prompt = prompt
        self._prompt_scores: list[TokenLogprobs] = []
        self._cached = 0
        ends = frozenset(tokenizer.end_ids)
        self.search = BeamSearch(params, prompt, context, ends, self._stopped)

    def advance(
        self,
        scores: Sequence[TokenLogprobs],
        prompt_scores: Sequence[TokenLogprobs] = (),
        cached: int = 0,
    ) -> None:
        """Take a step's scores, and what the first step says of the prompt."""
        if len(self.search.wanted[0]) == len(self._prompt):
            self._prompt_scores, self._cached = list(prompt_scores), cached
        self.search.advance(scores)

    def texts(self) -> list[TextOutput]:
        """The best completions, whole, best first."""
        return [self._text(choice, beam) for choice, beam in enumerate(self.search.best)]

    def _text(self, choice: int, beam: Beam) -> TextOutput:
        first = choice == 0
        output = RequestOutput(
            id="",
            choice=choice,
            tokens=list(beam.tokens),
            logprobs=[] if self._params.logprobs is None else list(beam.scores),
            prompt_logprobs=self._prompt_scores if first else [],
            finish_reason=beam.finish_reason,
            stop_reason=beam.stop_reason,
            cached_tokens=self._cached if first else 0,
        )
        return TextAutomaton(self._tokenizer, self._params, self._prompt).feed(output)

    def _stopped(self, tokens: Sequence[int]) -> bool:
        automaton = TextAutomaton(self._tokenizer, self._params, self._prompt)
        automaton.feed(RequestOutput(id="", choice=0, tokens=list(tokens)))
        return automaton.finished


def all_choices(params: SamplingParams) -> SamplingParams:
    """All `best_of` completions as choices of their own, with the scores to rank them by."""
    logprobs = 0 if params.logprobs is None else params.logprobs
    return msgspec.structs.replace(params, n=params.width, best_of=None, logprobs=logprobs)


def ranked(scores: Sequence[Sequence[TokenLogprobs]], n: int) -> list[int]:
    """Places of the n completions with the highest log-probability per token, best first."""

    def mean(place: int) -> float:
        own = scores[place]
        return sum(score.logprob for score in own) / len(own) if own else float("-inf")

    return heapq.nlargest(n, range(len(scores)), key=mean)


def best_texts(
    news: Sequence[Sequence[TextOutput]], params: SamplingParams
) -> Iterator[TextOutput]:
    """The news of the `n` best of `best_of` completions; what the others cost is in the first."""
    scores = [[score for one in choice for score in one.logprobs] for choice in news]
    places = ranked(scores, params.n)
    others = [choice for place, choice in enumerate(news) if place not in places]
    yield TextOutput(
        choice=0,
        text="",
        tokens=[],
        prompt_logprobs=[score for one in news[0] for score in one.prompt_logprobs],
        cached_tokens=max((one.cached_tokens for one in news[0]), default=0),
        unseen_tokens=sum(len(one.tokens) for choice in others for one in choice),
    )
    for choice, place in enumerate(places):
        for one in news[place]:
            logprobs = [] if params.logprobs is None else one.logprobs
            yield msgspec.structs.replace(
                one, choice=choice, logprobs=logprobs, prompt_logprobs=[], cached_tokens=0
            )


def _length(params: SamplingParams, prompt: int, context: int) -> int:
    """Most tokens of a completion."""
    room = context - prompt
    wanted = params.max_tokens
    if room < (wanted or 1):
        raise ContextLengthError(
            f"this model's maximum context length is {context} tokens, but the request wants "
            f"{prompt} in the prompt and {wanted or 1} to generate; shorten the prompt or lower "
            "max_tokens",
            "max_tokens" if room > 0 else "prompt",
        )
    return room if wanted is None else wanted
