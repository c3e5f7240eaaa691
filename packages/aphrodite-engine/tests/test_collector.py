"""What the garbage collector looks at while requests are under way."""

import gc

import pytest
from aphrodite_engine.collector import newcomers_only
from aphrodite_engine.llm import LLM


def known_to_collector(thing):
    return any(seen is thing for seen in gc.get_objects())


def test_newcomers_only():
    old = [{}]
    with newcomers_only():
        new = [{}]
        assert not known_to_collector(old)
        assert known_to_collector(new)
    assert known_to_collector(old)


def test_after_an_error_too():
    old = [{}]
    with pytest.raises(ValueError, match="no"), newcomers_only():
        raise ValueError("no")
    assert known_to_collector(old)


def test_while_an_llm_generates():
    old, seen = [{}], []

    class Watched(LLM):
        def __init__(self):
            self._defaults = {}

        def _draw(self, prompts, asked, *, progress):
            seen.append(known_to_collector(old))
            return []

    assert Watched().generate([], []) == []
    assert seen == [False]
    assert known_to_collector(old)
