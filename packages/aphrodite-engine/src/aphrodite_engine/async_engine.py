"""The engine as asyncio streams of text.

The model runs in a process of its own; here are the tokenizer, the chat template and the text
automata, so that JSON, templates and streaming never compete with the step loop for the
interpreter lock.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

import msgspec

from aphrodite_engine.beams import TextBeams, all_choices, best_texts
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.errors import EngineDeadError, InternalError, RequestError
from aphrodite_engine.info import ModelInfo
from aphrodite_engine.loading.text import TextModel, load_text
from aphrodite_engine.outputs import EngineStats, RequestOutput
from aphrodite_engine.process.mailbox import Mailroom
from aphrodite_engine.process.messages import Abort, Add, Rewind, Start
from aphrodite_engine.process.spawn import Spawned
from aphrodite_engine.process.supervisor import State, Supervisor
from aphrodite_engine.request import EngineRequest
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.text.automaton import Release, TextAutomaton
from aphrodite_engine.text.chat_template import ChatTemplate
from aphrodite_engine.text.output import TextOutput
from aphrodite_engine.text.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


class AsyncEngine:
    """One served model. Make it with `await AsyncEngine.start(config)`."""

    def __init__(
        self, supervisor: Supervisor, mailroom: Mailroom, text: TextModel, info: ModelInfo
    ) -> None:
        self.info = info
        self._supervisor = supervisor
        self._mailroom = mailroom
        self._text = text

    @classmethod
    async def start(
        cls,
        config: EngineConfig,
        progress: Callable[[str], None] = _log.info,
        spawned: Spawned | None = None,
    ) -> "AsyncEngine":
        """Load the model in a new process; `progress` is told what happens, line by line.

        Args:
            config: what the user asks for.
            progress: takes lines for people.
            spawned: the process, if it was begun early; whoever began it sees to its end, too.

        Raises:
            ConfigError, ModelError: the model cannot run as asked.
            EngineDeadError: the process died while loading.
        """
        mailroom = Mailroom()
        supervisor = Supervisor(mailroom.deliver, mailroom.fail_all, config.hang_timeout)
        loading = asyncio.ensure_future(asyncio.to_thread(load_text, config, progress))

        async def first() -> Start:
            text = await loading
            local = msgspec.structs.replace(config, model=str(text.path))
            return Start(local, sorted(text.tokenizer.end_ids))

        info = await supervisor.start(spawned or Spawned(), first(), progress)
        info = msgspec.structs.replace(info, name=config.model)
        return cls(supervisor, mailroom, loading.result(), info)

    @property
    def tokenizer(self) -> Tokenizer:
        return self._text.tokenizer

    @property
    def template(self) -> ChatTemplate:
        return self._text.template

    @property
    def state(self) -> State:
        """`ready`; `restarting` after a crash; `stopped` for good."""
        return self._supervisor.state

    @property
    def engine_pid(self) -> int | None:
        """Process id of the engine; None while there is none."""
        return self._supervisor.pid

    @property
    def stats(self) -> EngineStats:
        """As of the last step, or the last idle second."""
        return self._mailroom.stats

    async def generate(
        self, prompt: list[int], params: SamplingParams, *, request_id: str, priority: int = 0
    ) -> AsyncIterator[TextOutput]:
        """Text as it becomes certain; the completions interleave, each ends with a finish reason.

        Closing the iterator early aborts the request and frees its blocks.

        Raises:
            RequestError: this request can never run; before the first text.
            EngineDeadError: the engine died, or is restarting.
            InternalError: a defect ended this request; others go on.
        """
        if params.reads_text:  # the first such request looks through the whole vocabulary
            params = await asyncio.to_thread(params.resolve, self.tokenizer)
        if params.use_beam_search:
            road = self._search
        elif params.width > params.n:
            road = self._best_of
        else:
            road = self._draw
        async with aclosing(road(prompt, params, request_id, priority)) as outputs:
            async for output in outputs:
                yield output

    async def _search(
        self, prompt: list[int], params: SamplingParams, request_id: str, priority: int
    ) -> AsyncGenerator[TextOutput]:
        """By beam search: each token of each beam is a request of its own."""
        beams = TextBeams(self.tokenizer, params, prompt, self.info.max_model_len)
        while not beams.search.done:
            asked = zip(beams.search.wanted, beams.search.steps, strict=True)
            sources = [
                self._draw(one, step, f"{request_id}-{len(one)}-{number}", priority)
                for number, (one, step) in enumerate(asked)
            ]
            news = await _ends(sources)
            scores = [one.logprobs[0] for one in news]
            beams.advance(scores, news[0].prompt_logprobs, news[0].cached_tokens)
        for text in beams.texts():
            yield text

    async def _best_of(
        self, prompt: list[int], params: SamplingParams, request_id: str, priority: int
    ) -> AsyncGenerator[TextOutput]:
        """The `n` best of `best_of` completions, told when all have ended."""
        news: list[list[TextOutput]] = [[] for _ in range(params.width)]
        source = self._draw(prompt, all_choices(params), request_id, priority)
        async with aclosing(source) as outputs:
            async for output in outputs:
                news[output.choice].append(output)
        for output in best_texts(news, params):
            yield output

    async def _draw(
        self, prompt: list[int], params: SamplingParams, request_id: str, priority: int
    ) -> AsyncGenerator[TextOutput]:
        automata = TextAutomaton.each(self.tokenizer, params, prompt)
        mailbox = self._mailroom.open(request_id)
        live = set(range(params.n))
        request = EngineRequest(
            id=request_id,
            prompt=prompt,
            params=params,
            priority=priority,
            arrival=time.monotonic(),
        )
        try:
            await self._send(request)
            while live:
                for output in await mailbox.take():
                    if output.error is not None:
                        live.clear()
                        raise InternalError(output.error)
                    if output.choice not in live:
                        continue  # computed past a stop string: nobody's
                    automaton = automata[output.choice]
                    text = automaton.feed(output)
                    if text.finish_reason is not None:
                        live.discard(output.choice)
                    await self._answer(output, automaton)
                    yield text
        except EngineDeadError:
            live.clear()
            raise
        finally:
            self._mailroom.close(request_id)
            if live and self.state == "ready":
                await self._supervisor.send(Abort(request_id))

    async def _answer(self, output: RequestOutput, automaton: TextAutomaton) -> None:
        """Tell the engine what the text of its news demands."""
        match automaton.demand:
            case None:
                pass
            case Release():
                await self._supervisor.send(Abort(output.id, output.choice))
            case back:
                message = Rewind(output.id, output.choice, back.kept, back.banned)
                await self._supervisor.send(message)

    async def _send(self, request: EngineRequest) -> None:
        try:
            await self._supervisor.send(Add(request))
        except OverflowError:
            raise RequestError("the prompt holds a number that is no token", "prompt") from None

    async def close(self) -> None:
        """Stop the engine process."""
        await self._supervisor.close()


async def _ends(sources: Sequence[AsyncGenerator[TextOutput]]) -> list[TextOutput]:
    """The last news of each, which of one token are all; when one fails, the others are aborted."""
    tasks = [asyncio.create_task(_end(source)) for source in sources]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _end(source: AsyncGenerator[TextOutput]) -> TextOutput:
    async with aclosing(source) as outputs:
        *_, last = [output async for output in outputs]
        return last
