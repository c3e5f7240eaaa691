"""Write the client's sampling keywords from the engine's stages.

`python scripts/generate_client.py` rewrites the file; a test compares it with what this would
write. The client itself never imports the engine.
"""

import json
import textwrap
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from aphrodite_engine.sampling.catalog import stage_fields
from aphrodite_engine.sampling.fields import Field, fields_of
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.priority import ORDER_ALIASES, ORDER_FIELDS
from aphrodite_server.schema import GenerationRequest

TARGET = Path("packages/aphrodite-client/src/aphrodite_client/wire/sampling.py")
_ELSEWHERE = {"n", "max_tokens", "stop", "seed", "logprobs", "explain", "stages"}
"""Limits that the official client knows or that have a path of their own, and the sampler."""
_PRESET = Field(
    name="preset",
    annotation=str,
    default=None,
    doc=GenerationRequest.model_fields["preset"].description or "",
)
_HEAD = '''"""Sampling fields of a request.

Generated from the engine's stages by scripts/generate_client.py: change them there.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class SamplingFields(TypedDict, total=False):
    """Fields that shape how tokens are drawn; a field left out is off."""
'''


def source() -> str:
    """The whole file."""
    stages = [(declared.field, declared.aliases) for declared in stage_fields()]
    stages += [(field, ORDER_ALIASES.get(field.name, ())) for field in ORDER_FIELDS]
    limits = [(field, ()) for field in fields_of(SamplingParams) if field.name not in _ELSEWHERE]
    limits.append((_PRESET, ()))
    return _HEAD + "".join(_entry(field, aliases) for field, aliases in [*stages, *limits])


def _entry(field: Field, aliases: tuple[str, ...]) -> str:
    kind = field.annotation if get_origin(field.type) is Literal else field.type
    notes = [field.doc.rstrip(".") + "."]
    if field.range:
        notes.append(f"Must be {field.range}.")
    if aliases:
        notes.append(f"Also named {', '.join(aliases)}.")
    text = " ".join(" ".join(notes).split())
    lines = textwrap.wrap(f'"""{text}', 92)
    lines = [*lines, '"""'] if len(lines) > 1 else [f'{lines[0]}"""']
    documented = textwrap.indent("\n".join(lines), "    ")
    return f"\n    {field.name}: {_type(kind)} | None\n{documented}\n"


def _type(kind: Any) -> str:
    """The type as a caller writes it: any sequence or mapping will do."""
    if get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis:
        return f"Sequence[{_type(get_args(kind)[0])}]"
    if get_origin(kind) is tuple:
        return f"tuple[{', '.join(_type(item) for item in get_args(kind))}]"
    if get_origin(kind) is dict:
        key, value = get_args(kind)
        return f"Mapping[{_type(key)}, {_type(value)}]"
    if hasattr(kind, "__metadata__"):
        return _type(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return f"Literal[{', '.join(json.dumps(item) for item in get_args(kind))}]"
    if get_origin(kind) in (Union, types.UnionType):
        return " | ".join(_type(member) for member in get_args(kind))
    return kind.__name__


if __name__ == "__main__":
    (Path(__file__).parent.parent / TARGET).write_text(source(), encoding="utf-8")
