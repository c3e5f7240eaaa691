"""The stages that are present, and the road from wire fields to stages.

A stage is present when its file is in stages/; nothing else names it. What it means that a field
has several names, comes empty or is left out for a default stands here alone. Knows no tensors.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import msgspec

from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling import stages as stages_package
from aphrodite_engine.sampling.fields import Field, check_value
from aphrodite_engine.sampling.priority import ORDER_ALIASES, ORDER_FIELDS, Places
from aphrodite_engine.sampling.spelling import agreed, is_empty
from aphrodite_engine.sampling.stage import Stage


@cache
def stages() -> tuple[type[Stage], ...]:
    """Every stage that is present, in default order."""
    found: list[type[Stage]] = []
    for module_info in pkgutil.iter_modules(stages_package.__path__):
        module = importlib.import_module(f"{stages_package.__name__}.{module_info.name}")
        found += [
            item
            for item in vars(module).values()
            if isinstance(item, type)
            and issubclass(item, Stage)
            and item.__module__ == module.__name__
        ]
    return tuple(sorted(found, key=lambda stage: stage.order))


class StageField(msgspec.Struct, frozen=True, kw_only=True):
    """A wire field and where it belongs."""

    stage: type[Stage]
    field: Field
    aliases: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.field.name


@cache
def stage_fields() -> tuple[StageField, ...]:
    """Every wire field of every stage: what schemas, the client and documentation are made from."""
    return tuple(
        StageField(stage=stage, field=field, aliases=stage.aliases.get(field.name, ()))
        for stage in stages()
        if stage.wire
        for field in stage.wire_fields()
    )


@cache
def parameters() -> Mapping[str, str]:
    """Every wire name that shapes draws, and the parameter's own name that it stands for."""
    aliases = {declared.name: declared.aliases for declared in stage_fields()}
    aliases |= {field.name: ORDER_ALIASES.get(field.name, ()) for field in ORDER_FIELDS}
    return {name: own for own, others in aliases.items() for name in (own, *others)}


def is_left_out(name: str, value: object) -> bool:
    """The value is as good as no field: null, "", [] or {}, unless its emptiness says something."""
    if value is None or not is_empty(value):
        return value is None
    return value == {} or parameters().get(name) not in _said_by_emptiness()


@cache
def _said_by_emptiness() -> frozenset[str]:
    return frozenset[str]().union(*(stage.empty_values for stage in stages()))


def filled(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Fields, completed by those of `defaults` whose parameters they do not set by any name."""
    own = {name: value for name, value in given.items() if not is_left_out(name, value)}
    names = parameters()
    taken = {names.get(name, name) for name in own}
    return {name: v for name, v in defaults.items() if names.get(name, name) not in taken} | own


def stages_from(fields: Mapping[str, Any]) -> tuple[Stage, ...]:
    """Make stages of wire fields; other fields are left alone.

    They stand in the order of `sampler_priority`, or else in the default order. Fields that are as
    good as left out are. A field and its aliases may come together if they agree. A stage that
    would be the identity is left out.

    Raises:
        RequestError: a value has the wrong type or is out of range, aliases disagree, or the order
            names what is no stage.
    """
    given = filled(fields, {})
    chosen: dict[type[Stage], dict[str, object]] = {}
    for declared in stage_fields():
        value = _given(given, declared)
        if value is not None:
            chosen.setdefault(declared.stage, {})[declared.name] = value
    made = (stage(**values) for stage, values in chosen.items())
    active = sorted((stage for stage in made if stage.active), key=lambda stage: stage.order)
    return places().arrange(given, active)


@cache
def places() -> Places:
    """What the stages are called in orders."""
    return Places(stages())


def _given(fields: Mapping[str, Any], declared: StageField) -> object:
    """The value of a field under any of its names, or None."""
    return agreed(
        {
            name: _accept(name, fields[name], declared)
            for name in (declared.name, *declared.aliases)
            if name in fields
        }
    )


def _accept(name: str, value: object, declared: StageField) -> object:
    """Wire value to declared type (JSON knows no tuples and no integer keys), checked."""
    field = declared.field
    try:
        read = declared.stage.read(declared.name, value)
        typed = msgspec.convert(read, field.type, str_keys=True)
    except msgspec.ValidationError:
        raise RequestError(f"{name} must be {field.wanted}, found {value!r:.60}", name) from None
    except UnicodeEncodeError:
        raise RequestError(
            f"{name} holds a lone surrogate, which is no text; leave it out", name
        ) from None
    if typed not in declared.stage.off_values.get(declared.name, ()):
        check_value(name, typed, field.annotation)
    return typed


if TYPE_CHECKING:
    AnyStage: TypeAlias = Stage
else:
    AnyStage = Union[stages()]  # noqa: UP007 - made at run time: what msgspec decodes by tag
