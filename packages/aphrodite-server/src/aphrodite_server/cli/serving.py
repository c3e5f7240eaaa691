"""The life of a server: start the engine, answer until told to stop, close the engine."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING

import uvicorn
from aphrodite_engine.async_engine import AsyncEngine
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.errors import EngineError
from aphrodite_engine.process.spawn import Spawned

from aphrodite_server.cli.setup import CommandError
from aphrodite_server.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

_GRACE_SECONDS = 2
"""How long requests may go on after Ctrl-C; then they are told that the server stops."""


def serve(
    config: EngineConfig, settings: Settings, listener: socket.socket, process: Spawned
) -> None:
    """Serve until Ctrl-C or SIGTERM; the process becomes the engine.

    Raises:
        CommandError: the model cannot run; says why.
    """
    try:
        with _runner() as runner:
            runner.run(_serve(config, settings, listener, process))
    except EngineError as error:
        raise CommandError(str(error)) from error


def _runner() -> asyncio.Runner:
    if sys.platform == "win32":
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _serve(
    config: EngineConfig, settings: Settings, listener: socket.socket, process: Spawned
) -> None:
    importing = asyncio.ensure_future(asyncio.to_thread(_import_app))
    engine = await AsyncEngine.start(config, _say, process)
    try:
        create_app = await importing
        options = uvicorn.Config(
            create_app(engine, settings),
            log_config=None,
            access_log=False,  # gates.py has one that knows more
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=3 * _GRACE_SECONDS,
        )
        server = Server(options, lambda: _announce(engine, listener, settings), engine.close)
        _stop_on_signals(server)
        await server.serve([listener])
    finally:
        await engine.close()


def _import_app() -> Callable[[AsyncEngine, Settings], "FastAPI"]:
    """In a thread, while the engine's process comes up: half of what there is to import."""
    from aphrodite_server.app import create_app

    return create_app


class Server(uvicorn.Server):
    """Leaves signals to the command, tells when it is ready, ends requests before it stops."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        end_requests: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._end_requests = end_requests

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections; let requests end, then end them."""
        ended = asyncio.Event()
        ending = asyncio.create_task(self._end_late(ended))
        await super().shutdown(sockets)
        ended.set()
        await ending

    async def _end_late(self, ended: asyncio.Event) -> None:
        try:
            await asyncio.wait_for(ended.wait(), _GRACE_SECONDS)
        except TimeoutError:
            await self._end_requests()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """No handlers: uvicorn would raise them again at the end, before the engine is closed."""
        yield


def _stop_on_signals(server: Server) -> None:
    def stop() -> None:
        server.force_exit = server.should_exit  # the second time
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def _announce(engine: AsyncEngine, listener: socket.socket, settings: Settings) -> None:
    host, port = listener.getsockname()[:2]
    shown = "localhost" if host in ("0.0.0.0", "::") else host
    url = f"http://{shown}:{port}"
    name = (settings.served_model_names or (engine.info.name,))[0]
    key = " -H 'Authorization: Bearer KEY'" if settings.api_keys else ""
    _say(f"{name} ({engine.info.architecture}; {engine.info.backend}) answers at {url}/v1")
    _say(f"a page to try it: {url}; or:")
    _say(
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} "
        """-d '{"messages": [{"role": "user", "content": "Hello!"}]}'"""
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
