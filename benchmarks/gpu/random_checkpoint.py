"""Checkpoints that exist nowhere: each tensor is drawn on the device when it is read.

What is drawn depends on the seed and the tensor's name alone, so a tensor that is read again, by
another engine, is the same. Matrices keep the size of what they multiply: elements have a standard
deviation of 1 / sqrt(K).
"""

import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from aphrodite_engine.loading.gguf import GgufModel
from aphrodite_engine.loading.model import OpenModel, model_of
from aphrodite_engine.models import find_gguf
from aphrodite_kernels.layouts import GgmlBlocks, GgmlType
from aphrodite_kernels.layouts.trellis import TRELLIS_BLOCK, TrellisCodebook
from aphrodite_quant import Checkpoint, TensorInfo, TensorStore
from aphrodite_quant.formats.exl3 import MULTIPLIERS
from shapes import Shape
from torch import Tensor

NOWHERE = Path("random")
GPTQ_GROUP = 128
EXL3_BITS, EXL3_HEAD_BITS = 4, 6


@dataclass(frozen=True, eq=False, slots=True)
class RandomStore:
    """Implements TensorStore."""

    infos: Mapping[str, TensorInfo]
    device: torch.device
    seed: int

    def names(self) -> Collection[str]:
        return self.infos.keys()

    def info(self, name: str) -> TensorInfo:
        return self.infos[name]

    def read(self, name: str) -> Tensor:
        info = self.infos[name]
        generator = torch.Generator(self.device).manual_seed(self.seed ^ zlib.crc32(name.encode()))
        if isinstance(info.type, GgmlType):
            return random_blocks(info.type, info.shape, generator)
        drawn = torch.randn(info.shape, generator=generator, dtype=info.type, device=self.device)
        return drawn.mul_(0.1).add_(1) if drawn.ndim == 1 else drawn.mul_(info.shape[1] ** -0.5)


@dataclass(frozen=True, eq=False, slots=True)
class GptqStore:
    """Implements TensorStore: another store, and GPTQ's tensors of random codes with one zero."""

    store: RandomStore

    def names(self) -> Collection[str]:
        return self.store.names()

    def info(self, name: str) -> TensorInfo:
        return self.store.info(name)

    def read(self, name: str) -> Tensor:
        module, _, part = name.rpartition(".")
        info, device = self.info(name), self.store.device
        if part not in ("qweight", "qzeros", "scales"):
            return self.store.read(name)
        if part == "qzeros":  # one less than they are
            return torch.full(info.shape, 0x77777777, dtype=torch.int32, device=device)
        generator = torch.Generator(device).manual_seed(self.store.seed ^ zlib.crc32(name.encode()))
        if part == "qweight":
            drawn = torch.empty(info.shape, dtype=torch.int32, device=device)
            return drawn.random_(-(1 << 31), (1 << 31) - 1, generator=generator)
        # Codes from 0 to 15 less 8 have a root mean square of 4.64, and a mean of -0.5: with a sign
        # for each group that of the weight is 0.
        columns = self.info(f"{module}.qweight").shape[0] * 8
        drawn = torch.rand(info.shape, generator=generator, device=device).sub_(0.5)
        return drawn.add_(drawn.sign()).mul_(columns**-0.5 / 4.64).half()


