"""From what the engine says of a completion to what its reader sees.

Detokenises, looks for stop strings, and keeps text and tokens in step: a token is told once some
of its text is certain, tokens that a stop string cuts off are never told. What is told does not
depend on how the engine's news are cut. It knows nothing of how news travel; `LLM` and the front
process use it alike. When it ends a completion by a stop string before the engine does, the caller
aborts that completion.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from aphrodite_engine.outputs import RequestOutput
from aphrodite_engine.request import FinishReason
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs
from aphrodite_engine.text.detokenizer import Detokenizer
from aphrodite_engine.text.output import TextOutput
from aphrodite_engine.text.stop import StopSearch, StopStrings
from aphrodite_engine.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class _Pending:
    token: int
    logprobs: TokenLogprobs | None
    offset: int


@dataclass(slots=True)
class _News:
    texts: list[str] = field(default_factory=list[str])
    tokens: list[_Pending] = field(default_factory=list[_Pending])


class TextAutomaton:
    """The text of one completion.

    Stop strings are looked for in the text that is shown, from its first character on;
    `min_tokens` delays end-of-text and stop tokens only.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        params: SamplingParams,
        prompt: Sequence[int],
        stops: StopStrings | None = None,
    ) -> None:
        self._detokenizer = Detokenizer(
            tokenizer,
            prompt,
            skip_special_tokens=params.skip_special_tokens,
            spaces_between_special_tokens=params.spaces_between_special_tokens,
        )
        self._search = StopSearch(stops or StopStrings(params.stop))
        self._include_stop = params.include_stop_str_in_output
        self._told = 0  # characters
        self._text = ""  # known, not yet told: it may become part of a stop string
        self._pending: deque[_Pending] = deque()
        self._finished = False

    @classmethod
    def each(
        cls, tokenizer: Tokenizer, params: SamplingParams, prompt: Sequence[int]
    ) -> "list[TextAutomaton]":
        """One for each of the request's `n` completions; they share the compiled stop strings."""
        stops = StopStrings(params.stop)
        return [cls(tokenizer, params, prompt, stops) for _ in range(params.n)]

    @property
    def finished(self) -> bool:
        """A finish reason was told; later news are of tokens nobody sees, and tell nothing."""
        return self._finished

    def feed(self, output: RequestOutput) -> TextOutput:
        """What the reader learns from this news."""
        news = _News()
        if self._finished:
            return self._output(output, news)
        hidden = output.finish_reason == "stop" and not self._include_stop
        last = len(output.tokens) - 1
        for place, token in enumerate(output.tokens):
            logprobs = output.logprobs[place] if output.logprobs else None
            self._pending.append(_Pending(token, logprobs, self._told + len(self._text)))
            text = "" if hidden and place == last else self._detokenizer.feed(token)
            stop = self._read(text, news)
            if stop is not None:
                return self._finish(output, news, "stop", stop)
        if output.finish_reason is None:
            return self._output(output, news)
        stop = self._read(self._detokenizer.flush(), news)
        if stop is not None:
            return self._finish(output, news, "stop", stop)
        return self._finish(output, news, output.finish_reason, output.stop_reason)

    def _read(self, text: str, news: _News) -> str | None:
        """Take text, tell what is certain; the stop string that ends here, if one does."""
        hit = self._search.feed(text)
        if hit is not None:
            read, stop = hit
            self._text += text[:read]
            self._cut(0 if self._include_stop else len(stop))
            return stop
        self._text += text
        held = 0 if self._include_stop else self._search.held
        self._tell(len(self._text) - held, news)
        return None

    def _cut(self, count: int) -> None:
        self._text = self._text[: len(self._text) - count]
        end = self._told + len(self._text)
        while self._pending and self._pending[-1].offset >= end:
            self._pending.pop()

    def _tell(self, count: int, news: _News) -> None:
        """The first `count` characters are certain."""
        news.texts.append(self._text[:count])
        self._text = self._text[count:]
        self._told += count
        idle = not self._text and not self._detokenizer.unfinished
        while self._pending and (idle or self._pending[0].offset < self._told):
            news.tokens.append(self._pending.popleft())

    def _finish(
        self, output: RequestOutput, news: _News, reason: FinishReason, detail: int | str | None
    ) -> TextOutput:
        self._finished = True
        news.texts.append(self._text)
        news.tokens.extend(self._pending)
        self._pending.clear()
        return self._output(output, news, reason, detail)

    def _output(
        self,
        output: RequestOutput,
        news: _News,
        reason: FinishReason | None = None,
        detail: int | str | None = None,
    ) -> TextOutput:
        return TextOutput(
            choice=output.choice,
            text="".join(news.texts),
            tokens=[told.token for told in news.tokens],
            logprobs=[told.logprobs for told in news.tokens if told.logprobs is not None],
            offsets=[told.offset for told in news.tokens],
            prompt_logprobs=output.prompt_logprobs,
            explanations=output.explanations,
            finish_reason=reason,
            stop_reason=detail,
            cached_tokens=output.cached_tokens,
        )
