"""Long repetitions in a whole engine: chunks, preemption, company and texts taken back change none.

The model is made up: after a letter it expects the next of a cycle, and what it attends to changes
that a little. So texts repeat themselves over hundreds of tokens, until a stage stops them.
"""

import json
import string
from collections import Counter

import numpy as np
import pytest
import torch
from aphrodite_engine import LLM, SamplingParams
from aphrodite_engine.engine import Engine
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.stages.temperature import Temperature
from safetensors.torch import save_file
from test_stages import expected, softmax64
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

LETTERS = string.ascii_letters
CYCLE = 23
"""Letters after which the text begins anew; the others are a cycle of their own."""
WIDTH, HEAD = 64, 32
LONG = 64
"""Tokens of a repetition that is worth the name."""
_DRY = {"dry_multiplier": 0.05, "dry_base": 1.03}
_COUNTS = {"presence_penalty": 0.4, "frequency_penalty": 0.02, "rep_pen_range": 150}
_FADING = {"repetition_penalty": 1.05, "rep_pen_range": 90, "repetition_decay": 40}
_WARM = {"temperature": 0.6, "min_p": 0.02}
_BANNED = {"banned_strings": ["hijklmnopqrstuvwabcdefghijkl", "VWXYZ"]}
# Per request: how many letters of the cycle its prompt has, and its stages.
_REQUESTS = [
    (70, {"temperature": 0, **_DRY, "no_repeat_ngram_size": 120, **_COUNTS}),
    (100, {**_WARM, **_DRY, "no_repeat_ngram_size": 100, **_FADING, "frequency_penalty": 0.01}),
    (90, {"temperature": 0, **_DRY, **_BANNED}),
    (110, {**_WARM, **_DRY, **_BANNED, "rep_pen_slope": 0.5, **_FADING, "mirostat_mode": 2}),
    (60, {"temperature": 0, **_DRY, "dry_sequence_breakers": ["JK", "Z"], **_BANNED}),
    (120, {"temperature": 0, **_DRY, "dry_range": 150}),
    (95, {"temperature": 0, "no_repeat_ngram_size": 110, **_BANNED}),
    (80, {**_WARM, **_DRY, "no_repeat_ngram_size": 90, "n": 2}),
    (100, {"temperature": 1.0, "adaptive_target": 0.5, **_DRY, **_BANNED}),
    (95, {"temperature": 0, "max_tokens": 40, "min_tokens": 30}),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A llama of one layer whose head looks for the letter before."""
    path = tmp_path_factory.mktemp("cycle")
    pieces = ["<|end|>", *LETTERS]
    encoder = Tokenizer(models.BPE({piece: at for at, piece in enumerate(pieces)}, []))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    encoder.add_special_tokens(["<|end|>"])
    encoder.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    size = len(pieces)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": size,
        "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": HEAD,
        "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "float32",
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(1)

    def random(*shape, scale=1.0):
        return scale * torch.randn(*shape, generator=generator)

    embedding = random(size, WIDTH)
    before = torch.arange(size)
    before[1 : CYCLE + 1] = before[1 : CYCLE + 1].roll(1)
    before[CYCLE + 1 :] = before[CYCLE + 1 :].roll(1)
    layer = "model.layers.0."
    weights = {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": torch.ones(WIDTH),
        "lm_head.weight": 0.1 * embedding[before],
        layer + "input_layernorm.weight": torch.ones(WIDTH),
        layer + "post_attention_layernorm.weight": torch.ones(WIDTH),
        layer + "self_attn.q_proj.weight": random(WIDTH, WIDTH, scale=0.2),
        layer + "self_attn.k_proj.weight": random(HEAD, WIDTH, scale=0.2),
        layer + "self_attn.v_proj.weight": random(HEAD, WIDTH, scale=0.1),
        layer + "self_attn.o_proj.weight": random(WIDTH, WIDTH, scale=0.1),
        layer + "mlp.gate_proj.weight": random(WIDTH, WIDTH, scale=0.1),
        layer + "mlp.up_proj.weight": random(WIDTH, WIDTH, scale=0.1),
        layer + "mlp.down_proj.weight": random(WIDTH, WIDTH, scale=0.1),
    }
    save_file(weights, path / "model.safetensors")
    return path


def request(number, **more):
    """A prompt, and what to make of it."""
    letters, fields = _REQUESTS[number]
    limits = {name: fields[name] for name in ("n", "max_tokens", "min_tokens") if name in fields}
    limits = {"max_tokens": 110, "ignore_eos": "min_tokens" not in limits, **limits}
    params = SamplingParams(seed=number, stages=stages_from(fields), **limits, **more)
    return (LETTERS[:CYCLE] * 9)[number : number + letters], params


@pytest.fixture
def engine_of(checkpoint):
    """Engines of the model, one after the other."""
    started = []

    def start(**options):
        plain = {"max_model_len": 400, "block_size": 8, "threads": 1, "deterministic": True}
        started.append(LLM(str(checkpoint), **plain, **options))
        return started[-1]

    yield start
    for llm in started:
        llm.close()


@pytest.fixture
def taken_back(monkeypatch):
    """How often requests were taken back, by id."""
    counts = Counter()
    rewind = Engine.rewind

    def count(engine, request_id, choice, kept, banned):
        counts[request_id] += 1
        rewind(engine, request_id, choice, kept, banned)

    monkeypatch.setattr(Engine, "rewind", count)
    return counts


def longest_repetition(tokens):
    """Most tokens in a row that stand so before, too."""
    longest, tokens = 0, np.array(tokens)
    for distance in range(1, len(tokens)):
        same = np.append(tokens[distance:] == tokens[:-distance], False)
        longest = max(longest, int(np.diff(np.flatnonzero(~same), prepend=-1).max()) - 1)
    return longest


def test_texts_are_those_of_each_request_alone_in_a_fresh_engine(engine_of, taken_back):
    """Bit for bit, all that stages do to the likeliest tokens included."""
    requests = [request(number, explain=3) for number in range(len(_REQUESTS))]
    prompts, params = map(list, zip(*requests, strict=True))
    crowded = engine_of(max_num_seqs=6, max_num_batched_tokens=17, kv_cache_memory=70_000)
    together = crowded.generate(prompts, params, progress=False)
    assert crowded._engine.stats.preemptions > 5
    assert len(taken_back) > 3
    for prompt, one, in_company in zip(prompts, params, together, strict=True):
        fresh = engine_of(max_num_seqs=2, enable_prefix_caching=False)
        (alone,) = fresh.generate(prompt, one, progress=False)
        assert alone.completions == in_company.completions, one.stages
        tokens = alone.prompt_tokens + alone.completions[0].tokens
        assert longest_repetition(tokens) > LONG


# Definitions of these need the model's logits, or what is remembered.
_HIDDEN = {"repetition_penalty", "mirostat_mode", "adaptive_target"}


@pytest.mark.parametrize(
    "number", [n for n, (_, fields) in enumerate(_REQUESTS) if _HIDDEN.isdisjoint(fields)]
)
def test_tokens_are_drawn_from_what_the_definitions_make(engine_of, taken_back, number):
    """Of the model's own log-probabilities of all tokens, with prompt and output so far."""
    llm = engine_of(max_num_seqs=4)
    size = llm.info.vocab_size
    prompt, params = request(number, logprobs=size, explain=size)
    (made,) = llm.generate(prompt, params, progress=False)
    completion, prompt = made.completions[0], made.prompt_tokens
    known = [stage for stage in params.resolve(llm.tokenizer).stages if not _cold(stage)]
    heads = [llm.tokenizer.encode(text)[0] for text in _BANNED["banned_strings"]]
    banned = 0
    for at, token in enumerate(completion.tokens):
        explained, output = completion.explanations[at], completion.tokens[:at]
        x = np.array([logprob for _, logprob in sorted(completion.logprobs[at].top)])
        if any(effect.stage == "banned_strings" for effect in explained.stages):
            banned += 1
            x[[head for head in heads if head not in dict(explained.top)]] = -np.inf
        if at < params.min_tokens:
            x[llm.tokenizer.eos_id] = -np.inf
        for stage in known:
            x = expected(stage, x, prompt, output)
        found = np.zeros(size)
        for candidate, share in explained.top:
            found[candidate] = share
        np.testing.assert_allclose(found, softmax64(x), rtol=1e-4, atol=1e-7)
        assert found[token] == found.max() or (not explained.greedy and found[token] > 0)
    assert bool(banned) == bool(taken_back)
    assert longest_repetition(prompt + completion.tokens) > LONG


def _cold(stage):
    return isinstance(stage, Temperature) and stage.greedy
