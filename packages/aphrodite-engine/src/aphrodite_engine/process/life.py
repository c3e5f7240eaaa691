"""One life of the engine process: spawn, talk, notice its death or silence, end it."""

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from aphrodite_engine.errors import EngineDeadError
from aphrodite_engine.process.channel import QUEUE_MESSAGES
from aphrodite_engine.process.messages import Stop, ToEngine, ToFront

STOP_SECONDS = 5.0


class EngineProcess:
    """A spawned engine and the private socket to it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        socket: zmq.asyncio.Socket,
        directory: "tempfile.TemporaryDirectory[str]",
    ) -> None:
        self._process = process
        self._socket = socket
        self._directory = directory
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToFront)

    @classmethod
    async def spawn(cls) -> "EngineProcess":
        """Start a process that waits for its first message."""
        directory = tempfile.TemporaryDirectory(prefix="aphrodite-")  # readable by this user alone
        endpoint = f"ipc://{Path(directory.name) / 'engine'}"
        socket = zmq.asyncio.Context.instance().socket(zmq.PAIR)
        socket.setsockopt(zmq.LINGER, 0)
        socket.set_hwm(QUEUE_MESSAGES)
        socket.bind(endpoint)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "aphrodite_engine.process",
            endpoint,
            stdin=asyncio.subprocess.PIPE,
        )
        return cls(process, socket, directory)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, message: ToEngine) -> None:
        """Queue a message, at once or not at all.

        Raises:
            EngineDeadError: nobody takes messages at the other end.
        """
        try:
            await self._socket.send(self._encoder.encode(message), zmq.DONTWAIT)
        except zmq.Again:
            raise EngineDeadError("the engine process takes no messages, try again later") from None

    async def messages(self, silence: float | None) -> AsyncIterator[ToFront]:
        """Everything the engine says.

        A ready engine says something after each step, and every second when idle.

        Raises:
            EngineDeadError: it has died, or was silent for `silence` seconds (None: for ever).
        """
        died = asyncio.ensure_future(self._process.wait())
        try:
            while True:
                received = asyncio.ensure_future(self._socket.recv())
                done, _ = await asyncio.wait(
                    {died, received}, timeout=silence, return_when=asyncio.FIRST_COMPLETED
                )
                if received not in done:
                    received.cancel()
                    raise EngineDeadError(self._epitaph(silence))
                yield self._decoder.decode(received.result())
        finally:
            died.cancel()

    def _epitaph(self, silence: float | None) -> str:
        code = self._process.returncode
        if code is None:
            return f"the engine process gave no sign of life for {silence:.0f} s"
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return f"the engine process died ({how})"

    async def end(self) -> None:
        """Ask it to stop, then make it stop; may be called again if it was cancelled."""
        if self._process.returncode is None:
            with contextlib.suppress(TimeoutError, EngineDeadError):
                await self.send(Stop())
                await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        await self.kill()

    async def kill(self) -> None:
        """Make it stop now."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._socket.close()
        self._directory.cleanup()
