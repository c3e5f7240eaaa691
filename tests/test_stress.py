"""Many streams through little memory: nothing leaks, nothing changes anybody's text."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aphrodite_engine import AsyncEngine, EngineConfig, SamplingParams
from aphrodite_engine.sampling.catalog import stages_from

STREAMS = 64
WORDS = ["the", "river", "ran", "past", "an", "old", "mill", "where", "nobody", "lived", "and"]


@dataclass(frozen=True)
class Case:
    """One stream: its request, and after how many pieces its reader leaves (None: never)."""

    prompt: str
    params: SamplingParams
    leaves_after: int | None


def cases() -> list[Case]:
    chooser = random.Random(11)
    made: list[Case] = []
    for index in range(STREAMS):
        words = [chooser.choice(WORDS) for _ in range(chooser.randint(4, 30))]
        fields = {
            "temperature": chooser.choice([0.0, 0.7, 1.3]),
            "top_p": chooser.choice([1.0, 0.9]),
            "min_p": chooser.choice([0.0, 0.05]),
            "repetition_penalty": chooser.choice([1.0, 1.2]),
            "mirostat_mode": chooser.choice([0, 0, 1, 2]),
            "xtc_probability": chooser.choice([0.0, 0.5]),
            "dry_multiplier": chooser.choice([0.0, 0.8]),
            "rep_pen_range": chooser.choice([0, 30]),
            "bad_words": chooser.choice([[], [], ["the", "of a"]]),
            "banned_strings": chooser.choice([[], [], ["it", "an old ", "er"]]),
            "no_repeat_ngram_size": chooser.choice([0, 0, 4]),
            "dynatemp_range": chooser.choice([0.0, 0.4]),
            chooser.choice(["tfs", "typical_p"]): chooser.choice([1.0, 1.0, 1.0, 0.9]),
            chooser.choice(["skew", "smoothing_factor", "nsigma"]): chooser.choice([0.0, 0.8]),
        }
        params = SamplingParams(
            max_tokens=chooser.randint(8, 64), seed=index, stages=stages_from(fields)
        )
        leaves = chooser.randint(1, 3) if chooser.random() < 0.2 else None
        made.append(Case(" ".join(words), params, leaves))
    return made


@asynccontextmanager
async def running(**options: object) -> AsyncIterator[AsyncEngine]:
    engine = await AsyncEngine.start(EngineConfig(model="demo", **options))
    try:
        yield engine
    finally:
        await engine.close()


async def text_of(engine: AsyncEngine, case: Case, request_id: str) -> str:
    pieces: list[str] = []
    prompt = engine.tokenizer.encode(case.prompt)
    stream = engine.generate(prompt, case.params, request_id=request_id)
    async for news in stream:
        pieces.append(news.text)
        if case.leaves_after is not None and len(pieces) >= case.leaves_after:
            await stream.aclose()
            break
    return "".join(pieces)


async def idle(engine: AsyncEngine) -> None:
    """Return once no request is left; aborts are messages and take a moment."""
    for _ in range(100):
        await asyncio.sleep(0.1)
        if engine.stats.running == engine.stats.waiting == 0:
            return
    raise AssertionError(f"the engine does not come to rest: {engine.stats}")


@pytest.mark.slow
@pytest.mark.weights
def test_streams_through_little_memory_equal_their_solo_runs() -> None:
    async def main() -> None:
        small = {"max_model_len": 256, "deterministic": True}
        together = cases()
        async with running(**small, max_num_seqs=24, kv_cache_memory=20 << 20) as engine:
            crowd = await asyncio.gather(
                *(text_of(engine, case, f"crowd-{i}") for i, case in enumerate(together))
            )
            await idle(engine)
            stats = engine.stats
            assert stats.preemptions > 0, stats
            assert stats.kv_blocks_free == stats.kv_blocks, stats
        async with running(**small, max_num_seqs=1, enable_prefix_caching=False) as engine:
            for index in range(0, STREAMS, 3):
                if together[index].leaves_after is None:
                    alone = await text_of(engine, together[index], f"alone-{index}")
                    assert crowd[index] == alone, index

    asyncio.run(main())
