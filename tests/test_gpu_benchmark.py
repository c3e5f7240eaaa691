"""What benchmarks/gpu does before and after the GPU; and all of it, on a CPU, with a tiny model."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from aphrodite_engine.loading.model import open_model
from aphrodite_kernels.layouts import GgmlBlocks, GgmlType

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu"
CPU = torch.device("cpu")


@pytest.fixture
def module(monkeypatch):
    """A script of the folder, imported."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


@pytest.mark.parametrize("kind", [GgmlType.Q4_K, GgmlType.Q6_K])
def test_random_blocks_are_finite_and_keep_the_size_of_their_input(module, kind):
    drawn = module("random_checkpoint").random_blocks(
        kind, (64, 1024), torch.Generator().manual_seed(0)
    )
    weight = GgmlBlocks(drawn, kind).dequantize()
    assert weight.std().item() == pytest.approx(1024**-0.5, rel=0.1)
    assert abs(weight.mean().item()) < 0.05 * 1024**-0.5


def test_a_tensor_is_the_same_each_time_it_is_read(module):
    random, shapes = module("random_checkpoint"), module("shapes")
    for source in (
        random.random_safetensors(shapes.TINY, CPU),
        random.random_q4_k_m(shapes.TINY, CPU),
    ):
        store = source.checkpoint.store
        for name in store.names():
            assert torch.equal(store.read(name), store.read(name)), name
            assert store.info(name).nbytes == store.read(name).nbytes, name


def test_the_mix_of_q4_k_m(module):
    random, shapes = module("random_checkpoint"), module("shapes")
    kinds = random.q4_k_m(shapes.LLAMA_8B)
    careful = [name for name, kind in kinds.items() if kind == GgmlType.Q6_K]
    assert len(careful) == 16 + 16 + 1
    assert "lm_head" in careful
    assert kinds["model.embed_tokens"] == GgmlType.Q4_K


def test_floors_are_those_of_the_anchors(module):
    figures, formats = module("figures"), module("formats").FORMATS
    shape, loads = module("shapes").LLAMA_8B, module("scenarios").FULL

    def floor(scenario, kind):
        return figures.floor(scenario, shape, formats[kind], loads[scenario], figures.H200)

    assert floor("batch1", "bf16") == pytest.approx(3.3, abs=0.05)
    assert floor("batch1", "fp8") == pytest.approx(1.65, abs=0.05)
    assert floor("batch1", "q4_k_m") == pytest.approx(1.0, abs=0.1)
    assert floor("throughput", "bf16") == pytest.approx(12_900, rel=0.02)
    assert floor("throughput", "fp8-kv") == pytest.approx(14_800, rel=0.1)


def test_on_another_card_targets_lie_at_the_same_share_of_the_floor(module):
    figures, formats = module("figures"), module("formats").FORMATS
    shape, loads = module("shapes").LLAMA_8B, module("scenarios").FULL
    cards = (figures.H200, figures.card_named("NVIDIA H100 80GB HBM3"))
    there, here = (
        figures.compare("batch1", shape, formats["bf16"], loads["batch1"], card) for card in cards
    )
    assert (there.peer, there.least, there.aim) == (6.36, 4.4, 3.8)
    assert here.floor / there.floor == pytest.approx(4.6 / 3.2)
    assert here.aim / here.floor == pytest.approx(there.aim / there.floor)
    assert figures.card_named("Some other card") is None


def test_a_comparison_counts_up_or_down_as_the_unit_does(module):
    report, scenarios = module("report"), module("scenarios")
    figures = module("figures")
    load = scenarios.Workload(1, 1, 1)
    slow = scenarios.Measured("batch1", "ms/step", 4.0, (4.0,), load, 0.0)
    fast = scenarios.Measured("prefill", "tok/s", 4.0, (4.0,), load, 0.0)
    assert report.Row("bf16", slow, figures.Comparison(peer=8.0)).faster == 2
    assert report.Row("bf16", fast, figures.Comparison(peer=8.0)).faster == 0.5


def test_time_of_a_step_begins_with_the_last_first_token(module):
    session, scenarios = module("session"), module("scenarios")
    clock = session.Clock(engine=None)
    clock.ends = [1.0, 2.0, 3.0, 3.5, 4.0, 9.0]
    clock.tokens = [0, 1, 1, 2, 2, 0]
    assert scenarios.step_seconds(clock, 2) == pytest.approx(0.5)


def test_busy_time_counts_overlaps_once(module):
    profile_step = module("profile_step")
    kernels = [profile_step.Kernel("a", *span) for span in ((0, 4), (1, 2), (3, 6), (8, 9))]
    assert profile_step.busy_time(kernels) == 7
    report = profile_step.report_of("decoding", kernels, steps=2, most=1)
    assert "busy 4, idle 1 us/step; 2 kernels/step" in report
    assert report.splitlines()[2].split() == ["4.5", "100.0%", "2.0", "2.2", "a"]


def test_the_checkpoint_of_the_start_up_opens(module, tmp_path, monkeypatch):
    start_up, shapes = module("start_up"), module("shapes")
    monkeypatch.setattr(start_up, "SHARD", 1 << 20)
    start_up.write_checkpoint(shapes.TINY, tmp_path / "model")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 2
    source = open_model(tmp_path / "model")
    store = source.checkpoint.store
    assert store.info("lm_head.weight").shape == (shapes.TINY.vocabulary, shapes.TINY.hidden)
    assert torch.equal(store.read("model.norm.weight"), torch.ones(shapes.TINY.hidden).bfloat16())
    assert 0 < store.read("lm_head.weight").float().std() < 1


def test_everything_runs_on_a_cpu(tmp_path):
    result = tmp_path / "result.json"
    command = [
        *(sys.executable, str(FOLDER / "run.py"), "--shape", "tiny", "--device", "cpu"),
        *("--formats", "q4_k_m", "--rounds", "1", "--output", str(result)),
    ]
    reply = subprocess.run(command, capture_output=True, text=True, check=False)
    assert reply.returncode == 0, reply.stdout + reply.stderr
    found = json.loads(result.read_text())
    assert not found["failures"]
    assert all(check["passed"] for check in found["checks"])
    assert {row["scenario"].partition(":")[0] for row in found["rows"]} == {
        "batch1", "batch32", "prefill", "throughput", "sampling", "deterministic",
    }  # fmt: skip
