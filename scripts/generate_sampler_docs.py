"""Write docs/samplers.md from the engine's stages, with a drawing of what each does.

`python scripts/generate_sampler_docs.py` rewrites the folder's files; a test compares them with
what this would write. A stage is documented by its declaration alone; it is drawn if one of the
examples below is its own.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import torch
from aphrodite_engine.plan import RowStart
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.description import FieldDescription, StageDescription, describe
from aphrodite_engine.sampling.fields import fields_of, type_words
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.sampler import Sampler, Standing
from aphrodite_engine.sampling.stages.dry import Dry
from aphrodite_kernels.backends import reference
from torch import Tensor

ROOT = Path(__file__).parent.parent
TARGET = Path("docs/samplers.md")
DRAWINGS = Path("docs/samplers")


@dataclass(frozen=True)
class Scene:
    """The twenty tokens that the demo model finds likeliest after a prompt."""

    prompt: str
    words: tuple[str, ...]
    logs: tuple[float, ...]
    """Logarithms of their probabilities."""

    # What stages ask of a tokenizer.

    @property
    def end_ids(self) -> frozenset[int]:
        return frozenset(place for place, word in enumerate(self.words) if word == END)

    @property
    def line_breaks(self) -> frozenset[int]:
        return frozenset()

    def encode_inside(self, text: str) -> list[int]:
        return [self.words.index(word) for word in text.split()]

    def tokens_containing(self, text: str) -> list[int]:
        return [place for place, word in enumerate(self.words) if text in word]

    def tokens_ending(self, text: str) -> list[int]:
        return [place for place, word in enumerate(self.words) if word.endswith(text)]


END = "<|im_end|>"
STORY = Scene(
    "The old man opened the door and saw a",
    (
        *("young", "group", "beautiful", "woman", "man", "stranger", "small", "fire", "ghost"),
        *("figure", "shadow", "lone", "bunch", "gl", "human", "skeleton", "long", "couple"),
        *("hood", "few"),
    ),
    (
        *(-1.82, -2.52, -2.73, -3.28, -3.55, -3.66, -3.99, -4.32, -4.35, -4.52),
        *(-4.54, -4.76, -4.81, -4.83, -4.84, -4.97, -5.04, -5.05, -5.14, -5.17),
    ),
)
ANSWER = Scene(
    "Apple",
    (
        *(END, "is", ":", " -", "\\n", ",", ".", "(", "\u2013", "!"),
        *("was", "has", "-", "and", "\\n\\n", "(spaces)", "can", "(space)\\n", "=", "or"),
    ),
    (
        *(-1.31, -1.48, -2.17, -2.58, -2.60, -2.78, -2.80, -3.71, -5.30, -5.33),
        *(-5.55, -5.91, -5.93, -6.12, -6.19, -6.26, -6.31, -6.37, -6.37, -6.45),
    ),
)
"""In a chat, where the answer to *Name a fruit.* begins with it."""
HISTORY = ("few", "group", "woman", "beautiful", "group", "woman")
"""Tokens so far, for the stages that look back; the first is the prompt."""
DRY = Dry(dry_multiplier=0.8)
BEGUN = 0
"""The token in which the banned string of the example began."""
EXAMPLES: tuple[dict[str, Any], ...] = (
    {"logit_bias": {"2": 2, "0": -2}},
    {"allowed_token_ids": [0, 2, 4, 8, 15]},
    {"custom_token_bans": [0, 3]},
    {"ban_eos_token": True},
    {"bad_words": ["young", "woman"]},
    {"banned_strings": ["young woman"]},
    {"token_ban_ranges": [[[0, 1], 0, 100]]},
    {"repetition_penalty": 1.3, "frequency_penalty": 0.4},
    {"dry_multiplier": 0.8, "dry_sequence_breakers": []},
    {"no_repeat_ngram_size": 3},
    {"temperature": 0.6},
    {"dynatemp_min": 0.5, "dynatemp_max": 1.5},
    {"nsigma": 1},
    {"top_k": 5},
    {"top_p": 0.7},
    {"top_a": 0.5},
    {"min_p": 0.2},
    {"tfs": 0.9},
    {"eta_cutoff": 600},
    {"epsilon_cutoff": 300},
    {"typical_p": 0.3},
    {"smoothing_factor": 0.5},
    {"xtc_probability": 1, "xtc_threshold": 0.08},
    {"skew": 1},
    {"mirostat_mode": 2, "mirostat_tau": 2},
    {"adaptive_target": 0.1},
)
_ELSEWHERE = ("stages", "explain", "max_tokens", "logprobs", "prompt_logprobs")
"""Of `SamplingParams`: the samplers, and what differs from endpoint to endpoint."""
NOTES = {
    "ban_eos_token": "after *Apple*, where a chat model answers *Name a fruit.*",
    "banned_strings": "where that text began, once it was taken back",
}
"""What is to be known of a drawing, by the stage."""

_HEAD = """\
# Samplers

