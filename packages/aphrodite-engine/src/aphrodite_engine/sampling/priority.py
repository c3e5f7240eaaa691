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
from aphrodite_engine.sampling.spelling import agreed
from aphrodite_engine.sampling.stage import Stage

Kind: TypeAlias = type[Stage]


class StageOrder(msgspec.Struct, frozen=True):
    """What a request says of the order."""

    sampler_priority: tuple[str | int, ...] = ()
    """Names or numbers of samplers in the order in which they shall act. Those that it does not
    name keep their places in the default order; those that it names share out the places that
    they have there. Empty is the default order. As sampler_order its numbers are Kobold's: 0 top_k,
    1 top_a, 2 top_p and min_p, 3 tfs, 4 typical_p, 5 temperature and quadratic, 6 penalties.
    """
    temperature_last: bool = False
    """Temperature acts on what the filters leave, just after XTC. Without effect beside
    sampler_priority, which says itself where temperature stands.
    """


ORDER_FIELDS: Final = fields_of(StageOrder)
_PRIORITY, _KOBOLDS = "sampler_priority", "sampler_order"
_LAST = "temperature_last"
ORDER_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {_PRIORITY: (_KOBOLDS,)}


@dataclass(frozen=True, slots=True)
class _Known:
    """What clients call samplers in an order: a name, or its index in a table of numbers."""

    name: str
    fields: tuple[str, ...]
    """It stands for the stages that own these."""


_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")
_CLASSICS = (
    _Known("top_p_top_k", ("top_k", "top_p")),
    _Known("top_a", ("top_a",)),
    _Known("min_p", ("min_p",)),
    _Known("tfs", ("tfs",)),
    _Known("typical_p", ("typical_p",)),
    _Known("temperature", ("temperature",)),
    _Known("penalties", _PENALTIES),
    _Known("dry", ("dry_multiplier",)),
    _Known("no_repeat_ngram", ("no_repeat_ngram_size",)),
    _Known("top_nsigma", ("nsigma",)),
    _Known("eta_cutoff", ("eta_cutoff",)),
    _Known("epsilon_cutoff", ("epsilon_cutoff",)),
    _Known("quadratic", ("smoothing_factor",)),
    _Known("xtc", ("xtc_probability",)),
)
_WEBUI = (
    _Known("quadratic_sampling", ("smoothing_factor",)),
    _Known("encoder_repetition_penalty", ()),
)
"""Names of text-generation-webui that are no fields here; one is of a sampler that is not here."""
_NUMBERS: Final[Mapping[str, tuple[_Known, ...]]] = {
    _PRIORITY: _CLASSICS,
    _KOBOLDS: (
        _Known("top_k", ("top_k",)),
        _Known("top_a", ("top_a",)),
        _Known("top_p and min_p", ("top_p", "min_p")),
        _Known("tfs", ("tfs",)),
        _Known("typical_p", ("typical_p",)),
        _Known("temperature and quadratic", ("temperature", "smoothing_factor")),
        _Known("penalties", _PENALTIES),
    ),
}
"""By the field that they stand in: Kobold's are not the others."""


class Places:
    """What the stages that are present are called in an order, and how orders rearrange them."""

    def __init__(self, stages: Sequence[Kind]) -> None:
        self._stages = [stage for stage in stages if stage.wire]
        owners = {field.name: stage for stage in self._stages for field in fields_of(stage)}
        self._called: dict[str, list[Kind]] = {}
        for stage in self._stages:
            for field in stage.wire_fields():
                for name in (field.name, *stage.aliases.get(field.name, ())):
                    self._called[name] = [stage]
        self._called.update({stage.name(): [stage] for stage in self._stages})
        self._numbered = {
            name: [_several(owners, each.fields) for each in table]
            for name, table in _NUMBERS.items()
        }
        self._called.update(
            {each.name: _several(owners, each.fields) for each in (*_CLASSICS, *_WEBUI)}
        )

    def number(self, stage: Kind) -> int | None:
        """The number that clients know a stage by in `sampler_priority`."""
        places = enumerate(self._numbered[_PRIORITY])
        return next((number for number, kinds in places if stage in kinds), None)

    def arrange(self, fields: Mapping[str, Any], made: Sequence[Stage]) -> tuple[Stage, ...]:
        """Stages in the order that wire fields, none of them empty, ask for.

        Args:
            fields: of the request.
            made: in default order.

        Raises:
            RequestError: an entry is no sampler, or comes twice.
        """
        named = self._asked(fields)
        last = _wants_temperature_last(fields)
        if named:
            order = self._shared_out(named)
        elif last:
            order = self._temperature_last()
        else:
            return tuple(made)
        return tuple(sorted(made, key=lambda stage: order.index(type(stage))))

    def _asked(self, fields: Mapping[str, Any]) -> list[str]:
        """Names of the stages in the order asked for; none if no order is."""
        orders = {name: self._stages_in(name, fields[name]) for name in _NUMBERS if name in fields}
        return agreed(orders) or []

    def _stages_in(self, name: str, value: object) -> list[str]:
        found = (kind for entry in _entries(name, value) for kind in self._find(name, entry))
        return list(dict.fromkeys(kind.name() for kind in found))

    def _shared_out(self, named: Sequence[str]) -> list[Kind]:
        """All stages; those that are named take the places that they have together."""
        by_name = {kind.name(): kind for kind in self._stages}
        waiting = (by_name[name] for name in named)
        return [next(waiting) if kind.name() in named else kind for kind in self._stages]

    def _temperature_last(self) -> list[Kind]:
        moved, before = self._called["temperature"], self._called["xtc"] or self._stages[-1:]
        order = [kind for kind in self._stages if kind not in moved]
        at = order.index(before[-1]) + 1
        return [*order[:at], *moved, *order[at:]]

    def _find(self, name: str, entry: str | int) -> list[Kind]:
        if isinstance(entry, str):
            kinds = self._called.get(entry.strip().lower())
        else:
            numbered = self._numbered[name]
            kinds = numbered[entry] if 0 <= entry < len(numbered) else None
        if kinds is None:
            raise RequestError(f"{name} names no sampler {entry!r:.60}; {self._valid(name)}", name)
        return kinds

    def _valid(self, name: str) -> str:
        names = ", ".join(stage.name() for stage in self._stages)
        numbers = ", ".join(f"{number} ({each.name})" for number, each in enumerate(_NUMBERS[name]))
        return f"samplers are {names}; numbers in {name} are {numbers}"


def _several(owners: Mapping[str, Kind], fields: Sequence[str]) -> list[Kind]:
    """The stages that are present among those that own fields, in default order."""
    return sorted({owners[name] for name in fields if name in owners}, key=lambda kind: kind.order)


def _wants_temperature_last(fields: Mapping[str, Any]) -> bool:
    value = fields.get(_LAST, False)
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
