"""What one request asks of generation: limits, stops, seed, and the stages of its sampler."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, cast, get_origin

import msgspec
from annotated_types import Ge, Le, Lt

from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.catalog import AnyStage, filled, parameters, stages_from
from aphrodite_engine.sampling.fields import TokenId, check_struct, check_tokens, fields_of
from aphrodite_engine.sampling.spelling import seed_in, stops_in
from aphrodite_engine.sampling.stages.banned_strings import BannedStrings
from aphrodite_engine.sampling.tokenizer import Tokenizer


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How to generate one request."""

    n: Annotated[int, Ge(1), Le(1024)] = 1
    """Completions of the prompt, each with draws of its own."""
    best_of: Annotated[int, Ge(1), Le(1024)] | None = None
    """Completions to generate, of which the n with the highest log-probability per token are
    kept, best first; the width of a beam search. None: n."""
    use_beam_search: bool = False
    """Search for the likeliest completions instead of drawing them. Of the samplers those act that
    ban tokens or bias them; log-probabilities are those after them."""
    length_penalty: Annotated[float, Ge(-16), Le(16)] = 1.0
    """A beam's log-probability is divided by its length to this power; higher is longer."""
    early_stopping: Literal["never"] | bool = False
    """When a beam search ends: true: as soon as there are as many completions as beams; false:
    once no beam is likely to beat them; "never": once none can."""
    max_tokens: Annotated[int, Ge(0)] | None = None
    """Most tokens to generate; None: the rest of the context."""
    min_tokens: Annotated[int, Ge(0)] = 0
    """End-of-text and stop tokens are impossible before this many."""
    stop: tuple[str, ...] = ()
    """Texts that end the completion; they are cut off."""
    stop_token_ids: tuple[TokenId, ...] = ()
    """Further tokens that end the completion."""
    include_stop_str_in_output: bool = False
    """Keep the stop string that ended the completion."""
    ignore_eos: bool = False
    """Generate on past end-of-text."""
    skip_special_tokens: bool = True
    """Leave control tokens out of the text."""
    spaces_between_special_tokens: bool = True
    """Put a space between neighbouring control tokens, when they are shown."""
    seed: Annotated[int, Ge(-(2**63)), Lt(2**64)] | None = None
    """64-bit; None: drawn at random."""
    logprobs: Annotated[int, Ge(0), Le(65536)] | None = None
    """Log-probabilities of the chosen token and this many likeliest ones, before any stage."""
    prompt_logprobs: Annotated[int, Ge(0), Le(20)] | None = None
    """Log-probabilities of each prompt token but the first, and this many likeliest ones."""
    explain: Annotated[int, Ge(1), Le(100)] | None = None
    """What each stage does to each token's candidates, with this many of the likeliest."""
    stages: tuple[AnyStage, ...] = ()
    """The sampler, in order of application; a stage at its defaults is the identity."""

    def __post_init__(self) -> None:
        check_struct(self)
        if self.early_stopping not in (True, False, "never"):
            raise RequestError(
                f'early_stopping must be true, false or "never", found {self.early_stopping!r:.60}',
                "early_stopping",
            )
        if self.best_of is not None and self.best_of < self.n:
            raise RequestError(
                f"best_of must be at least n, found {self.best_of} and {self.n}", "best_of"
            )
        if self.use_beam_search:
            self._check_beams()

    def _check_beams(self) -> None:
        """RequestError: something that a beam search would have to ignore."""
        names = [
            stage.name()
            for stage in self.stages
            if getattr(stage, "temperature", None) != 0 and not stage.beams
        ]
        if self.explain is not None:
            names.append("explain")
        if names:
            raise RequestError(
                f"a beam search draws nothing, so {', '.join(names)} cannot act; leave them out, "
                "or use_beam_search",
                names[0],
            )
        if self.max_tokens == 0:
            raise RequestError("max_tokens must be at least 1 in a beam search", "max_tokens")

    @property
    def width(self) -> int:
        """Completions that are worked on: beams, or draws to choose from."""
        return self.best_of or self.n

    @property
    def reads_text(self) -> bool:
        """A stage has texts that must be tokens before it can act; see `resolve`."""
        return any(stage.reads_text for stage in self.stages)

    def completed(self, defaults: Mapping[str, Any]) -> "SamplingParams":
        """With the wire fields of `defaults` that its stages leave out; a beam search has none.

        A stage that is new stands before the first one that comes later in the default order.
        """
        if self.use_beam_search:
            return self
        given = {name: value for stage in self.stages for name, value in stage.given.items()}
        more = {name: v for name, v in filled(given, defaults).items() if name not in given}
        stages = list(self.stages)
        for stage in stages_from(more):
            same = [at for at, own in enumerate(stages) if type(own) is type(stage)]
            for at in same:
                stages[at] = msgspec.structs.replace(stages[at], **stage.given)
            if not same:
                later = (at for at, own in enumerate(stages) if own.order > stage.order)
                stages.insert(next(later, len(stages)), stage)
        return msgspec.structs.replace(self, stages=tuple(stages))

    def resolve(self, tokenizer: Tokenizer) -> "SamplingParams":
        """The same with the texts of stages as tokens, too.

        Raises:
            RequestError: a text is no tokens.
        """
        if not self.reads_text:
            return self
        stages = tuple(stage.resolve(tokenizer) for stage in self.stages)
        return msgspec.structs.replace(self, stages=stages)

    @property
    def bans(self) -> BannedStrings | None:
        """Texts for which the output may be taken back; None: it only ever grows."""
        found = (stage for stage in self.stages if isinstance(stage, BannedStrings))
        return next((stage for stage in found if stage.active), None)

    def banning(self, place: int, tokens: tuple[int, ...]) -> "SamplingParams":
        """The same with these tokens banned at an index, counted from the prompt's first token."""
        stages = tuple(
            msgspec.structs.replace(stage, place=place, tokens=tokens)
            if isinstance(stage, BannedStrings)
            else stage
            for stage in self.stages
        )
        return msgspec.structs.replace(self, stages=stages)

    def check_vocabulary(self, size: int) -> None:
        """Compare every token id with the vocabulary.

        Raises:
            RequestError: an id that is no token; names field and id.
        """
        for part in (self, *self.stages):
            check_tokens(part, size)


