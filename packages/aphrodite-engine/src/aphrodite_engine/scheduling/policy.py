"""Who comes first: the order in which requests are admitted, and kept when blocks run out.

Both orders are total, so the first request of all can always take what it needs from the others:
that is why the scheduler cannot deadlock.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator

from aphrodite_engine.errors import ConfigError
from aphrodite_engine.request import Request

Order = Callable[[Request], tuple[float, ...]]
"""Smaller comes first; no two requests are equal."""


def by_arrival(request: Request) -> tuple[float, ...]:
    """First come, first served."""
    return (request.sequence, request.choice)


def by_priority(request: Request) -> tuple[float, ...]:
    """Lower priority values first, then arrival."""
    return (request.priority, request.arrival, request.sequence, request.choice)


def order_named(name: str) -> Order:
    """The order of `fcfs` or `priority`."""
    match name:
        case "fcfs":
            return by_arrival
        case "priority":
            return by_priority
        case _:
            raise ConfigError(
                f"scheduling policy {name!r} does not exist; choose 'fcfs' or 'priority'"
            )


class RequestQueue:
    """Requests, always in order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._requests: list[Request] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    @property
    def first(self) -> Request:
        return self._requests[0]

    @property
    def last(self) -> Request:
        return self._requests[-1]

    def add(self, request: Request) -> None:
        """Put a request into its place."""
        insort(self._requests, request, key=self._order)

    def remove(self, request: Request) -> None:
        """Take a request out; it must be there."""
        index = bisect_left(self._requests, self._order(request), key=self._order)
        found = self._requests.pop(index)
        assert found is request, "the queue is out of order"