Generated from the stages by `scripts/generate_sampler_docs.py`: change them there.

A sampler is a row of stages between the model's logits and the token that is drawn. Each is a field
of a request, on every endpoint, in the client and offline; a server tells the same at
`/v1/samplers`. A stage whose fields stand at their defaults does nothing and costs nothing, and
`null`, `""`, `[]` and `{}` mean the same as leaving a field out. What one request asks for never
changes another, and the same seed gives the same draws in any company.

Drawings show the twenty tokens that the demo model finds likeliest after
*%s*, if nothing else is said: grey before the stage, blue
after it. Stages that look back see *%s*.

## Order

Stages act in the order of this page:

%s

A request may ask for another:

%s

## Around the samplers

How many texts are made of a prompt, how they are found, and where they end:

%s

## Tuning

Look before you turn: `/v1/samplers/explain` tells how each sampler changes the candidates for a
prompt's next token, so does the client, and offline the field `explain`, such as 20.

```python
from aphrodite_client import Client

told = Client("http://localhost:2242/v1").explain(
    "%s",
    temperature=1,
    top_p=1,
    min_p=0.02,
    xtc_probability=1,
    xtc_threshold=0.08,
)
for effect in told.samplers:
    print(effect.name, effect.candidates.before, "->", effect.candidates.after)
    for token in effect.tokens[:5]:
        print(f"  {token.text!r} {token.before:.3f} -> {token.after:.3f}")
```

**XTC.** Set `xtc_probability` to 1 while you look, and back afterwards. The threshold is compared
with the probabilities that stand as `before` in the explanation: those after temperature and the
filters that come first, so these move what reaches it: a stricter min-p makes more tokens reach
it. At a threshold t at most 1 / t tokens can reach it, all but one of which go; where one or none
does, nothing happens. Where end-of-text or a line break is among those that would go, nothing
happens either, so texts end as usual; `xtc_removes_ends` lifts that. With `temperature_last` the
threshold is compared with probabilities as they are before temperature.

**DRY.** What a token loses that would continue a repetition, with `dry_multiplier` %s, `dry_base`
%s and `dry_allowed_length` %s, and how much less likely that makes it beside all others:

%s

Halve the multiplier and the losses are halved; the base says how fast they grow. Names and
phrases that shall recur are spared by a larger `dry_allowed_length`, or as
`dry_sequence_breakers`: no repetition reaches across one. The prompt counts, too, with all of a
conversation; `dry_range` looks back on so many tokens only. DRY leaves single words alone; those
are what the penalties are for, and `no_repeat_ngram_size` forbids where DRY discourages. To try
settings on others, keep them as [presets](../packages/aphrodite-server/README.md).
"""
_WIDTH, _HEIGHT, _LEFT, _TOP, _SLOT, _BAR = 640, 190, 34, 24, 30, 12
_FLOOR = _TOP + 110
_GREY, _BLUE, _INK = "#b0b4ba", "#3b82f6", "#808890"


def document() -> str:
    """The whole page."""
    described = describe()
    names = [
        f"{stage.order}. [{stage.name}](#{stage.name}){_number(stage)}"
        for stage in described.samplers
    ]
    head = _HEAD % (
        STORY.prompt,
        " ".join(HISTORY[1:]),
        "\n".join(names),
        _table(described.order),
        _limits(),
        STORY.prompt,
        DRY.dry_multiplier,
        DRY.dry_base,
        DRY.dry_allowed_length,
        _losses(),
    )
    examples = dict(_examples())
    return head + "".join(_section(stage, examples) for stage in described.samplers)


def _limits() -> str:
    """The fields of a request that are no sampler's."""
    lines = ["| field | type | range | default | |", "|---|---|---|---|---|"]
    for field in fields_of(SamplingParams):
        if field.name not in _ELSEWHERE:
            kind, default = type_words(field.annotation), json.dumps(field.default)
            told = " ".join(field.doc.split())
            lines.append(f"| `{field.name}` | {kind} | {field.range} | `{default}` | {told} |")
    return "\n".join(lines)


def _losses() -> str:
    """What DRY takes, by the length of the repetition."""
    lines = ["| tokens repeated | loss | times less likely |", "|---|---|---|"]
    for length in (1, 2, 3, 4, 5, 6, 8):
        further = length - DRY.dry_allowed_length
        loss = DRY.dry_multiplier * DRY.dry_base**further if further >= 0 else 0.0
        factor = math.exp(loss)
        shown = f"{factor:.1f}" if factor < 100 else f"{factor:,.0f}"
        lines.append(f"| {length} | {loss:.2f} | {shown} |")
    return "\n".join(lines)


