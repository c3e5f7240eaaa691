"""One seeded request with the samplers that people come for: the same text on every road."""

import json
import shutil
import subprocess

import pytest
from aphrodite_client import Client
from aphrodite_engine import LLM

pytestmark = pytest.mark.weights

PROMPT = "Row, row, row your boat, gently down the stream. Row, row, row your boat,"
TOKENS, SEED = 40, 20260
SAMPLERS = {
    "temperature": 1.1,
    "min_p": 0.02,
    "repetition_penalty": 1.08,
    "presence_penalty": 0.2,
    "frequency_penalty": 0.1,
    "dry_multiplier": 0.8,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_sequence_breakers": ["\n", "stream."],
    "xtc_probability": 0.6,
    "xtc_threshold": 0.08,
}
"""Every road knows them by these names."""


@pytest.fixture(scope="module")
def offline():
    """Texts of a deterministic `LLM`, by sampler fields."""
    with LLM("demo", deterministic=True, max_model_len=256, max_num_seqs=8) as llm:

        def texts(*fields):
            each = [{"max_tokens": TOKENS, "seed": SEED, **one} for one in fields]
            return [one.text for one in llm.generate([PROMPT] * len(each), each, progress=False)]

        yield texts


@pytest.fixture(scope="module")
def expected(offline):
    return offline(SAMPLERS)[0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(server, expected):
    body = {"prompt": PROMPT, "max_tokens": TOKENS, "seed": SEED, **SAMPLERS}
    command = ["curl", "--silent", "--show-error", "--fail", f"{server.url}/v1/completions"]
    command += ["--header", "Content-Type: application/json", "--data-binary", "@-"]
    answer = subprocess.run(command, input=json.dumps(body).encode(), capture_output=True)
    assert answer.returncode == 0, answer.stderr.decode()
    assert json.loads(answer.stdout)["choices"][0]["text"] == expected


def test_the_client(server, expected):
    with Client(f"{server.url}/v1") as client:
        answer = client.completions.create(prompt=PROMPT, max_tokens=TOKENS, seed=SEED, **SAMPLERS)
    assert answer.choices[0].text == expected


def test_kobold(server, expected):
    """Under Kobold's own names, its breakers as JSON."""
    fields = dict(SAMPLERS)
    fields["rep_pen"] = fields.pop("repetition_penalty")
    fields["dry_sequence_breakers"] = json.dumps(fields["dry_sequence_breakers"])
    body = {"prompt": PROMPT, "max_length": TOKENS, "sampler_seed": SEED, **fields}
    answer = server.request("POST", "/api/v1/generate", body)
    assert answer.json["results"][0]["text"] == expected


def test_company_changes_nothing(offline, expected):
    others = [{"temperature": 0}, {"mirostat_mode": 2}, SAMPLERS, {"top_k": 3}]
    assert offline(*others)[2] == expected


@pytest.mark.parametrize(
    "without",
    ["min_p", "repetition_penalty", "frequency_penalty", "dry_multiplier", "xtc_probability"],
)
def test_each_sampler_has_its_part_in_it(offline, expected, without):
    rest = {name: value for name, value in SAMPLERS.items() if name != without}
    assert offline(rest)[0] != expected
