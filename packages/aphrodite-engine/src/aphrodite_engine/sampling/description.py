"""What is to be known of every stage that is present, as plain data: for user interfaces and docs.

All of it is read from the declarations; a new stage is described without a change here.
"""

import inspect
from functools import cache
from typing import Any, Final

import msgspec
from annotated_types import Ge, Gt, Le, Lt

from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.catalog import StageField, places, stage_fields, stages
from aphrodite_engine.sampling.fields import Bound, Field, type_words
from aphrodite_engine.sampling.priority import ORDER_ALIASES, ORDER_FIELDS
from aphrodite_engine.sampling.stage import Stage

_FINE: Final = 0.01
"""Step of a number that is no integer."""


class FieldDescription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One field of a request."""

    name: str
    aliases: list[str] = []
    """Other names that it may be sent by."""
    type: str
    """As JSON has it: `number`, `integer`, `boolean`, `string`, or `list of …`, `map from …`,
    `[…, …]`: a list of just these.
    """
    minimum: float | None = None
    exclusive_minimum: float | None = None
    maximum: float | None = None
    exclusive_maximum: float | None = None
    range: str = ""
    """The four above, in words."""
    step: float | None = None
    """By which a slider may move; of numbers."""
    default: Any = msgspec.field()
    """What an absent field means."""
    off: list[Any] = []
    """Values that switch it off, besides null and whatever is empty; none: it is a parameter of a
    stage that other fields switch on."""
    docs: str


class StageDescription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stage."""

    name: str
    """Also in `sampler_priority`."""
    number: int | None = None
    """The same, for clients that number them."""
    order: int
    """Place in the default order, counted from 1."""
    docs: str
    fields: list[FieldDescription]


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that shapes how a token is drawn."""

    samplers: list[StageDescription]
    """In default order."""
    order: list[FieldDescription]
    """Fields that change it."""


@cache
def describe() -> Description:
    """Describe the stages that requests can use."""
    wire = [stage for stage in stages() if stage.wire]
    return Description(
        samplers=[
            StageDescription(
                name=stage.name(),
                number=places().number(stage),
                order=place,
                docs=inspect.cleandoc(stage.__doc__ or ""),
                fields=[_of_stage(each) for each in stage_fields() if each.stage is stage],
            )
            for place, stage in enumerate(wire, 1)
        ],
        order=[
            _described(field, ORDER_ALIASES.get(field.name, ()), [field.default])
            for field in ORDER_FIELDS
        ],
    )


def _of_stage(declared: StageField) -> FieldDescription:
    stage, field = declared.stage, declared.field
    off = [field.default, *stage.off_values.get(field.name, ())]
    return _described(field, declared.aliases, off if _switches(stage, field) else [])


def _described(field: Field, aliases: tuple[str, ...], off: list[Any]) -> FieldDescription:
    limits = {type(bound): _limit(bound) for bound in field.bounds}
    return FieldDescription(
        name=field.name,
        aliases=list(aliases),
        type=type_words(field.type),
        minimum=limits.get(Ge),
        exclusive_minimum=limits.get(Gt),
        maximum=limits.get(Le),
        exclusive_maximum=limits.get(Lt),
        range=field.range,
        step=_step(field),
        default=field.default,
        off=off,
        docs=field.doc,
    )


def _limit(bound: Bound) -> Any:
    match bound:
        case Ge(limit) | Gt(limit) | Le(limit) | Lt(limit):
            return limit


def _step(field: Field) -> float | None:
    return {int: 1, float: _FINE}.get(field.type)


def _switches(stage: type[Stage], field: Field) -> bool:
    """Whether the field alone can make the stage do anything."""
    if field.type not in (float, int, bool):
        return not field.default
    return any(_acts(stage, field, value) for value in _samples(field))


def _samples(field: Field) -> list[float | bool]:
    if field.type is bool:
        return [not field.default]
    ends = [_limit(bound) for bound in field.bounds]
    middle = [sum(ends) / 2] if len(ends) == 2 else []
    around = [field.default + step for step in (-1, -0.5, 0.5, 1, 10)]
    return [field.type(value) for value in (*ends, *middle, *around)]


def _acts(stage: type[Stage], field: Field, value: float) -> bool:
    try:
        return value != field.default and stage(**{field.name: value}).active
    except RequestError:
        return False  # outside the bounds
