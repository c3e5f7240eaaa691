"""Write what an independent implementation makes of a GGUF model: stored oracle outputs for tests.

The weights are read and dequantised by the `gguf` package, put into the transformers class of the
same architecture, and run in float32. For each prompt: its token ids, the greedy continuation, and
at each step of it the likeliest tokens with their log-probabilities.

    python scripts/make_oracle.py MODEL.gguf packages/aphrodite-engine/tests/oracle/NAME.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.loading.text import load_text
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

STEPS = 28
LIKELIEST = 5
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "The three laws of thermodynamics are",
    "def fibonacci(n):\n    ",
    "import numpy as np\n\n# multiply two matrices\n",
    "Q: What is the boiling point of water at sea level?\nA:",
    "Water is made of hydrogen and",
    "In 1969, the first humans",
    "1, 1, 2, 3, 5, 8, 13,",
    "The opposite of hot is",
    "La tour Eiffel se trouve à",
    "Der schnellste Weg nach Berlin",
    "The quick brown fox",
    "Dear Sir or Madam,\n\nI am writing to",
    '{"name": "Alice", "age": 30, "city": "',
    "SELECT name, COUNT(*) FROM users",
    "To bake a chocolate cake, you first need to",
    "The mitochondria is the powerhouse of",
    "Photosynthesis is the process by which",
    "Roses are red, violets are blue,",
    "<h1>Welcome</h1>\n<p>",
    "She opened the door slowly and saw",
    "A prime number is a number that",
    "My favourite season is autumn because",
]
STORY = (
    "The ferry left the harbour at {hour} o'clock on day {day}. Its captain, who had sailed this "
    "strait for {years} years, wrote down the wind, the tide and the names of {count} passengers. "
)


def prompts() -> list[str]:
    """Short prompts, and one that is longer than a sliding window of 512 tokens."""
    days = [
        STORY.format(hour=6 + day % 5, day=day, years=20 + day, count=3 * day + 1)
        for day in range(1, 17)
    ]
    return [*PROMPTS, "".join(days) + "On the last day, the captain"]


def oracle_config(reader: gguf.GGUFReader) -> LlamaConfig | Gemma3TextConfig:
    """The configuration, as the metadata states it."""

    def value(key: str) -> Any:
        return reader.fields[f"{name}.{key}"].contents()

    name = reader.fields["general.architecture"].contents()
    shapes = {tensor.name: tensor.shape for tensor in reader.tensors}
    common = {
        "vocab_size": int(shapes["token_embd.weight"][1]),
        "hidden_size": value("embedding_length"),
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": value("attention.head_count"),
        "num_key_value_heads": value("attention.head_count_kv"),
        "max_position_embeddings": value("context_length"),
        "rms_norm_eps": value("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in shapes,
        "rope_theta": value("rope.freq_base"),
    }
    if name == "llama":
        return LlamaConfig(**common)
    return Gemma3TextConfig(
        head_dim=value("attention.key_length"),
        query_pre_attn_scalar=value("attention.key_length"),
        sliding_window=value("attention.sliding_window"),
        rope_local_base_freq=10000.0,
        **common,
    )


def oracle_weights(reader: gguf.GGUFReader, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What the parameters of the model are in the file, dequantised; names by the gguf package."""
    name = reader.fields["general.architecture"].contents()
    architecture = next(key for key, text in gguf.MODEL_ARCH_NAMES.items() if text == name)
    config: Any = model.config
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    weights: dict[str, torch.Tensor] = {}
    for key in model.state_dict():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        tensor = stored.pop(names.get_name(key, (".weight", ".bias")))
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        part = key.split(".")[-2]
        if name == "llama" and part in heads:
            pairs = values.reshape(heads[part], -1, 2, values.shape[-1])
            values = pairs.swapaxes(1, 2).reshape(values.shape)
        if name == "gemma3" and "norm" in part:
            values = values - 1
        weights[key] = torch.tensor(values)
    if stored:
        raise SystemExit(f"the model has no place for {', '.join(stored)}")
    return weights


def load(path: Path) -> torch.nn.Module:
    """The model, in float32."""
    reader = gguf.GGUFReader(path)
    config = oracle_config(reader)
    kind = LlamaForCausalLM if isinstance(config, LlamaConfig) else Gemma3ForCausalLM
    model = kind(config).eval()
    model.load_state_dict(oracle_weights(reader, model), strict=False)
    model.tie_weights()
    return model


def continue_greedily(model: Any, tokens: list[int]) -> dict[str, object]:
    """The continuation, and the likeliest tokens at each of its steps."""
    ids, cache = torch.tensor([tokens]), None
    continuation, steps = [], []
    for _ in range(STEPS):
        with torch.inference_mode():
            output = model(ids, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        best = output.logits[0, -1].double().log_softmax(-1).topk(LIKELIEST)
        chosen = best.indices.tolist()
        steps.append([[t, round(p, 4)] for t, p in zip(chosen, best.values.tolist(), strict=True)])
        continuation.append(chosen[0])
        ids = torch.tensor([[chosen[0]]])
    return {"tokens": tokens, "continuation": continuation, "likeliest": steps}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    tokenizer = load_text(EngineConfig(model=str(arguments.model)), print).tokenizer
    model = load(arguments.model)
    cases = []
    for text in prompts():
        case = continue_greedily(model, tokenizer.encode(text))
        cases.append(json.dumps({"text": text} | case))
        print(f"{text[-60:]!r} -> {tokenizer.decode(case['continuation'])!r}")
    arguments.output.write_text("[\n" + ",\n".join(cases) + "\n]\n")


if __name__ == "__main__":
    main()
