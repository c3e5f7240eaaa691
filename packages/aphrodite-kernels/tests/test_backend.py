"""How a backend is found: by its folder, its device, and an override."""

import sys
from dataclasses import replace

import pytest
import torch
from aphrodite_kernels import BackendError, Dense, backend_for, backend_names, backends
from aphrodite_kernels.backend import obstacle_on
from aphrodite_kernels.backends import reference
from aphrodite_kernels.protocols import Inputs

META = torch.device("meta")
SOURCE = """
import dataclasses
from aphrodite_kernels.backends import reference
DEVICE = "meta"
def obstacle():
    return {obstacle!r}
def create(device, *, threads, dtype):
    made = reference.create(device, threads=threads, dtype=dtype)
    return dataclasses.replace(made, name="zeta", pack={{}})
"""


@pytest.fixture(autouse=True)
def no_override(monkeypatch):
    monkeypatch.delenv("APHRODITE_BACKEND", raising=False)


@pytest.fixture
def add_zeta(tmp_path, monkeypatch):
    """Function that puts a backend called zeta for the device meta into the folder."""

    def add(obstacle=None):
        (tmp_path / "zeta").mkdir()
        (tmp_path / "zeta" / "__init__.py").write_text(SOURCE.format(obstacle=obstacle))

    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    yield add
    sys.modules.pop("aphrodite_kernels.backends.zeta", None)


def test_a_folder_registers(add_zeta):
    assert backend_for(META).name == "reference"
    add_zeta()
    assert "zeta" in backend_names()
    assert backend_for(META).name == "zeta"


def test_one_that_cannot_run_gives_way_and_says_so(add_zeta, caplog):
    add_zeta(obstacle="the compiler is missing")
    assert backend_for(META).name == "reference"
    assert "zeta cannot run here" in caplog.text
    assert "the compiler is missing" in caplog.text


def test_a_gpu_is_not_left_to_the_reference(monkeypatch):
    monkeypatch.setattr("aphrodite_kernels.backends.triton.obstacle", lambda: "it is too old")
    device = torch.device("cuda:0")
    assert obstacle_on(device) == "it is too old" and obstacle_on(META) is None
    with pytest.raises(BackendError, match=r"device cuda:0 cannot be used: it is too old; choose"):
        backend_for(device)


def test_the_override_wins(add_zeta, monkeypatch):
    add_zeta()
    monkeypatch.setenv("APHRODITE_BACKEND", "reference")
    assert backend_for(META).name == "reference"
    monkeypatch.setenv("APHRODITE_BACKEND", "abacus")
    with pytest.raises(BackendError, match=r"abacus names no backend; present are .*reference"):
        backend_for(META)


def test_an_override_that_cannot_run_is_an_error(add_zeta, monkeypatch):
    add_zeta(obstacle="no such device")
    monkeypatch.setenv("APHRODITE_BACKEND", "zeta")
    with pytest.raises(BackendError, match="zeta cannot run here: no such device"):
        backend_for(META)


def test_dtype_is_passed_on():
    assert backend_for(META, dtype=torch.float16).dtype == torch.float16


def test_a_weight_is_prepared_by_its_layout():
    """Tiling, product and look-up are chosen by the type of the weight."""

    class Tiled(Dense):
        pass

    def matmul(x, weight, bias=None):
        return x

    made = reference.create(torch.device("cpu"), threads=None, dtype=None)
    made = replace(made, pack={Dense: lambda weight: Tiled(weight.weight)}, matmul={Tiled: matmul})
    dense = Dense(torch.ones(2, 2))
    assert type(made.prepare(dense)) is Tiled
    assert made.matmul_for(made.prepare(dense)) is matmul
    assert made.matmul_for(dense) is made.any_matmul
    assert made.embed_for(dense) is made.any_embed


def test_a_layout_may_have_a_product_for_some_weights_only():
    def matmul(x, weight, bias=None):
        return x

    def rounding(weight):
        return Inputs(None, None)

    made = reference.create(torch.device("cpu"), threads=None, dtype=None)
    made = replace(
        made,
        matmul={Dense: matmul},
        takes={Dense: lambda weight: weight.in_features > 2},
        inputs={Dense: rounding},
    )
    taken, other = Dense(torch.ones(2, 3)), Dense(torch.ones(2, 2))
    assert made.multiplies(taken) and made.matmul_for(taken) is matmul
    assert made.inputs_of(taken) == Inputs(None, None)
    assert not made.multiplies(other) and made.matmul_for(other) is made.any_matmul
    assert made.inputs_of(other) == Inputs(made.add_rms_norm, made.gated)


def test_only_a_row_invariant_backend_can_be_deterministic():
    backend = reference.create(torch.device("cpu"), threads=None, dtype=None)
    with pytest.raises(BackendError, match="'reference' cannot be deterministic"):
        backend.deterministic()
    weight = Dense(torch.ones(2, 3))
    product = replace(backend, row_invariant=True).deterministic().matmul_for(weight)
    with pytest.raises(BackendError, match="no deterministic product for the layout Dense"):
        product(torch.ones(1, 3), weight)