def drawings() -> dict[str, str]:
    """Per file name, what it holds."""
    return {f"{name}.svg": _draw(fields) for name, fields in _examples()}


def _examples() -> list[tuple[str, dict[str, Any]]]:
    """Examples of stages that are present, each with its file's name."""
    found: dict[str, dict[str, Any]] = {}
    for fields in EXAMPLES:
        for stage in stages_from(fields):
            name = (
                stage.name()
                if stage.name() not in found
                else f"{stage.name()}_{next(iter(fields))}"
            )
            found[name] = fields
    return list(found.items())


def _section(stage: StageDescription, examples: dict[str, dict[str, Any]]) -> str:
    drawn = [name for name in examples if stages_from(examples[name])[0].name() == stage.name]
    note = f", {NOTES[stage.name]}" if stage.name in NOTES else ""
    pictures = "".join(
        f"![{stage.name} at work]({DRAWINGS.name}/{name}.svg)\n\n"
        f"`{_written(examples[name])}`{note}\n\n"
        for name in drawn
    )
    return f"\n## {stage.name}\n\n{stage.docs}\n\n{pictures}{_table(stage.fields, stage.docs)}\n"


def _table(fields: Sequence[FieldDescription], told: str = "") -> str:
    """Fields, one per line; what was told already is not told again."""
    lines = ["| field | type | range | default | off | |", "|---|---|---|---|---|---|"]
    for field in fields:
        names = "".join(f", also `{name}`" for name in field.aliases)
        cells = (
            f"`{field.name}`{names}",
            field.type,
            field.range,
            f"`{json.dumps(field.default)}`",
            ", ".join(f"`{json.dumps(value)}`" for value in field.off),
            "" if field.docs == told else " ".join(field.docs.split()),
        )
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines)


def _number(stage: StageDescription) -> str:
    return "" if stage.number is None else f" (also {stage.number})"


def _written(fields: dict[str, Any]) -> str:
    return json.dumps(fields).removeprefix("{").removesuffix("}").replace('"', "")


# What a stage does to the example.


def _draw(fields: dict[str, Any]) -> str:
    scene = ANSWER if "ban_eos_token" in fields else STORY
    before = torch.tensor([scene.logs]).softmax(-1)[0].tolist()
    after = _apply(fields, scene)
    scale = (_FLOOR - _TOP) / max(*before, *after)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<text x="{_LEFT}" y="14" fill="{_INK}">{escape(_written(fields))}</text>',
    ]
    for place, word in enumerate(scene.words):
        x = _LEFT + place * _SLOT
        parts.append(_bar(x, before[place] * scale, _GREY))
        parts.append(_bar(x + _BAR, after[place] * scale, _BLUE))
        y = _FLOOR + 12
        turned = f'transform="rotate(-40 {x + _BAR} {y})" text-anchor="end"'
        parts.append(f'<text x="{x + _BAR}" y="{y}" {turned} fill="{_INK}">{escape(word)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _bar(x: int, height: float, colour: str) -> str:
    pixels = math.ceil(round(height, 3))
    return f'<rect x="{x}" y="{_FLOOR - pixels}" width="{_BAR}" height="{pixels}" fill="{colour}"/>'


def _apply(fields: dict[str, Any], scene: Scene) -> list[float]:
    """Probabilities behind the stages that the fields ask for."""
    seen: list[Tensor] = []
    backend = reference.create(torch.device("cpu"), threads=1, dtype=torch.float32)

    def draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(logits.clone())
        return backend.draw(logits, uniform)

    sampler = Sampler(replace(backend, draw=draw))
    history = [STORY.words.index(word) for word in HISTORY]
    params = SamplingParams(stages=stages_from(fields)).resolve(scene)
    if params.bans is not None:
        params = params.banning(len(history), (BEGUN,))
    sampler.start(
        RowStart(
            row=0,
            request="",
            choice=0,
            tokens=history,
            prompt_length=1,
            params=params,
            seed=0,
            stop_tokens=[],
        )
    )
    at = len(history)
    standing = Standing([0], [at], torch.tensor([at], dtype=torch.int32))
    logits = torch.tensor([scene.logs])
    sampler.sample(logits, standing, torch.tensor([history], dtype=torch.int32))
    return seen[0][0].softmax(-1).tolist()


def write() -> None:
    """Rewrite the page and the drawings."""
    folder = ROOT / DRAWINGS
    folder.mkdir(parents=True, exist_ok=True)
    (ROOT / TARGET).write_text(document(), encoding="utf-8")
    made = drawings()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    for path in folder.glob("*.svg"):
        if path.name not in made:
            path.unlink()


if __name__ == "__main__":
    write()
