"""What each figure is compared with: the existing engine, the floor of the card, our targets."""

from collections.abc import Mapping
from dataclasses import dataclass

from aphrodite_kernels.layouts import GgmlType
from formats import WeightFormat
from random_checkpoint import EXL3_BITS, EXL3_HEAD_BITS, GPTQ_GROUP, q4_k_m
from scenarios import Workload
from shapes import LLAMA_8B, Shape


@dataclass(frozen=True, slots=True)
class Card:
    """What a GPU does at best, measured."""

    read: float
    """Bytes per second that a kernel reads."""
    multiply: float
    """FLOP per second of a large bfloat16 product."""


H200 = Card(read=4.6e12, multiply=778e12)
CARDS = {"H200": H200, "H100 80GB HBM3": Card(read=3.2e12, multiply=790e12)}
"""By what the driver's name of the card has in it."""

Key = tuple[str, str]
"""Scenario (without its variant for those that have several), format."""

PEER: Mapping[Key, float] = {
    ("batch1", "bf16"): 6.36,
    ("batch32", "bf16"): 5.53,
    ("prefill", "bf16"): 43347,
    ("throughput", "bf16"): 10032,
    ("batch1", "fp8"): 4.65,
    ("batch32", "fp8"): 4.60,
    ("prefill", "fp8"): 68717,
    ("throughput", "fp8"): 13428,
    ("batch1", "fp8-kv"): 6.44,
    ("batch32", "fp8-kv"): 5.55,
    ("prefill", "fp8-kv"): 44535,
    ("throughput", "fp8-kv"): 10618,
    ("batch1", "q4_k_m"): 6.03,
    ("batch32", "q4_k_m"): 33.4,
    ("prefill", "q4_k_m"): 1342,
    ("batch1", "gptq"): 6.04,
    ("batch32", "gptq"): 5.55,
    ("prefill", "gptq"): 46423,
    ("throughput", "gptq"): 10410,
    ("batch1", "exl3"): 8.96,
    ("batch32", "exl3"): 15.3,
    ("prefill", "exl3"): 28157,
    ("throughput", "exl3"): 5745,
    ("sampling: greedy", "bf16"): 5252,
    ("sampling: temperature, min_p, repetition", "bf16"): 4039,
    ("sampling: top_p, top_k", "bf16"): 3946,
    ("start-up", "bf16"): 24,
}
"""Aphrodite Engine 0.20.0 on an H200, Llama-3.1-8B shape; its start-up from a warm cache."""

TARGETS: Mapping[Key, tuple[float, float]] = {
    ("batch1", "bf16"): (4.4, 3.8),
    ("batch32", "bf16"): (5.0, 4.4),
    ("prefill", "bf16"): (43000, 44800),
    ("throughput", "bf16"): (10800, 11800),
    ("throughput", "fp8-kv"): (11800, 13500),
    ("batch1", "fp8"): (2.8, 2.1),
    ("batch1", "q4_k_m"): (2.6, 1.8),
    ("batch32", "q4_k_m"): (5.0, 3.2),
    ("prefill", "q4_k_m"): (30000, 40000),
    ("throughput", "fp8"): (14000, 16500),
    ("start-up", "bf16"): (15, 8),
}
"""At least, and aimed at."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a figure stands beside; None where nobody measured, computed or promised anything.

    On another card than an H200, the peer's figure and the targets are those that reach the same
    share of that card's floor.
    """

    peer: float | None = None
    floor: float | None = None
    least: float | None = None
    aim: float | None = None


def card_named(name: str) -> Card | None:
    """None: nobody measured what such a card does at best."""
    return next((card for part, card in CARDS.items() if part in name), None)


def compare(
    scenario: str, shape: Shape, kind: WeightFormat, workload: Workload, card: Card | None
) -> Comparison:
    """The columns beside a figure of ours; none for a shape or a card that nobody else ran."""
    if shape != LLAMA_8B or card is None:
        return Comparison()
    key = (scenario, kind.name)
    here, there = (floor(scenario, shape, kind, workload, each) for each in (card, H200))
    scale = here / there if here and there else 1.0
    least, aim = TARGETS.get(key, (None, None))
    peer, least, aim = (value and scale * value for value in (PEER.get(key), least, aim))
    return Comparison(peer, here, least, aim)


def floor(
    scenario: str, shape: Shape, kind: WeightFormat, workload: Workload, card: Card
) -> float | None:
    """What the card allows if nothing but weights, KV cache and products took time."""
    rate = _rate(kind, card)
    prompts = workload.requests * workload.prompt * 2 * shape.multiplied / rate
    if scenario == "prefill":
        return workload.requests * workload.prompt / prompts
    if scenario in ("batch1", "batch32"):
        return 1e3 * _step(shape, kind, workload, workload.requests, card)
    if scenario == "throughput" or scenario.startswith(("sampling", "deterministic")):
        step = _step(shape, kind, workload, workload.requests, card)
        seconds = prompts + workload.output * step
        return workload.requests * workload.output / seconds
    return None


def _step(shape: Shape, kind: WeightFormat, workload: Workload, rows: int, card: Card) -> float:
    """Seconds of a decoding step, in the middle of its requests' outputs."""
    context = workload.prompt + workload.output / 2
    kv_bytes = rows * context * shape.kv_elements * (1 if kind.name == "fp8-kv" else 2)
    arithmetic = rows * 2 * shape.multiplied / _rate(kind, card)
    return max(weight_bytes(shape, kind) / card.read, arithmetic) + kv_bytes / card.read


def _rate(kind: WeightFormat, card: Card) -> float:
    return 2 * card.multiply if kind.half_arithmetic else card.multiply


def weight_bytes(shape: Shape, kind: WeightFormat) -> float:
    """Bytes of all matrices that a step multiplies with."""
    if kind.name == "q4_k_m":
        kinds = q4_k_m(shape)
        return sum(
            rows * columns * _bytes_per_element(kinds[name])
            for name, (rows, columns) in shape.matrices().items()
            if name != "model.embed_tokens"
        )
    if kind.name == "gptq":  # codes, a float16 scale and a code for the zero of each group
        head = shape.vocabulary * shape.hidden
        return 2 * head + (shape.multiplied - head) * (4 + 20 / GPTQ_GROUP) / 8
    if kind.name == "exl3":
        head = shape.vocabulary * shape.hidden
        return ((shape.multiplied - head) * EXL3_BITS + head * EXL3_HEAD_BITS) / 8
    return shape.multiplied * (1 if kind.name == "fp8" else 2)


def _bytes_per_element(kind: object) -> float:
    assert isinstance(kind, GgmlType), "of the mix"
    return kind.block_bytes / kind.block_size
