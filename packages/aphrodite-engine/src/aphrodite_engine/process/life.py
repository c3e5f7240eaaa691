"""One life of the engine process: talk, notice its death or silence, end it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from aphrodite_engine.errors import EngineDeadError
from aphrodite_engine.process.channel import QUEUE_MESSAGES
from aphrodite_engine.process.messages import Stop, ToEngine, ToFront
from aphrodite_engine.process.spawn import Spawned

STOP_SECONDS = 5.0


class EngineProcess:
    """A spawned engine and the private socket to it."""

    def __init__(self, spawned: Spawned, socket: zmq.asyncio.Socket) -> None:
        self._spawned = spawned
        self._process = spawned.process
        self._died = asyncio.ensure_future(asyncio.to_thread(spawned.process.wait))
        self._socket = socket
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToFront)

    @classmethod
    def of(cls, spawned: Spawned) -> "EngineProcess":
        """Listen where a new process will connect."""
        socket = zmq.asyncio.Context.instance().socket(zmq.PAIR)
        socket.setsockopt(zmq.LINGER, 0)
        socket.set_hwm(QUEUE_MESSAGES)
        socket.bind(spawned.endpoint)
        return cls(spawned, socket)

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
        while True:
            received = asyncio.ensure_future(self._socket.recv())
            done, _ = await asyncio.wait(
                {self._died, received}, timeout=silence, return_when=asyncio.FIRST_COMPLETED
            )
            if received not in done:
                received.cancel()
                raise EngineDeadError(self._epitaph(silence))
            yield self._decoder.decode(received.result())

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
                await asyncio.wait_for(asyncio.shield(self._died), STOP_SECONDS)
        await self.kill()

    async def kill(self) -> None:
        """Make it stop now."""
        self._process.kill()
        await asyncio.shield(self._died)
        self._spawned.end()
        self._socket.close()
