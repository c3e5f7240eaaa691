"""An engine without a model: it says what it is told to, through the real text automaton."""

import asyncio
import functools
import socket
import threading
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import tokenizers
import uvicorn
from aphrodite_engine.errors import ContextLengthError
from aphrodite_engine.info import ModelInfo
from aphrodite_engine.outputs import EngineStats, RequestOutput
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs
from aphrodite_engine.text.automaton import TextAutomaton
from aphrodite_engine.text.chat_template import ChatTemplate
from aphrodite_engine.text.tokenizer import SpecialTokens, Tokenizer
from aphrodite_engine.text.vocabulary import BYTE_ALPHABET, Vocabulary, byte_level
from aphrodite_server.app import create_app
from aphrodite_server.settings import Settings

SPECIAL = ["<s>", "<|im_start|>", "<|im_end|>"]
BOS, END = 256, 258
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_tokenizer() -> Tokenizer:
    """One token per byte, begin-of-text in front, ChatML's marks."""
    by_byte = {byte: character for character, byte in BYTE_ALPHABET.items()}
    pieces = [by_byte[byte] for byte in range(256)] + SPECIAL
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    encoder = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    encoder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    encoder.add_special_tokens(SPECIAL)
    special = frozenset(range(256, 256 + len(SPECIAL)))
    return Tokenizer(
        encoder,
        Vocabulary(pieces, byte_level, special, special),
        SpecialTokens(bos=BOS, eos=END, ends=frozenset({END}), before=(BOS,)),
    )


def score(token: int, count: int) -> TokenLogprobs:
    """The token itself, and those after it in the alphabet."""
    top = [((token + place) % 256, -0.5 - place) for place in range(count)]
    return TokenLogprobs(token, -0.5, 1, top)


class FakeEngine:
    """What the server knows of an AsyncEngine."""

    def __init__(self, text: str = "Hello, world!") -> None:
        self.info = ModelInfo(
            name="fake/model",
            path="/fake",
            architecture="llama",
            max_model_len=512,
            vocab_size=259,
            num_blocks=33,
            block_size=16,
            backend="none",
            summary="",
        )
        self.tokenizer = byte_tokenizer()
        self.template = ChatTemplate(TEMPLATE, self.tokenizer)
        self.state = "ready"
        self.stats = EngineStats(running=1, kv_blocks=32, kv_blocks_free=24, prompt_tokens=7)
        self.text = text
        self.delay = 0.0
        self.error: Exception | None = None
        self.error_at = 0
        self.cached = 0
        self.seen = []
        self.running = 0
        self.aborted = 0

    async def generate(self, prompt, params, *, request_id, priority=0) -> AsyncIterator:
        self.seen.append((prompt, params, request_id, priority))
        limit = params.max_tokens if params.max_tokens is not None else 10**6
        if len(prompt) + (limit if limit < 10**6 else 1) > self.info.max_model_len:
            raise ContextLengthError(f"{len(prompt)} tokens and {limit} are too many", "prompt")
        tokens = [*self.text.encode(), END][:limit]
        automata = TextAutomaton.each(self.tokenizer, params, prompt)
        scores = []
        if params.prompt_logprobs is not None:
            scores = [score(token, params.prompt_logprobs) for token in prompt[1:]]
        self.running += 1
        done = False
        try:
            for place in range(max(1, len(tokens))):
                if self.error is not None and place == self.error_at:
                    raise self.error
                await asyncio.sleep(self.delay)
                for choice, automaton in enumerate(automata):
                    if automaton.finished:
                        continue
                    new = tokens[place : place + 1]
                    yield automaton.feed(self._output(choice, new, params, scores, place, limit))
                    scores = []
            done = True
        finally:
            self.running -= 1
            self.aborted += not done

    def _output(self, choice, new, params, scores, place, limit):
        reason = None
        if new == [END] and not params.ignore_eos:
            reason = "stop"
        elif place + 1 >= limit:
            reason = "length"
        count = params.logprobs
        return RequestOutput(
            id="x",
            choice=choice,
            tokens=new,
            logprobs=[score(token, count) for token in new] if count is not None else [],
            prompt_logprobs=scores,
            finish_reason=reason,
            cached_tokens=self.cached,
        )


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def app(engine):
    return create_app(engine, Settings())


@pytest.fixture
def post():
    """POST JSON or bytes to an app, or GET without either."""

    def send(app, path, body=None, *, content=None, headers=None, method=None):
        async def go():
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                verb = method or ("GET" if body is None and content is None else "POST")
                sent = {"content": content} if body is None else {"json": body}
                return await client.request(verb, path, headers=headers, **sent)

        return asyncio.run(go())

    return send


@pytest.fixture
def call(app, post):
    """The same, to the app of the fake engine."""
    return functools.partial(post, app)


@pytest.fixture
def url(app):
    """The app behind a real server on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()
