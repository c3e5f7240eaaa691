"""Where every completion stands: parked, waiting or running.

The completions of one prompt share its blocks. So one of them goes ahead; the others are parked
until it has computed the prompt, or are promoted one by one if it is over before that.
"""

from dataclasses import dataclass

from aphrodite_engine.request import Request, Status
from aphrodite_engine.scheduling.policy import Order, RequestQueue


@dataclass(slots=True)
class _Family:
    """The completions of one EngineRequest that are not finished."""

    members: list[Request]
    parked: list[Request]

    def promoted(self) -> Request | None:
        """A parked completion that must go ahead, as nobody else does."""
        going = any(
            member.status is not Status.HELD and member not in self.parked
            for member in self.members
        )
        return self.parked.pop(0) if self.parked and not going else None


class Roster:
    """All unfinished completions, by request id and by status."""

    def __init__(self, order: Order) -> None:
        self.waiting = RequestQueue(order)
        """Those that could start now."""
        self.running = RequestQueue(order)
        self._families: dict[str, _Family] = {}

    def __bool__(self) -> bool:
        return bool(self._families)

    @property
    def busy(self) -> bool:
        """Some are not held."""
        return bool(self.running or self.waiting)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._families

    @property
    def idle(self) -> int:
        """Completions that do not run, parked ones included."""
        return len(self.waiting) + sum(len(family.parked) for family in self._families.values())

    def members(self, request_id: str) -> list[Request]:
        """Unfinished completions of a request, parked ones last; none for an unknown id."""
        family = self._families.get(request_id)
        return family.members.copy() if family else []

    def all(self) -> list[Request]:
        """Every unfinished completion."""
        return [member for family in self._families.values() for member in family.members]

    def add(self, members: list[Request], leaders: int) -> None:
        """Take in the completions of a request; all but the first few are parked."""
        self._families[members[0].id] = _Family(members, members[leaders:])
        for leader in members[:leaders]:
            self.waiting.add(leader)

    def start(self, request: Request) -> None:
        """From waiting to running."""
        self.waiting.remove(request)
        self.running.add(request)
        request.status = Status.RUNNING

    def suspend(self, request: Request) -> None:
        """From running to waiting."""
        self.running.remove(request)
        self.waiting.add(request)
        request.status = Status.WAITING

    def hold(self, request: Request) -> None:
        """It is at its end; its reader says whether it stays so."""
        (self.running if request.status is Status.RUNNING else self.waiting).remove(request)
        request.status = Status.HELD
        self._promote(self._families[request.id])

    def resume(self, request: Request) -> None:
        """From being held to waiting."""
        self.waiting.add(request)
        request.status = Status.WAITING

    def _promote(self, family: _Family) -> None:
        promoted = family.promoted()
        if promoted is not None:
            self.waiting.add(promoted)

    def unpark(self, request: Request) -> None:
        """This completion has computed the prompt: the others of it can start."""
        family = self._families[request.id]
        for sibling in family.parked:
            self.waiting.add(sibling)
        family.parked.clear()

    def finish(self, request: Request) -> None:
        """Forget a completion, wherever it stands."""
        family = self._families[request.id]
        family.members.remove(request)
        if request in family.parked:
            family.parked.remove(request)
        elif request.status is Status.RUNNING:
            self.running.remove(request)
        elif request.status is Status.WAITING:
            self.waiting.remove(request)
        request.status = Status.FINISHED
        if not family.members:
            del self._families[request.id]
        else:
            self._promote(family)