@dataclass(frozen=True, eq=False, slots=True)
class TrellisStore:
    """Implements TensorStore: another store, and trellises of random bits.

    What they decode to has a deviation of 1, so that signs of inputs and scales of outputs remain.
    """

    store: RandomStore

    def names(self) -> Collection[str]:
        return self.store.names()

    def info(self, name: str) -> TensorInfo:
        return self.store.info(name)

    def read(self, name: str) -> Tensor:
        module, _, part = name.rpartition(".")
        info, device = self.info(name), self.store.device
        if part == "mul1":
            return torch.tensor(MULTIPLIERS[TrellisCodebook.MUL1], device=device).int()
        generator = torch.Generator(device).manual_seed(self.store.seed ^ zlib.crc32(name.encode()))
        if part == "trellis":
            drawn = torch.empty(info.shape, dtype=torch.int16, device=device)
            return drawn.random_(-(1 << 15), (1 << 15) - 1, generator=generator)
        if part in ("suh", "svh"):
            columns = self.info(f"{module}.suh").shape[0]
            drawn = torch.rand(info.shape, generator=generator, device=device).sub_(0.5).sign()
            return drawn.mul_(columns**-0.5 if part == "svh" else 1.0).half()
        return self.store.read(name)


@dataclass(frozen=True, eq=False, slots=True)
class DequantizedStore:
    """Implements TensorStore: another store with its blocks as float32."""

    store: TensorStore

    def names(self) -> Collection[str]:
        return self.store.names()

    def info(self, name: str) -> TensorInfo:
        info = self.store.info(name)
        kind = torch.float32 if isinstance(info.type, GgmlType) else info.type
        return TensorInfo(name, info.file, kind, info.shape)

    def read(self, name: str) -> Tensor:
        kind = self.store.info(name).type
        read = self.store.read(name)
        return GgmlBlocks(read, kind).dequantize() if isinstance(kind, GgmlType) else read


