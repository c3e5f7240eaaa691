"""The life of the server around an engine: signals, requests that are under way."""

import asyncio
import signal
import socket

import httpx
import pytest
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.errors import ConfigError
from aphrodite_server.cli import serving
from aphrodite_server.cli.setup import CommandError
from aphrodite_server.settings import Settings


@pytest.fixture
def start(engine, monkeypatch):
    """`AsyncEngine.start` gives the fake engine; the list fills when it is closed."""
    closed = []

    async def close():
        closed.append(True)

    async def begin(config, progress, process):
        return engine

    engine.close = close
    monkeypatch.setattr(serving.AsyncEngine, "start", begin)
    return closed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_server_after_its_requests(engine, start, monkeypatch, number, capsys):
    monkeypatch.setattr(serving, "_GRACE_SECONDS", 5)
    engine.delay = 0.02
    answers = []

    async def ask(url):
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            while True:
                try:
                    await client.get("/health")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.01)
            asked = asyncio.create_task(client.post("/v1/completions", json={"prompt": "a"}))
            while not engine.running:
                await asyncio.sleep(0.01)
            signal.raise_signal(number)
            answers.append((await asked).json()["choices"][0]["text"])

    async def both(listener):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        served = serving._serve(
            EngineConfig(model="fake"), Settings(log_level="error"), listener, None
        )
        await asyncio.gather(served, ask(url))

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        with serving._runner() as runner:
            runner.run(both(listener))
    assert answers == ["Hello, world!"]
    assert start
    told = capsys.readouterr().err
    assert "curl http://127.0.0.1" in told
    assert "Traceback" not in told


def test_a_model_that_cannot_run_is_told_in_a_sentence(monkeypatch):
    async def begin(config, progress, process):
        raise ConfigError("not enough memory")

    monkeypatch.setattr(serving.AsyncEngine, "start", begin)
    with socket.socket() as listener, pytest.raises(CommandError, match="not enough memory"):
        serving.serve(EngineConfig(model="fake"), Settings(), listener, None)
