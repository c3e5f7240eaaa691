"""The order in which a request's stages act, where it asks for one of its own.

Knows no tensors, and no stage: numbers and names that clients have always sent stand for the
stages that own the fields beside them, as far as these are present.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import msgspec

from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.fields import fields_of
from aphrodite_engine.sampling.spelling import agreed, is_empty
from aphrodite_engine.sampling.stage import Stage

Kind: TypeAlias = type[Stage]


class StageOrder(msgspec.Struct, frozen=True):
    """What a request says of the order."""

    sampler_priority: tuple[str | int, ...] = ()
    """Names or numbers of samplers in the order in which they shall act. Those that it does not
    name keep their places in the default order; those that it names share out the places that
    they have there. Empty is the default order.
    """
    temperature_last: bool = False
    """Temperature acts on what the filters leave, just after XTC. Without effect beside
    sampler_priority, which says itself where temperature stands.
    """


ORDER_FIELDS: Final = fields_of(StageOrder)
ORDER_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {"sampler_priority": ("sampler_order",)}
_PRIORITY = "sampler_priority"
_LAST = "temperature_last"


@dataclass(frozen=True, slots=True)
class _Classic:
    """A number that clients know; its index in the table."""

    name: str
    fields: tuple[str, ...]
    """It stands for the stages that own these."""


_CLASSICS = (
    _Classic("top_p_top_k", ("top_k", "top_p")),
    _Classic("top_a", ("top_a",)),
    _Classic("min_p", ("min_p",)),
    _Classic("tfs", ("tfs",)),
    _Classic("typical_p", ("typical_p",)),
    _Classic("temperature", ("temperature", "dynatemp_min")),
    _Classic("penalties", ("repetition_penalty", "presence_penalty", "frequency_penalty")),
    _Classic("dry", ("dry_multiplier",)),
    _Classic("no_repeat_ngram", ("no_repeat_ngram_size",)),
    _Classic("top_nsigma", ("nsigma",)),
    _Classic("eta_cutoff", ("eta_cutoff",)),
    _Classic("epsilon_cutoff", ("epsilon_cutoff",)),
    _Classic("quadratic", ("smoothing_factor",)),
    _Classic("xtc", ("xtc_probability",)),
)


class Places:
    """What the stages that are present are called in an order, and how orders rearrange them."""

    def __init__(self, stages: Sequence[Kind]) -> None:
        self._stages = [stage for stage in stages if stage.wire]
        owners = {field.name: stage for stage in self._stages for field in fields_of(stage)}
        self._called: dict[str | int, list[Kind]] = {}
        for stage in self._stages:
            for field in fields_of(stage):
                for name in (field.name, *stage.aliases.get(field.name, ())):
                    self._called[name] = [stage]
        self._called.update({stage.name(): [stage] for stage in self._stages})
        for number, classic in enumerate(_CLASSICS):
            kinds = {owners[field] for field in classic.fields if field in owners}
            several = sorted(kinds, key=lambda kind: kind.order)
            self._called[number] = self._called[classic.name] = several

    def number(self, stage: Kind) -> int | None:
        """The number that clients know a stage by."""
        numbers = [name for name, kinds in self._called.items() if stage in kinds]
        return next((name for name in numbers if isinstance(name, int)), None)

    def arrange(self, fields: Mapping[str, Any], made: Sequence[Stage]) -> tuple[Stage, ...]:
        """Stages in the order that wire fields ask for; `made` is in default order.

        Raises:
            RequestError: an entry is no sampler, or comes twice.
        """
        name, entries = _asked(fields)
        last = _wants_temperature_last(fields)
        if entries:
            order = self._shared_out(name, entries)
        elif last:
            order = self._temperature_last()
        else:
            return tuple(made)
        return tuple(sorted(made, key=lambda stage: order.index(type(stage))))

    def _shared_out(self, name: str, entries: Sequence[str | int]) -> list[Kind]:
        """All stages; those that are named take the places that they have together."""
        named = list(dict.fromkeys(kind for entry in entries for kind in self._find(name, entry)))
        waiting = iter(named)
        return [next(waiting) if kind in named else kind for kind in self._stages]

    def _temperature_last(self) -> list[Kind]:
        moved, before = self._called["temperature"], self._called["xtc"] or self._stages[-1:]
        order = [kind for kind in self._stages if kind not in moved]
        at = order.index(before[-1]) + 1
        return [*order[:at], *moved, *order[at:]]

    def _find(self, name: str, entry: str | int) -> list[Kind]:
        kinds = self._called.get(entry.strip().lower() if isinstance(entry, str) else entry)
        if kinds is None:
            raise RequestError(f"{name} names no sampler {entry!r:.60}; {self._valid()}", name)
        return kinds

    def _valid(self) -> str:
        names = ", ".join(stage.name() for stage in self._stages)
        numbers = ", ".join(f"{number} ({each.name})" for number, each in enumerate(_CLASSICS))
        return f"samplers are {names}; numbers are {numbers}"


def _asked(fields: Mapping[str, Any]) -> tuple[str, list[str | int]]:
    """The name under which an order came, and its entries."""
    lists = {
        name: _entries(name, fields[name])
        for name in (_PRIORITY, *ORDER_ALIASES[_PRIORITY])
        if not is_empty(fields.get(name))
    }
    return next(iter(lists), _PRIORITY), agreed(lists) or []


def _wants_temperature_last(fields: Mapping[str, Any]) -> bool:
    value = fields.get(_LAST)
    if is_empty(value):
        return False
    if not isinstance(value, bool):
        raise RequestError(f"{_LAST} must be true or false, found {value!r:.60}", _LAST)
    return value


def _entries(name: str, value: object) -> list[str | int]:
    if not isinstance(value, list | tuple):
        raise RequestError(
            f"{name} must be a list of names or numbers of samplers, found {value!r:.60}", name
        )
    entries: list[str | int] = []
    for entry in cast("Sequence[object]", value):
        if isinstance(entry, bool) or not isinstance(entry, str | int):
            raise RequestError(f"{name} holds names or numbers, found {entry!r:.60}", name)
        if entry in entries:
            raise RequestError(f"{name} names {entry!r:.60} twice", name)
        entries.append(entry)
    return entries
