"""A small Llama with its tokenizer, trained for some seconds on text, where no model is at hand.

    PYTHON benchmarks/quality/small_model.py TEXT [...] --folder DIR [--heads 9] [--steps N]

Tools that need a GPU quantise and read it as they would a large one, on a machine that may have
neither network nor room for more. PYTHON has torch, transformers and tokenizers; nothing of this
repository is needed. Written are DIR/original in half precision, DIR/calibration.json for
writers.py (pieces of the text as tokens) and DIR/tokens.json for readers.py: a piece from the
text's last tenth, which is not trained on. Heads have 64 dimensions, a third of them with keys and
values if that goes into whole ones, else half; with 9 the width is no multiple of 128, as in
SmolLM2-135M.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 4096
BLOCKS = 6
HEAD = 64
LENGTH = 512
PIECES = 16
BATCH = 32
RATE = 2e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+", type=Path, metavar="TEXT")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    torch.manual_seed(0)
    texts = [path.read_text(encoding="utf-8") for path in options.texts]
    tokenizer = _tokenizer(texts)
    shown, held_out = _pieces(tokenizer, texts)
    model = LlamaForCausalLM(_config(options.heads)).to(options.device)
    _train(model, shown.to(options.device), options.steps)
    with torch.inference_mode():
        loss = _loss(model, held_out[:8].to(options.device))
    print(f"{model.num_parameters()} parameters, perplexity {math.exp(float(loss)):.3f}")
    original = options.folder / "original"
    model.to(torch.float16).save_pretrained(original)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(original)
    drawn = shown[torch.randperm(len(shown))[:PIECES]]
    (options.folder / "calibration.json").write_text(json.dumps(drawn.tolist()))
    (options.folder / "tokens.json").write_text(json.dumps(held_out[0].tolist()))


def _tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((line for text in texts for line in text.split("\n")), trainer)
    return tokenizer


def _pieces(tokenizer: Tokenizer, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """[n, L] to train on, and to measure with: of each text the first nine tenths, and the rest."""
    shown, held_out = [], []
    for text in texts:
        tokens = torch.tensor(tokenizer.encode(text).ids)
        whole = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
        shown.append(whole[: len(whole) * 9 // 10])
        held_out.append(whole[len(whole) * 9 // 10 :])
    return torch.cat(shown), torch.cat(held_out)


def _config(heads: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=heads * HEAD,
        intermediate_size=heads * HEAD * 8 // 3 // 128 * 128,
        num_hidden_layers=BLOCKS,
        num_attention_heads=heads,
        num_key_value_heads=heads // 3 if heads % 3 == 0 else heads // 2,
        max_position_embeddings=4 * LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )


def _train(model: Any, pieces: torch.Tensor, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95))
    began = time.monotonic()
    for step in range(steps):
        rate = min(1.0, step / 40) * (0.55 + 0.45 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate
        drawn = torch.randint(len(pieces), (BATCH,), device=pieces.device)
        loss = _loss(model, pieces[drawn])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(step, f"{loss.item():.3f}", f"{time.monotonic() - began:.0f} s", flush=True)


def _loss(model: Any, pieces: torch.Tensor) -> torch.Tensor:
    with torch.autocast(pieces.device.type, torch.bfloat16):
        logits = model(pieces).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1).float(), pieces[:, 1:].flatten())


if __name__ == "__main__":
    main()