def random_blocks(kind: GgmlType, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Blocks of Q4_K or Q6_K, [N, bytes per row], with a mean of 0."""
    rows, columns = shape
    count = rows * columns // kind.block_size
    blocks = torch.empty(count, kind.block_bytes, dtype=torch.uint8, device=generator.device)
    blocks.random_(0, 256, generator=generator)
    spread = columns**-0.5
    if kind == GgmlType.Q4_K:
        # d * s * q - m * t: s, t uniform in 0…63, q in 0…15, so with m = 7.5 d the mean is 0 and
        # the deviation 258 d.
        _put_halves(blocks, 0, spread / 258, generator, (1.0, 7.5))
    elif kind == GgmlType.Q6_K:
        # d * s * (q - 32): s uniform in -128…127, q in 0…63: a deviation of 1367 d.
        _put_halves(blocks, 208, spread / 1367, generator, (1.0,))
    else:
        raise ValueError(f"random blocks are Q4_K or Q6_K, not {kind.name}")
    return blocks.view(rows, -1)


def _put_halves(
    blocks: Tensor, at: int, scale: float, generator: torch.Generator, factors: tuple[float, ...]
) -> None:
    """Write scale * factor as float16, from byte `at` on, 30 % more or less in each block."""
    shape = (len(blocks), 1)
    drawn = torch.rand(shape, generator=generator, device=generator.device).mul_(0.6).add_(0.7)
    values = drawn * torch.tensor(factors, device=generator.device) * scale
    blocks[:, at : at + 2 * len(factors)] = values.half().view(torch.uint8)


def random_safetensors(shape: Shape, device: torch.device, seed: int = 0) -> OpenModel:
    """A Hugging Face directory in bfloat16."""
    kinds = dict.fromkeys(shape.matrices(), torch.bfloat16)
    store = RandomStore(_infos(shape, kinds, torch.bfloat16, str), device, seed)
    return model_of(Checkpoint(NOWHERE, "safetensors", store, shape.config(), {}))


def random_gptq(shape: Shape, device: torch.device, seed: int = 0) -> OpenModel:
    """A Hugging Face directory of GPTQ, 4 bits in groups of 128; head and embedding in bfloat16."""
    plain = ("model.embed_tokens", "lm_head")
    kinds = dict.fromkeys(plain, torch.bfloat16)
    infos = _infos(shape, kinds, torch.bfloat16, str)
    for module, (rows, columns) in shape.matrices().items():
        if module in plain:
            continue
        del infos[f"{module}.weight"]
        groups = columns // GPTQ_GROUP
        for part, kind, size in (
            ("qweight", torch.int32, (columns // 8, rows)),
            ("qzeros", torch.int32, (groups, rows // 8)),
            ("scales", torch.float16, (groups, rows)),
        ):
            name = f"{module}.{part}"
            infos[name] = TensorInfo(name, NOWHERE, kind, size)
    config = shape.config() | {
        "quantization_config": {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": GPTQ_GROUP,
            "sym": True,
            "desc_act": False,
        }
    }
    store = GptqStore(RandomStore(infos, device, seed))
    return model_of(Checkpoint(NOWHERE, "safetensors", store, config, {}))


def random_exl3(shape: Shape, device: torch.device, seed: int = 0) -> OpenModel:
    """A Hugging Face directory of EXL3; the embedding in bfloat16."""
    embedding = "model.embed_tokens"
    infos = _infos(shape, {embedding: torch.bfloat16}, torch.bfloat16, str)
    for module, size in shape.matrices().items():
        if module == embedding:
            continue
        del infos[f"{module}.weight"]
        bits = EXL3_HEAD_BITS if module == "lm_head" else EXL3_BITS
        rows, columns = (-(-extent // TRELLIS_BLOCK) * TRELLIS_BLOCK for extent in size)
        for part, kind, stored in (
            ("trellis", torch.int16, (columns // 16, rows // 16, 16 * bits)),
            ("suh", torch.float16, (columns,)),
            ("svh", torch.float16, (rows,)),
            ("mul1", torch.int32, ()),
        ):
            name = f"{module}.{part}"
            infos[name] = TensorInfo(name, NOWHERE, kind, stored)
    config = shape.config() | {
        "quantization_config": {
            "quant_method": "exl3",
            "bits": EXL3_BITS,
            "head_bits": EXL3_HEAD_BITS,
        }
    }
    store = TrellisStore(RandomStore(infos, device, seed))
    return model_of(Checkpoint(NOWHERE, "safetensors", store, config, {}))


def random_q4_k_m(
    shape: Shape, device: torch.device, seed: int = 0, *, dequantized: bool = False
) -> OpenModel:
    """A GGUF file; `dequantized`: the same numbers as float32."""
    dialect = find_gguf("llama")[1].gguf
    assert dialect is not None, "found by its dialect"
    names = GgufModel(dialect, {}, shape.head_dim)
    infos = _infos(shape, q4_k_m(shape), torch.float32, names.stored_name)
    store: TensorStore = RandomStore(infos, device, seed)
    if dequantized:
        store = DequantizedStore(store)
    return model_of(Checkpoint(NOWHERE, "gguf", store, {}, shape.metadata()))


def q4_k_m(shape: Shape) -> dict[str, torch.dtype | GgmlType]:
    """Type by module, as llama.cpp mixes them: Q6_K where errors cost most."""
    kinds: dict[str, torch.dtype | GgmlType] = {}
    for name in shape.matrices():
        part = name.rpartition(".")[2]
        careful = part in ("v_proj", "down_proj") and _more_bits(int(name.split(".")[2]), shape)
        kinds[name] = GgmlType.Q6_K if careful or name == "lm_head" else GgmlType.Q4_K
    return kinds


def _more_bits(layer: int, shape: Shape) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    eighth = shape.layers // 8
    return layer < eighth or layer >= 7 * shape.layers // 8 or (layer - eighth) % 3 == 2


def _infos(
    shape: Shape,
    kinds: Mapping[str, torch.dtype | GgmlType],
    norms: torch.dtype,
    rename: Callable[[str], str | None],
) -> dict[str, TensorInfo]:
    """By stored name."""
    sizes = shape.matrices() | dict.fromkeys(shape.norms(), (shape.hidden,))
    infos = [
        TensorInfo(f"{rename(module)}.weight", NOWHERE, kinds.get(module, norms), size)
        for module, size in sizes.items()
    ]
    return {info.name: info for info in infos}
