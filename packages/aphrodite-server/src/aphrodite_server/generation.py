"""A request at work in the engine, told in the wire's terms.

`Generation` asks the engine for every prompt, numbers the choices, puts echoed prompts first and
counts. What it tells are `Piece`s: a stream writes each one, a plain answer their sums. It knows
nothing of JSON.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar, cast

from aphrodite_engine.async_engine import AsyncEngine
from aphrodite_engine.errors import InternalError
from aphrodite_engine.sampling.explanation import Explanation
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs
from aphrodite_engine.text.detokenizer import Detokenizer
from aphrodite_engine.text.output import TextOutput
from aphrodite_engine.text.tokenizer import Tokenizer

from aphrodite_server.metrics import Meter
from aphrodite_server.translate import Prompt

T = TypeVar("T")
_END: Final = object()


class Score(NamedTuple):
    """A token of the text and how likely it was."""

    token: int
    offset: int
    """Where its text starts in the choice's text."""
    logprobs: TokenLogprobs | None
    """None: a prompt's first token, which nothing precedes."""


@dataclass(slots=True)
class Piece:
    """News of one choice; the sum of its pieces is the choice."""

    index: int
    text: str
    scores: list[Score]
    finish_reason: str | None
    stop_reason: int | str | None
    prompt_logprobs: Sequence[TokenLogprobs] = ()
    explanations: Sequence[Explanation] = ()


@dataclass(frozen=True)
class Order:
    """What is asked of the engine."""

    id: str
    prompts: Sequence[Prompt]
    params: SamplingParams
    echo: bool = False
    prompt_scores: bool = False
    """Tell the prompt's log-probabilities by themselves, not just in the echo."""
    priority: int = 0


@dataclass(slots=True)
class _PromptState:
    prompt: Prompt
    logprobs: list[TokenLogprobs] = field(default_factory=list[TokenLogprobs])
    scored_by: int | None = None
    echo_text: str = ""
    begun: set[int] = field(default_factory=set[int])
    cached: int = 0


class Generation:
    """One request at work."""

    def __init__(self, engine: AsyncEngine, order: Order, meter: Meter) -> None:
        self._engine = engine
        self._order = order
        self._meter = meter
        self._states = [_PromptState(prompt) for prompt in order.prompts]
        self.prompt_tokens = sum(len(prompt.tokens) for prompt in order.prompts)
        self.completion_tokens = 0
        self.started = False
        """Some of the answer has been made."""

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompts that were not computed again."""
        return sum(state.cached for state in self._states)

    async def pieces(self) -> AsyncGenerator[Piece]:
        """All news, as it comes; closing it early aborts the request."""
        order = self._order
        sources = [
            self._engine.generate(
                prompt.tokens,
                order.params,
                request_id=f"{order.id}-{place}",
                priority=order.priority,
            )
            for place, prompt in enumerate(order.prompts)
        ]
        with self._meter:
            async with aclosing(merged(sources)) as outputs:
                async for place, output in outputs:
                    piece = self._piece(place, output)
                    if piece is not None:
                        yield piece

    def _piece(self, place: int, output: TextOutput) -> Piece | None:
        """What the reader learns; None: nothing yet."""
        state = self._states[place]
        if output.prompt_logprobs:
            _keep_scores(state, output)
        if output.choice == 0:  # it reads the prompt; what others share with it is not read again
            state.cached = max(state.cached, output.cached_tokens)
        index = place * self._order.params.n + output.choice
        self.completion_tokens += output.unseen_tokens
        count = len(output.tokens)
        if count:
            self.completion_tokens += count
            self._meter.tokens(index, count)
        if not (output.text or output.finish_reason or output.logprobs):
            return None
        self.started = True
        reason, detail = _ending(output)
        if reason is not None:
            self._meter.finished(reason)
        text, scores, prompt_logprobs = output.text, _scores(output, len(state.echo_text)), ()
        if output.choice not in state.begun:
            state.begun.add(output.choice)
            prompt_logprobs = state.logprobs if self._order.prompt_scores else ()
            if self._order.echo:
                echoed = self._echo(state)
                text, scores = (
                    state.echo_text + text,
                    echoed + _scores(output, len(state.echo_text)),
                )
        return Piece(index, text, scores, reason, detail, prompt_logprobs, output.explanations)

    def _echo(self, state: _PromptState) -> list[Score]:
        """Sets the prompt's text and gives its scores, if they were asked for."""
        tokens, skip = state.prompt.tokens, self._order.params.skip_special_tokens
        text = state.prompt.text
        if text is None:
            text = self._engine.tokenizer.decode(tokens, skip_special=skip)
        state.echo_text = text
        if self._order.params.prompt_logprobs is None:
            return []
        offsets = _offsets(self._engine.tokenizer, tokens, skip_special=skip)
        found = [None, *state.logprobs]
        return [Score(*entry) for entry in zip(tokens, offsets, found, strict=True)]


def folded(pieces: Sequence[Piece]) -> list[Piece]:
    """The choices, whole, in order."""
    choices: dict[int, Piece] = {}
    texts: dict[int, list[str]] = {}
    for piece in pieces:
        whole = choices.setdefault(piece.index, piece)
        texts.setdefault(piece.index, []).append(piece.text)
        if whole is not piece:
            whole.scores += piece.scores
            whole.finish_reason, whole.stop_reason = piece.finish_reason, piece.stop_reason
    for index, whole in choices.items():
        whole.text = "".join(texts[index])
    return [choices[index] for index in sorted(choices)]


def _keep_scores(state: _PromptState, output: TextOutput) -> None:
    """Each choice may bring the prompt's scores; one set is enough."""
    if state.scored_by is None:
        state.scored_by = output.choice
    if state.scored_by == output.choice:
        state.logprobs += output.prompt_logprobs


def _scores(output: TextOutput, base: int) -> list[Score]:
    if not output.logprobs:
        return []
    return [
        Score(token, base + offset, logprobs)
        for token, offset, logprobs in zip(
            output.tokens, output.offsets, output.logprobs, strict=True
        )
    ]


def _offsets(tokenizer: Tokenizer, tokens: Sequence[int], *, skip_special: bool) -> list[int]:
    """Where each token's text starts."""
    detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip_special)
    offsets: list[int] = []
    told = 0
    for token in tokens:
        offsets.append(told)
        told += len(detokenizer.feed(token))
    return offsets


def _ending(output: TextOutput) -> tuple[str | None, int | str | None]:
    """OpenAI's finish reason; what it has no word for is the detail."""
    match output.finish_reason:
        case "abort":
            return "stop", "abort"
        case "error":
            raise InternalError("the engine could not finish this request")
        case reason:
            return reason, output.stop_reason


async def merged(sources: Sequence[AsyncIterator[T]]) -> AsyncGenerator[tuple[int, T]]:
    """What several iterators give, as it comes, each item with its source's place."""
    if len(sources) == 1:
        async with aclosing(cast("AsyncGenerator[T]", sources[0])) as only:
            async for item in only:
                yield 0, item
        return
    queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(maxsize=2 * len(sources))
    tasks = [asyncio.create_task(_drain(place, one, queue)) for place, one in enumerate(sources)]
    try:
        running = len(tasks)
        while running:
            place, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is _END:
                running -= 1
            else:
                yield place, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _drain(
    place: int, source: AsyncIterator[T], queue: asyncio.Queue[tuple[int, Any]]
) -> None:
    try:
        async with aclosing(cast("AsyncGenerator[T]", source)) as items:
            async for item in items:
                await queue.put((place, item))
    except Exception as error:
        await queue.put((place, error))
    else:
        await queue.put((place, _END))
