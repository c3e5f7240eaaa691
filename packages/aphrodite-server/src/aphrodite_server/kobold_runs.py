"""Generations of the Kobold API: read from outside and ended from outside, while they run."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from typing import Final, NamedTuple

import msgspec

from aphrodite_server.generation import Generation, Piece, folded, merged

_encode: Final = msgspec.json.Encoder().encode
EVENT: Final = b"event: message\ndata: "
"""Kobold Lite reads no other line ends here."""
ERROR_EVENT: Final = b"event: error\ndata: "
_ABORTED: Final = "abort"


class Key(NamedTuple):
    """Which generations are meant."""

    genkey: str
    client: str
    """Address, of a client that sends no key: one of them must not end what others wait for."""


class Run:
    """One generation at work."""

    def __init__(self, generation: Generation, choices: int) -> None:
        self._generation = generation
        self._stop = asyncio.Event()
        self._parts: list[list[str]] = [[] for _ in range(choices)]

    @property
    def texts(self) -> list[str]:
        """Of each choice, so far."""
        return ["".join(parts) for parts in self._parts]

    def abort(self) -> None:
        """What there is then is the answer."""
        self._stop.set()

    async def pieces(self) -> AsyncGenerator[Piece]:
        """All news until the end, or until someone aborts."""
        async with aclosing(merged((self._read(), self._aborted()))) as news:
            async for _, piece in news:
                if piece is None:
                    return
                yield piece

    async def _read(self) -> AsyncGenerator[Piece | None]:
        async with aclosing(self._generation.pieces()) as pieces:
            async for piece in pieces:
                self._parts[piece.index].append(piece.text)
                yield piece
        yield None

    async def _aborted(self) -> AsyncGenerator[Piece | None]:
        await self._stop.wait()
        yield None

    async def whole(self) -> bytes:
        """The answer in one go."""
        ends = {
            choice.index: choice.finish_reason
            for choice in folded([piece async for piece in self.pieces()])
        }
        return _encode(
            {
                "results": [
                    {"text": text, "finish_reason": ends.get(index) or _ABORTED}
                    for index, text in enumerate(self.texts)
                ]
            }
        )

    async def events(self) -> AsyncGenerator[bytes]:
        """The answer as events; the last one says why it ended. For one choice."""
        reason = None
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                reason = piece.finish_reason
                if piece.text or reason:
                    yield _event(piece.text, reason)
        if reason is None:
            yield _event("", _ABORTED)


def _event(token: str, reason: str | None) -> bytes:
    return EVENT + _encode({"token": token, "finish_reason": reason}) + b"\n\n"


class Runs:
    """Those at work, by their keys."""

    def __init__(self) -> None:
        self._runs: dict[Key, list[Run]] = {}

    async def whole(self, key: Key, run: Run) -> bytes:
        """The answer in one go."""
        with self._entered(key, run):
            return await run.whole()

    async def events(self, key: Key, run: Run) -> AsyncGenerator[bytes]:
        """The answer as events."""
        with self._entered(key, run):
            async with aclosing(run.events()) as events:
                async for event in events:
                    yield event

    @contextmanager
    def _entered(self, key: Key, run: Run) -> Generator[None]:
        """It can be found meanwhile."""
        runs = self._runs.setdefault(key, [])
        runs.append(run)
        try:
            yield
        finally:
            runs.remove(run)
            if not runs:
                del self._runs[key]

    def texts(self, key: Key) -> list[str]:
        """What the newest one has so far; one empty text if there is none."""
        runs = self._runs.get(key)
        return runs[-1].texts if runs else [""]

    def abort(self, key: Key) -> bool:
        """End all; false: there are none."""
        runs = self._runs.get(key, [])
        for run in runs:
            run.abort()
        return bool(runs)
