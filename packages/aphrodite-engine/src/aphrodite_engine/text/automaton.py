"""From what the engine says of a completion to what its reader sees.

Detokenises, looks for stop strings, and keeps text and tokens in step: a token is told once some
of its text is certain, tokens that a stop string cuts off are never told. What is told does not
depend on how the engine's news are cut. It knows nothing of how news travel; `LLM` and the front
process use it alike, and pass on what it demands of the engine: to let go of a completion that a
stop string ended, or to take it back to before the token in which a banned text began. News from
before that mean nothing any more.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from aphrodite_engine.outputs import RequestOutput
from aphrodite_engine.request import FinishReason
from aphrodite_engine.sampling.explanation import Explanation
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs
from aphrodite_engine.text.detokenizer import Detokenizer
from aphrodite_engine.text.output import TextOutput
from aphrodite_engine.text.phrases import PhraseGuard, Phrases, Rewind
from aphrodite_engine.text.stop import StopSearch, StopStrings
from aphrodite_engine.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where the text stood before a token."""

    detokenizer: tuple[tuple[bytes, int], bool, bool]
    stops: int
    phrases: int
    certain: int
    """Characters that could have been told."""


@dataclass(frozen=True, slots=True)
class _Pending:
    token: int
    logprobs: TokenLogprobs | None
    offset: int
    explanation: Explanation | None = None
    continues: bool = False
    """A character was unfinished before it."""
    before: _Mark | None = None
    """If texts are banned."""


@dataclass(frozen=True, slots=True)
class Release:
    """What the engine must do with a completion that it still works on or holds: forget it."""


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
        phrases: Phrases | None = None,
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
        phrases = phrases or Phrases.of(params.bans)
        self._guard = None if phrases is None else PhraseGuard(phrases)
        self._first = 0  # index in the output of the first pending token
        self._rewound = 0
        self.demand: Rewind | Release | None = None
        """What the engine must do since the last news."""

    @classmethod
    def each(
        cls, tokenizer: Tokenizer, params: SamplingParams, prompt: Sequence[int]
    ) -> "list[TextAutomaton]":
        """One for each of the request's `n` completions; they share the compiled strings."""
        stops, phrases = StopStrings(params.stop), Phrases.of(params.bans)
        return [cls(tokenizer, params, prompt, stops, phrases) for _ in range(params.n)]

    @property
    def finished(self) -> bool:
        """A finish reason was told; later news are of tokens nobody sees, and tell nothing."""
        return self._finished

    def feed(self, output: RequestOutput) -> TextOutput:
        """What the reader learns from this news."""
        news = _News()
        self.demand = None
        if self._finished or output.rewinds != self._rewound:
            return self._output(output, news)
        hidden = output.finish_reason == "stop" and not self._include_stop
        last = len(output.tokens) - 1
        for place, token in enumerate(output.tokens):
            self._pending.append(self._arrived(output, place))
            text = "" if hidden and place == last else self._detokenizer.feed(token)
            stop = self._read(text, news)
            if stop is not None:
                return self._finish(output, news, "stop", stop)
            if self.demand is not None:
                return self._output(output, news)
        if output.finish_reason is None:
            return self._output(output, news)
        stop = self._read(self._detokenizer.flush(), news)
        if stop is not None:
            return self._finish(output, news, "stop", stop)
        if self.demand is not None:
            return self._output(output, news)
        return self._finish(output, news, output.finish_reason, output.stop_reason)

    def _arrived(self, output: RequestOutput, place: int) -> _Pending:
        """A token that is not read yet."""
        before = None
        if self._guard is not None:
            before = _Mark(
                self._detokenizer.state, self._search.node, self._guard.node, self._certain()
            )
        return _Pending(
            output.tokens[place],
            output.logprobs[place] if output.logprobs else None,
            self._told + len(self._text),
            output.explanations[place] if output.explanations else None,
            self._detokenizer.unfinished,
            before,
        )

    def _read(self, text: str, news: _News) -> str | None:
        """Take text, tell what is certain; the stop string that ends here, if one does.

        None and a demand: a banned text was complete before a stop string was.
        """
        hit = self._search.feed(text)
        kept = len(text) if hit is None else hit[0] - (0 if self._include_stop else 1)
        if self._guard is not None and self._take_back(text[:kept], self._guard):
            return None
        if hit is not None:
            read, stop = hit
            self._text += text[:read]
            self._cut(0 if self._include_stop else len(stop))
            return stop
        self._text += text
        self._tell(self._certain() - self._told, news)
        return None

    def _certain(self) -> int:
        """Characters of the text that can be told.

        What may become part of a banned text is held from the token in which that would begin; and
        with it what was held just before that token, since the text may be taken back to there.
        Such a chain need not end, so more than the longest banned text is held for none but the
        first reason.
        """
        end = self._told + len(self._text)
        certain = end if self._include_stop else end - self._search.held
        if self._guard is not None and self._guard.held and self._pending:
            first = self._pending[self._begin(end - self._guard.held)]
            assert first.before is not None, "texts are banned"
            chained = max(first.before.certain, end - self._guard.longest)
            certain = min(certain, first.offset, chained)
        return max(certain, self._told)

    def _take_back(self, text: str, guard: PhraseGuard) -> bool:
        """Look for banned texts in new text; true: one was found, and all is as before it."""
        start = self._told + len(self._text)
        for read, length in guard.feed(text):
            index = self._begin(start + read - length)
            first = self._pending[index]
            self.demand = guard.ban(self._first + index, first.token)
            if self.demand is not None and first.before is not None:
                self._rewound += 1
                self._text = self._text[: first.offset - self._told]
                self._detokenizer.state = first.before.detokenizer
                self._search.node, guard.node = first.before.stops, first.before.phrases
                while len(self._pending) > index:
                    self._pending.pop()
                return True
        return False

    def _begin(self, offset: int) -> int:
        """Index of the pending token in which the character at an offset of the text begins.

        The first one, if that character was told: before the text was taken back, it was certain.
        """
        index = len(self._pending) - 1
        while index and self._pending[index].offset > offset:
            index -= 1
        while index and self._pending[index].continues and self._pending[index].offset == offset:
            index -= 1
        return index

    def _cut(self, count: int) -> None:
        self._text = self._text[: max(len(self._text) - count, 0)]
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
            self._first += 1

    def _finish(
        self, output: RequestOutput, news: _News, reason: FinishReason, detail: int | str | None
    ) -> TextOutput:
        self._finished = True
        # A completion that may be taken back is held until its reader agrees with its end.
        if self._guard is not None or output.finish_reason is None:
            self.demand = Release()
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
            explanations=self._explanations(output, news),
            finish_reason=reason,
            stop_reason=detail,
            cached_tokens=output.cached_tokens,
        )

    def _explanations(self, output: RequestOutput, news: _News) -> list[Explanation]:
        if self._guard is None:
            return output.explanations
        return [told.explanation for told in news.tokens if told.explanation is not None]
