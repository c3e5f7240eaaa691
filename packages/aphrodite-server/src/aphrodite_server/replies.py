"""How answers are written: the one place that knows the JSON of choices, chunks and usage.

A stream writes a chunk for every piece, a plain answer writes their sums; both go through the same
functions. What is the same in every chunk of a stream is encoded once.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs
from aphrodite_engine.text.tokenizer import Tokenizer

from aphrodite_server.generation import Generation, Piece, Score, folded

_encode: Final = msgspec.json.Encoder().encode
DONE: Final = b"data: [DONE]\n\n"


class Reply(ABC):
    """The answer to one request. `top`: likeliest tokens to show; None: no log-probabilities."""

    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, id: str, model: str, tokenizer: Tokenizer, top: int | None) -> None:
        self._tokenizer = tokenizer
        self._top = top
        self._facts = {"id": id, "created": int(time.time()), "model": model}

    def start(self, *, include_usage: bool, continuous: bool) -> None:
        """Prepare to write chunks."""
        facts = _encode({**self._facts, "object": self.chunk_object})
        self._head = b"data: " + facts[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._continuous = continuous

    def chunk(self, piece: Piece, generation: Generation) -> bytes:
        """The events of one piece."""
        tail = self._tail
        if self._continuous:
            tail = b'],"usage":%b}\n\n' % _encode(usage(generation))
        return b"".join(self._head + choice + tail for choice in self._chunk_choices(piece))

    def usage_chunk(self, generation: Generation) -> bytes:
        """The event after the last choice has ended."""
        return self._head + b'],"usage":%b}\n\n' % _encode(usage(generation))

    def whole(self, pieces: Sequence[Piece], generation: Generation) -> bytes:
        """The answer in one go."""
        facts = _encode({**self._facts, "object": self.whole_object})
        choices = folded(pieces)
        body = b",".join(self._choice(choice) for choice in choices)
        return b"".join(
            (facts[:-1], b',"choices":[', body, b'],"usage":', _encode(usage(generation)))
        ) + self._after(choices)

    def _after(self, choices: Sequence[Piece]) -> bytes:
        return b"}"

    @abstractmethod
    def _chunk_choices(self, piece: Piece) -> Sequence[bytes]:
        """What one piece adds, each for a chunk of its own."""

    @abstractmethod
    def _choice(self, piece: Piece) -> bytes:
        """A whole choice."""

    @abstractmethod
    def _logprobs(self, scores: Sequence[Score]) -> Mapping[str, Any]:
        """The log-probabilities of a choice or of a part of it."""

    def _framed(self, piece: Piece, content: bytes) -> bytes:
        """A choice around its content."""
        logprobs = b"null" if self._top is None else _encode(self._logprobs(piece.scores))
        if piece.finish_reason is None:
            return b'{"index":%d,%b,"logprobs":%b,"finish_reason":null,"stop_reason":null}' % (
                piece.index,
                content,
                logprobs,
            )
        return b'{"index":%d,%b,"logprobs":%b,"finish_reason":"%b","stop_reason":%b}' % (
            piece.index,
            content,
            logprobs,
            piece.finish_reason.encode(),
            _encode(piece.stop_reason),
        )

    def _top_of(self, score: TokenLogprobs) -> list[tuple[int, float]]:
        """The likeliest tokens, at most as many as asked for."""
        return score.top[: self._top]

    def _prompt_scores(self, piece: Piece) -> bytes:
        """By token id, for each token of the prompt; the first has none."""
        entries = [None, *(self._by_id(score) for score in piece.prompt_logprobs)]
        return _encode(entries)

    def _by_id(self, score: TokenLogprobs) -> dict[str, Any]:
        ranked = {token: (value, rank) for rank, (token, value) in enumerate(score.top, start=1)}
        ranked.setdefault(score.token, (score.logprob, score.rank))
        return {
            str(token): {
                "logprob": value,
                "rank": rank,
                "decoded_token": token_text(self._tokenizer, token),
            }
            for token, (value, rank) in ranked.items()
        }


class CompletionReply(Reply):
    """/v1/completions."""

    whole_object = "text_completion"
    chunk_object = "text_completion"

    def _chunk_choices(self, piece: Piece) -> Sequence[bytes]:
        return (self._framed(piece, b'"text":' + _encode(piece.text)),)

    def _choice(self, piece: Piece) -> bytes:
        content = b'"text":' + _encode(piece.text)
        if piece.prompt_logprobs:
            content += b',"prompt_logprobs":' + self._prompt_scores(piece)
        return self._framed(piece, content)

    def _logprobs(self, scores: Sequence[Score]) -> Mapping[str, Any]:
        return {
            "tokens": [token_text(self._tokenizer, score.token) for score in scores],
            "token_logprobs": [
                None if score.logprobs is None else score.logprobs.logprob for score in scores
            ],
            "top_logprobs": [
                None if score.logprobs is None else self._by_text(score.logprobs)
                for score in scores
            ],
            "text_offset": [score.offset for score in scores],
        }

    def _by_text(self, score: TokenLogprobs) -> dict[str, float]:
        """The likeliest tokens and the chosen one; of equal texts the likeliest stays."""
        texts: dict[str, float] = {}
        for token, value in (*self._top_of(score), (score.token, score.logprob)):
            texts.setdefault(token_text(self._tokenizer, token), value)
        return texts


class ChatReply(Reply):
    """/v1/chat/completions."""

    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def start(self, *, include_usage: bool, continuous: bool) -> None:
        """Prepare to write chunks."""
        super().start(include_usage=include_usage, continuous=continuous)
        self._opened: set[int] = set()

    def _chunk_choices(self, piece: Piece) -> Sequence[bytes]:
        content = _encode(piece.text)
        said = self._framed(
            piece, b'"delta":{"content":%b}' % content if piece.text else b'"delta":{}'
        )
        if piece.index in self._opened:
            return (said,)
        self._opened.add(piece.index)
        opening = (
            b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,'
            b'"finish_reason":null,"stop_reason":null}' % piece.index
        )
        return (opening, said)

    def _choice(self, piece: Piece) -> bytes:
        text = _encode(piece.text)
        return self._framed(piece, b'"message":{"role":"assistant","content":%b}' % text)

    def _after(self, choices: Sequence[Piece]) -> bytes:
        first = choices[0]
        if not first.prompt_logprobs:
            return b"}"
        return b',"prompt_logprobs":' + self._prompt_scores(first) + b"}"

    def _logprobs(self, scores: Sequence[Score]) -> Mapping[str, Any]:
        return {
            "content": [
                {
                    **self._entry(score.token, score.logprobs.logprob),
                    "top_logprobs": [self._entry(*pair) for pair in self._top_of(score.logprobs)],
                }
                for score in scores
                if score.logprobs is not None
            ]
        }

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        return {
            "token": token_text(self._tokenizer, token),
            "logprob": logprob,
            "bytes": list(self._tokenizer.token_bytes(token)),
        }


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """The text of a token; bytes that are no text by themselves are spelled out, as OpenAI does."""
    data = tokenizer.token_bytes(token)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def usage(generation: Generation) -> dict[str, Any]:
    """Tokens so far: prompts count once, however many completions they have."""
    prompt, completion = generation.prompt_tokens, generation.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": generation.cached_tokens},
    }
