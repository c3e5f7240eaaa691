"""Stop strings, against a search that looks at every prefix of the text."""

from itertools import pairwise

import pytest
from aphrodite_engine.errors import RequestError
from aphrodite_engine.text.stop import StopSearch, StopStrings
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = st.text(alphabet="ab.", max_size=30)
STOPS = st.lists(st.text(alphabet="ab.", min_size=1, max_size=5), max_size=6)


def plain_search(text, stops):
    """(end, string): the first complete match; at one end, the longest."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return end, max(found, key=len)
    return None


def plain_held(text, stops):
    return max(
        (n for stop in stops for n in range(len(stop) + 1) if text.endswith(stop[:n])), default=0
    )


@settings(max_examples=400, deadline=None)
@given(text=TEXT, stops=STOPS, cuts=st.sets(st.integers(0, 30)))
def test_every_chunking_finds_what_the_plain_search_finds(text, stops, cuts):
    search = StopSearch(StopStrings(stops))
    places = [0, *sorted(cut for cut in cuts if 0 < cut < len(text)), len(text)]
    for start, end in pairwise(places):
        hit = search.feed(text[start:end])
        if hit is not None:
            assert (start + hit[0], hit[1]) == plain_search(text, stops)
            return
        assert search.held == plain_held(text[:end], stops)
    assert plain_search(text, stops) is None


def test_hundreds_of_long_strings():
    stops = [f"{number:03}" * 50 for number in range(500)]
    search = StopSearch(StopStrings(stops))
    assert search.feed("x" * 1000) is None
    assert search.held == 0
    assert search.feed("007" * 49) is None
    assert search.held == 147
    assert search.feed("007") == (3, "007" * 50)


def test_an_empty_string_is_refused():
    with pytest.raises(RequestError, match="stop string is empty"):
        StopStrings(["a", ""])
