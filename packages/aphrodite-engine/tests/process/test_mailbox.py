"""News on the way to their readers."""

import asyncio

import pytest
from aphrodite_engine.errors import (
    ContextLengthError,
    EngineDeadError,
    InternalError,
    OverloadedError,
    RequestError,
)
from aphrodite_engine.outputs import EngineStats, RequestOutput
from aphrodite_engine.process.mailbox import Mailbox, Mailroom
from aphrodite_engine.process.messages import News, Refused


def news(*tokens: int, choice: int = 0, **more: object) -> RequestOutput:
    return RequestOutput(id="r", choice=choice, tokens=list(tokens), **more)


def taken(box: Mailbox) -> list[RequestOutput]:
    return asyncio.run(asyncio.wait_for(box.take(), 1))


def test_what_waits_is_one_record_per_choice_however_slow_the_reader() -> None:
    box = Mailbox()
    box.put(news(1, cached_tokens=16))
    for token in range(2, 1000):
        box.put(news(token))
        box.put(news(-token, choice=1))
    box.put(news(1000, finish_reason="length"))
    first, second = taken(box)
    assert first.tokens == list(range(1, 1001))
    assert first.finish_reason == "length"
    assert first.cached_tokens == 16
    assert second.tokens == [-token for token in range(2, 1000)]


def test_news_is_read_before_the_error_that_followed_it() -> None:
    box = Mailbox()
    box.put(news(1))
    box.fail(EngineDeadError("gone"))
    assert [output.tokens for output in taken(box)] == [[1]]
    for _ in range(2):
        with pytest.raises(EngineDeadError, match="gone"):
            taken(box)


def test_a_reader_waits_for_news() -> None:
    async def main() -> None:
        box = Mailbox()
        reading = asyncio.create_task(box.take())
        await asyncio.sleep(0.01)
        assert not reading.done()
        box.put(news(7))
        assert (await reading)[0].tokens == [7]

    asyncio.run(main())


def test_the_mailroom_sorts_and_forgets() -> None:
    room = Mailroom()
    box = room.open("r")
    with pytest.raises(RequestError, match="already running"):
        room.open("r")
    room.deliver(News([news(1), RequestOutput(id="?", choice=0, tokens=[9])], EngineStats(steps=3)))
    assert room.stats.steps == 3
    assert taken(box)[0].tokens == [1]
    room.close("r")
    room.close("r")
    room.deliver(News([news(2)], EngineStats()))
    room.open("r")


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("context", ContextLengthError),
        ("request", RequestError),
        ("overloaded", OverloadedError),
        ("internal", InternalError),
    ],
)
def test_a_refusal_is_raised_as_the_error_it_was(kind: str, error: type[Exception]) -> None:
    room = Mailroom()
    box = room.open("r")
    room.deliver(Refused("r", kind, "not like this", "prompt"))
    with pytest.raises(error, match="not like this") as caught:
        taken(box)
    assert type(caught.value) is error


def test_death_reaches_every_reader() -> None:
    room = Mailroom()
    boxes = [room.open(str(number)) for number in range(3)]
    room.fail_all(EngineDeadError("killed"))
    for box in boxes:
        with pytest.raises(EngineDeadError, match="killed"):
            taken(box)
