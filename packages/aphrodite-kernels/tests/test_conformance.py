"""Every backend that can run here computes what the reference computes."""

import dataclasses
import importlib
from functools import cache
from itertools import product, starmap

import pytest
import torch
from aphrodite_kernels import backend_names
from aphrodite_kernels.backends import reference
from aphrodite_kernels.testing import company_cases, conformance_cases

CASES = conformance_cases()
COMPANY = company_cases()


@cache
def made(name):
    """The backend in the dtype it chooses itself.

    Without a GPU its kernels run in Triton's interpreter, on the CPU and in float16: numpy, by
    which it multiplies, knows no bfloat16 and takes its bits for integers.
    """
    module = importlib.import_module(f"aphrodite_kernels.backends.{name}")
    if obstacle := module.obstacle():
        pytest.skip(f"backend {name} cannot run on this machine: {obstacle}")
    device, dtype = torch.device(module.DEVICE or "cpu"), None
    if device.type == "cuda" and not torch.cuda.is_available():
        device, dtype = torch.device("cpu"), torch.float16
    return module.create(device, threads=None, dtype=dtype)


def on_backend(name, case):
    marks = [pytest.mark.spare] if case.spare and name == "triton" else []
    return pytest.param(name, case, id=f"{name}-{case}", marks=marks)


@pytest.mark.parametrize(
    ("name", "case"), list(starmap(on_backend, product(backend_names(), CASES)))
)
def test_backend_conforms(name, case):
    case.check(made(name))


def test_case_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


def wider_window(q, cache, meta, spec):
    return made("reference").attention(
        q, cache, meta, dataclasses.replace(spec, window=(spec.window or 12) + 1)
    )


def one_row_late(x, weight, bias=None):
    return made("reference").any_matmul(x.roll(1, 0), weight, bias)


def first_rows(tokens, weight, scale):
    return weight.dequantize()[: len(tokens)]


def stores_alone(q, k, v, positions, table, cache, slots):
    made("reference").rotate_and_store(q.clone(), k, v, positions, table, cache, slots)


def stores_keys_as_they_come(q, k, v, positions, table, cache, slots):
    made("reference").rotate_and_store(q, k.clone(), v, positions, table, cache, slots)
    cache.key[slots // cache.block_size, slots % cache.block_size] = k


def one_slot_late(q, k, v, positions, table, cache, slots):
    late = (slots + 1) % cache.key[..., 0, 0].numel()
    made("reference").rotate_and_store(q, k, v, positions, table, cache, late)


def accepts_all(logits):
    tokens, valid = made("reference").argmax(logits)
    return tokens, valid | True


def made_of(op):
    """Another op in the place of the right one."""
    return getattr(made("reference"), op)


@pytest.mark.parametrize(
    ("op", "wrong", "name"),
    [
        ("attention", wider_window, "attention-9q3kv64-mixed-window"),
        ("any_matmul", one_row_late, "matmul-Q4_K-5x130x256"),
        ("rotate_and_store", stores_alone, "rotate_and_store-4q4kv32-32-13"),
        ("rotate_and_store", stores_keys_as_they_come, "rotate_and_store-9q3kv64-32-1"),
        ("rotate_and_store", one_slot_late, "rotate_and_store-3kv64-still"),
        ("rotate_and_store", one_slot_late, "rotate_and_store-8q2kv80-40-13-int8"),
        ("rms_norm", lambda x, weight, eps: x, "rms_norm-7x640"),
        ("add_rms_norm", lambda x, residual, weight, eps: (x, x), "add_rms_norm-7x640"),
        ("gated", lambda gate, up, activation: gate * up, "gated-silu-7x640"),
        ("select", lambda x, index: x[: len(index)], "select-7x640"),
        ("any_embed", first_rows, "embed-Q8_0"),
        ("argmax", lambda logits: made("reference").argmax(-logits), "argmax-300"),
        ("argmax", accepts_all, "draw-failed"),
        ("draw", lambda logits, uniform: made("reference").argmax(logits), "draw-300"),
        ("uncertainty", lambda x: made("reference").uncertainty(2 * x), "uncertainty-300"),
        ("deviation", lambda logits: made("reference").deviation(logits.abs()), "deviation-300"),
        ("keep_tail_free", made_of("keep_top_p"), "keep_tail_free-300"),
        ("keep_typical", made_of("keep_top_p"), "keep_typical-300"),
        ("divide", lambda logits, divisor: logits.mul_(divisor), "divide-300"),
        ("bend", lambda logits, square, cube: logits.mul_(1 + square), "bend-300"),
        ("prefer", lambda logits, aim: logits.mul_(aim), "prefer-300"),
        ("skew", lambda logits, power: logits.mul_(power), "skew-300"),
        ("uniform", lambda seeds, choices, positions, purpose: seeds.float() * 0, "uniform"),
    ],
)  # fmt: skip
def test_the_suite_notices_a_wrong_op(op, wrong, name):
    right = reference.create(torch.device("cpu"), threads=None, dtype=torch.float32)
    (case,) = [case for case in CASES if case.name == name]
    case.check(right)
    with pytest.raises(AssertionError):
        case.check(dataclasses.replace(right, **{op: wrong}))


def deterministic(name):
    backend = made(name)
    if not (backend.row_invariant or backend.steady):
        pytest.skip(f"backend {name} has no deterministic mode")
    if backend.capture is None and name == "triton":
        pytest.skip("Triton's interpreter multiplies by numpy, which rounds by a product's shape")
    return backend.deterministic()


@pytest.mark.parametrize("case", COMPANY, ids=str)
@pytest.mark.parametrize("name", backend_names())
def test_rows_are_rounded_alike_in_any_company(name, case):
    case.check(deterministic(name))


def test_the_cases_notice_a_row_that_depends_on_others():
    right = deterministic("cpu")
    (case,) = [case for case in COMPANY if case.name == "company-norm"]
    wrong = dataclasses.replace(
        right, rms_norm=lambda x, weight, eps: x + torch.linalg.vector_norm(x)
    )
    with pytest.raises(AssertionError, match="differ without the others"):
        case.check(wrong)
