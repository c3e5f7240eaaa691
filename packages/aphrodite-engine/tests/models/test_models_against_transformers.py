"""Every model type, on tiny random checkpoints, agrees with transformers in float32."""

import pytest
import torch
from aphrodite_engine.models import model_types

BASE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
YARN_MSCALE = YARN | {"mscale": 1.0, "mscale_all_dim": 0.7, "beta_fast": 8.0, "truncate": False}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}
GEMMA_ROPE = {
    "full_attention": LINEAR | {"rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}

VARIANTS = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama all heads": ("llama", {"num_key_value_heads": 4}),
    "llama one kv head": ("llama", {"num_key_value_heads": 1}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama head size": ("llama", {"head_dim": 24}),
    "llama3 rope": ("llama", {"rope_parameters": LLAMA3}),
    "yarn": ("llama", {"rope_parameters": YARN}),
    "yarn with mscale": ("llama", {"rope_parameters": YARN_MSCALE}),
    "linear rope": ("llama", {"rope_parameters": LINEAR}),
    "mistral": ("mistral", {"sliding_window": 7, "head_dim": 16}),
    "mistral without window": ("mistral", {"sliding_window": None, "head_dim": 16}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2 windows": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3 windows": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2, "head_dim": 16},
    ),
    "gemma3_text": (
        "gemma3_text",
        {
            "num_hidden_layers": 7, "head_dim": 32, "sliding_window": 6,
            "query_pre_attn_scalar": 20, "rope_parameters": GEMMA_ROPE,
        },
    ),
    "gemma3_text softcap": (
        "gemma3_text",
        {
            "head_dim": 16, "sliding_window": 6, "final_logit_softcapping": 2.0,
            "sliding_window_pattern": 2,
        },
    ),
}  # fmt: skip
TOLERANCE = 1e-4


def test_every_model_type_is_here():
    assert {model_type for model_type, _ in VARIANTS.values()} == set(model_types())


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_agree(variant, make_checkpoint, decoder):
    """Whole prefill, decode, chunked prefill and a mixed batch give the logits of transformers."""
    from transformers import AutoConfig

    model_type, options = VARIANTS[variant]
    path, oracle = make_checkpoint(AutoConfig.for_model(model_type, **(BASE | options)))
    prompts = [torch.randint(96, (length,)).tolist() for length in (40, 23, 31)]
    with torch.no_grad():
        expected = [oracle(torch.tensor([prompt])).logits[0] for prompt in prompts]
    ours = decoder(path)
    for row, prompt in enumerate(prompts):
        ours.start(row, prompt)

    first, chunk = ours.step((0, 0, 30), (1, 0, 11))
    close(first, expected[0][:30])
    close(chunk, expected[1][:11])
    for position in range(30, 38):
        ours.forget_window(0, position)
        (row,) = ours.step((0, position, 1))
        close(row, expected[0][position : position + 1])
    third, rest, decoded = ours.step((2, 0, 31), (1, 11, 12), (0, 38, 2))
    close(third, expected[2])
    close(rest, expected[1][11:])
    close(decoded, expected[0][38:])


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("model_type", model_types())
def test_a_recorded_program_is_the_model(model_type, make_checkpoint, native, decoder_on):
    """Replays over any number of rows give the bits of the model run eagerly."""
    from transformers import AutoConfig

    options = BASE | {"head_dim": 16, "sliding_window": 6, "use_sliding_window": True}
    path, _ = make_checkpoint(AutoConfig.for_model(model_type, **options))
    recorded, eager = decoder_on(path, native), decoder_on(path, native, eager=True)
    prompts = [torch.randint(96, (length,)).tolist() for length in (33, 20)]
    steps = [[(0, 0, 29), (1, 0, 7)], [(1, 7, 13)], [(0, 29, 1)], [(0, 30, 1)], [(0, 31, 2)]]
    for decoder in (recorded, eager):
        for row, prompt in enumerate(prompts):
            decoder.start(row, prompt)
    for chunks in steps:
        for found, expected in zip(recorded.step(*chunks), eager.step(*chunks), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("model_type", model_types())
def test_rows_that_alone_are_wanted_are_those_of_all(
    model_type, make_checkpoint, native, decoder_on
):
    """The last block goes on with them only, and to the same bits."""
    from transformers import AutoConfig

    options = BASE | {"head_dim": 16, "sliding_window": 6, "use_sliding_window": True}
    path, _ = make_checkpoint(AutoConfig.for_model(model_type, **options))
    some, every = (decoder_on(path, native, eager=True) for _ in range(2))
    prompts = [torch.randint(96, (length,)).tolist() for length in (33, 20)]
    for decoder in (some, every):
        for row, prompt in enumerate(prompts):
            decoder.start(row, prompt)
    for chunks in [[(0, 0, 29), (1, 0, 7)], [(1, 7, 13), (0, 29, 1)]]:
        found, expected = some.last(*chunks), every.step(*chunks)
        assert torch.equal(found, torch.stack([rows[-1] for rows in expected]))
