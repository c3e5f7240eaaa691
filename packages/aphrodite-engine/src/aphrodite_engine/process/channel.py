"""One end of the private socket between the two processes, blocking.

A pair socket over a local path: ordered, one peer, bounded (`send` blocks when the other side
does not read, so a stalled front process pauses the engine instead of filling its memory).
"""

from typing import Any, Generic, TypeVar

import msgspec
import zmq

Incoming = TypeVar("Incoming")
Outgoing = TypeVar("Outgoing")

QUEUE_MESSAGES = 4096


class Channel(Generic[Incoming, Outgoing]):
    """Typed messages over a pair socket."""

    def __init__(self, context: "zmq.Context[Any]", endpoint: str, incoming: object) -> None:
        self._socket = context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.set_hwm(QUEUE_MESSAGES)
        self._socket.connect(endpoint)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Incoming] = msgspec.msgpack.Decoder(
            incoming  # pyright: ignore[reportArgumentType] - a union of structs
        )

    def send(self, message: Outgoing) -> None:
        """Queue a message; blocks while the peer's queue is full."""
        self._socket.send(self._encoder.encode(message))

    def receive(self, timeout: float | None) -> Incoming | None:
        """The next message; None after `timeout` seconds (None: wait for ever)."""
        if not self._socket.poll(None if timeout is None else int(timeout * 1000)):
            return None
        return self._decoder.decode(self._socket.recv())

    def close(self) -> None:
        """Send what is queued, for at most a second, and close."""
        self._socket.close()