_LIMITS: Final = {
    field.name: field for field in fields_of(SamplingParams) if field.name != "stages"
}
_READ: Final = {"seed": seed_in, "stop": stops_in}
"""Limits that requests may spell in more than one way."""
_NONE: Final[Mapping[str, Any]] = {}


def params_from(fields: Mapping[str, Any], defaults: Mapping[str, Any] = _NONE) -> SamplingParams:
    """Make them of the fields of a request: limits by their names here, samplers by any of theirs.

    Args:
        fields: null, "", [] and {} are as good as left out.
        defaults: sampler fields for what the request does not set, be it to "off"; a beam search
            has none.

    Raises:
        RequestError: a name is unknown, or a value is unusable.
    """
    given = filled(fields, {})
    for name in given:
        if name not in _LIMITS and name not in parameters():
            near = get_close_matches(name, [*_LIMITS, *parameters()], 1)
            hint = f"did you mean {near[0]}?" if near else "docs/samplers.md lists the samplers"
            raise RequestError(f"{name!r:.60} is no field of a request; {hint}", name)
    limits = {name: _limit(name, value) for name, value in given.items() if name in _LIMITS}
    whole = given if limits.get("use_beam_search") else filled(given, defaults)
    return SamplingParams(**limits, stages=stages_from(whole))


def _limit(name: str, value: object) -> Any:
    """Lists become tuples; what is in them is checked with the whole."""
    read, field = _READ[name](value) if name in _READ else value, _LIMITS[name]
    if get_origin(field.type) is not tuple:
        return read
    if not isinstance(read, list | tuple):
        raise RequestError(f"{name} must be {field.wanted}, found {value!r:.60}", name)
    return tuple(cast("list[object]", read))
