"""The engine process is killed: its clients learn it, and the next request succeeds."""

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


@pytest.mark.slow
@pytest.mark.weights
def test_killed_mid_stream() -> None:
    async def main() -> None:
        engine = await AsyncEngine.start(EngineConfig(model="demo", max_model_len=512))
        try:
            before = await answer(engine, "before", 8)
            running = [asyncio.create_task(answer(engine, f"r{i}", 400)) for i in range(3)]
            await asyncio.sleep(0.5)
            assert engine.engine_pid is not None
            os.kill(engine.engine_pid, signal.SIGKILL)
            for failure in await asyncio.gather(*running, return_exceptions=True):
                assert isinstance(failure, EngineDeadError), failure
                assert "died" in str(failure)
            assert engine.state == "restarting"
            with pytest.raises(EngineDeadError, match="restarting"):
                await answer(engine, "meanwhile", 8)
            for _ in range(600):
                if engine.state == "ready":
                    break
                await asyncio.sleep(0.1)
            assert await answer(engine, "after", 8) == before
        finally:
            await engine.close()

    asyncio.run(main())
