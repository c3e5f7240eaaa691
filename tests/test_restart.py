"""The engine process is killed, or hangs: its clients learn it, and the next request succeeds."""

import asyncio
import os
import signal

import pytest
from aphrodite_engine import AsyncEngine, EngineConfig, SamplingParams
from aphrodite_engine.errors import EngineDeadError


async def answer(engine: AsyncEngine, request_id: str, tokens: int) -> str:
    prompt = engine.tokenizer.encode("The capital of France is")
    params = SamplingParams(max_tokens=tokens, ignore_eos=True, seed=1)
    return "".join([n.text async for n in engine.generate(prompt, params, request_id=request_id)])


async def wait_until_ready(engine: AsyncEngine) -> None:
    for _ in range(600):
        if engine.state == "ready":
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the engine is {engine.state}")


async def struck(engine: AsyncEngine, blow: signal.Signals, said: str) -> None:
    """Requests that run when the engine is struck fail with a sentence; a new engine comes."""
    running = [asyncio.create_task(answer(engine, f"r{i}", 400)) for i in range(3)]
    await asyncio.sleep(0.5)
    assert engine.engine_pid is not None
    os.kill(engine.engine_pid, blow)
    for failure in await asyncio.gather(*running, return_exceptions=True):
        assert isinstance(failure, EngineDeadError), failure
        assert said in str(failure)
    assert engine.state == "restarting"
    with pytest.raises(EngineDeadError, match="restarting"):
        await answer(engine, "meanwhile", 8)
    await wait_until_ready(engine)


@pytest.mark.slow
@pytest.mark.weights
def test_killed_or_hung_mid_stream() -> None:
    async def main() -> None:
        config = EngineConfig(model="demo", max_model_len=512, hang_timeout=3)
        engine = await AsyncEngine.start(config)
        try:
            before = await answer(engine, "before", 8)
            await struck(engine, signal.SIGKILL, "killed by signal 9")
            assert await answer(engine, "after", 8) == before
            await struck(engine, signal.SIGSTOP, "no sign of life for 3 s")
            assert await answer(engine, "again", 8) == before
        finally:
            await engine.close()

    asyncio.run(main())
