"""Engines that cannot start say why, and leave nothing behind."""

import asyncio
import contextlib
import os
import signal
import tempfile
from pathlib import Path

import pytest
from aphrodite_engine import AsyncEngine, EngineConfig, SamplingParams
from aphrodite_engine.errors import (
    ConfigError,
    EngineDeadError,
    EngineError,
    ModelError,
    ModelNotFoundError,
)
from aphrodite_engine.process.messages import Start
from aphrodite_engine.process.spawn import Spawned
from aphrodite_engine.process.supervisor import Supervisor


async def started(config: EngineConfig) -> None:
    engine = await AsyncEngine.start(config)
    await engine.close()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"model": "no/such/path/anywhere"}, ModelNotFoundError, "no/such/path/anywhere"),
        ({"model": "demo", "kv_cache_memory": 1000}, ConfigError, "KV cache"),
    ],
)
def test_what_cannot_start_raises_its_own_error(
    options: dict[str, object], error: type[EngineError], said: str
) -> None:
    with pytest.raises(error, match=said):
        asyncio.run(started(EngineConfig(**options)))


def test_a_failed_start_leaves_neither_process_nor_directory(tmp_path: Path) -> None:
    async def main() -> None:
        supervisor = Supervisor(lambda _: None, lambda _: None, 10)

        async def first() -> Start:
            (tmp_path / "model.gguf").write_bytes(b"not a model")
            return Start(EngineConfig(model=str(tmp_path / "model.gguf")), [])

        with pytest.raises(ModelError, match=r"model\.gguf"):
            await supervisor.start(Spawned(), first(), lambda _: None)
        assert supervisor.pid is None
        await supervisor.close()

    before = set(Path(tempfile.gettempdir()).glob("aphrodite-*"))
    asyncio.run(main())
    assert set(Path(tempfile.gettempdir()).glob("aphrodite-*")) <= before


@pytest.mark.slow
def test_an_engine_that_keeps_dying_is_given_up() -> None:
    async def main() -> None:
        engine = await AsyncEngine.start(EngineConfig(model="demo", max_model_len=128))
        try:
            for _ in range(1000):
                if engine.state == "stopped":
                    break
                if engine.state == "ready" and engine.engine_pid is not None:
                    with contextlib.suppress(ProcessLookupError):  # dead, and not yet missed
                        os.kill(engine.engine_pid, signal.SIGKILL)
                await asyncio.sleep(0.05)
            assert engine.state == "stopped"
            with pytest.raises(EngineDeadError, match="has stopped"):
                async for _ in engine.generate([1], SamplingParams(), request_id="late"):
                    pass
        finally:
            await engine.close()
            await engine.close()

    asyncio.run(main())
