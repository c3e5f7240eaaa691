"""Keeps an engine process alive.

When it dies, whoever listens is told once, and a new one is started. Three lives in a row that
end within seconds, or do not begin, end it: the model evidently cannot run here.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from aphrodite_engine.errors import ConfigError, EngineDeadError, EngineError, ModelError
from aphrodite_engine.info import ModelInfo
from aphrodite_engine.process.life import EngineProcess
from aphrodite_engine.process.messages import (
    Failed,
    Hello,
    Progress,
    Ready,
    Start,
    ToEngine,
    ToFront,
)
from aphrodite_engine.process.spawn import Spawned

State = Literal["ready", "restarting", "stopped"]
ATTEMPTS = 3
SHORT_LIFE_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Supervisor:
    """Starts the engine, passes messages, restarts it."""

    def __init__(
        self,
        on_message: Callable[[ToFront], None],
        on_death: Callable[[EngineDeadError], None],
        silence: float,
    ) -> None:
        """`silence`: seconds without a message after which a ready engine counts as hung."""
        self.state: State = "restarting"
        self._on_message = on_message
        self._on_death = on_death
        self._silence = silence
        self._life: EngineProcess | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(
        self, spawned: Spawned, first: Awaitable[Start], progress: Callable[[str], None]
    ) -> ModelInfo:
        """Make a new process the engine; its first message is awaited while it comes up.

        Raises:
            ConfigError, ModelError: the model cannot run as asked.
            EngineDeadError: the process died while loading.
        """
        life = EngineProcess.of(spawned)
        try:
            start = await first
            info = await _load(life, start, progress)
        except BaseException:
            await life.kill()
            raise
        self._life, self.state = life, "ready"
        self._task = asyncio.create_task(self._watch(start))
        return info

    @property
    def pid(self) -> int | None:
        return self._life.pid if self._life is not None else None

    async def send(self, message: ToEngine) -> None:
        """Pass a message on; EngineDeadError while there is no engine."""
        if self._life is None or self.state != "ready":
            raise EngineDeadError(
                "the engine is restarting, try again in a few seconds"
                if self.state == "restarting"
                else "the engine has stopped"
            )
        await self._life.send(message)

    async def close(self) -> None:
        """Stop the engine; requests that still run end with EngineDeadError."""
        self.state = "stopped"
        self._on_death(EngineDeadError("the server is stopping"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._life is not None:
            await self._life.end()
            self._life = None

    async def _watch(self, start: Start) -> None:
        short_lives = 0
        while self._life is not None:
            born = time.monotonic()
            try:
                async for message in self._life.messages(self._silence):
                    self._on_message(message)
            except EngineDeadError as error:
                short_lives = short_lives + 1 if time.monotonic() - born < SHORT_LIFE_SECONDS else 0
                _log.error("%s; starting another", error)
                self.state = "restarting"
                dead, self._life = self._life, None
                self._on_death(error)
                await dead.kill()
                if short_lives < ATTEMPTS:
                    self._life = await self._restart(start)
        self.state = "stopped"
        _log.error("the engine does not stay alive and has been given up")

    async def _restart(self, start: Start) -> EngineProcess | None:
        for attempt in range(1, ATTEMPTS + 1):
            life = EngineProcess.of(Spawned())
            try:
                await _load(life, start, _log.info)
            except EngineError as error:
                await life.kill()
                _log.error("restart %d of %d failed: %s", attempt, ATTEMPTS, error)
                await asyncio.sleep(attempt)
            except BaseException:
                await life.kill()
                raise
            else:
                self.state = "ready"
                _log.warning("the engine is back")
                return life
        return None


async def _load(life: EngineProcess, start: Start, progress: Callable[[str], None]) -> ModelInfo:
    async for message in life.messages(silence=None):
        match message:
            case Hello():
                await life.send(start)
            case Progress(text):
                progress(text)
            case Ready(info):
                return info
            case Failed(kind, text):
                raise {"config": ConfigError, "model": ModelError}.get(kind, EngineDeadError)(text)
            case _:
                _log.error("unexpected message %s while loading", type(message).__name__)
    raise EngineDeadError("the engine process closed its socket while loading")
