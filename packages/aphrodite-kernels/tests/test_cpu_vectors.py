"""Products with codebooks, runs of columns, rotations and codes in groups of rows on each level."""

from dataclasses import replace

import pytest
import torch
from aphrodite_kernels.backends import cpu
from aphrodite_kernels.backends.cpu.library import LEVELS
from aphrodite_kernels.layouts.codebook import Codebook
from aphrodite_kernels.layouts.outlying import Outlying
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.testing.kinds.codebook import random_codebook, random_lattice
from aphrodite_kernels.testing.kinds.outlying import random_outlying
from aphrodite_kernels.testing.kinds.rotated import random_rotated
from aphrodite_kernels.testing.kinds.row_grouped import random_row_grouped
from aphrodite_kernels.testing.kinds.runs import random_runs, random_vector_runs

if cpu.obstacle() is not None:
    pytest.skip(f"the CPU backend cannot run: {cpu.obstacle()}", allow_module_level=True)


@pytest.fixture(scope="module", params=LEVELS[:3])
def backend(request):
    return cpu.backend_on(torch.device("cpu"), cpu.Runtime(2, request.param))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def check(backend, weight, limit=1e-5):
    prepared = backend.prepare(weight)
    assert backend.multiplies(prepared)
    x = torch.randn(5, weight.in_features + 8, generator=seeded(1))[:, 3:-5]
    bias = torch.randn(weight.out_features, generator=seeded(2))
    found = backend.matmul_for(prepared)(x, prepared, bias)
    expected = x.double() @ weight.dequantize().double().T + bias
    off = (found - expected).abs().max() / expected.std()
    assert off < limit, f"off by {off:.1e} of a standard deviation"
    alone = backend.matmul_for(prepared)(x[3:4], prepared, bias)
    assert torch.equal(alone, found[3:4]), "a row is rounded by its company"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((1, 8), (1 << 16,)),
        ((1, 8), (256,) * 8),
        ((1, 16), (1 << 10, 64)),
        ((1, 48), (256,)),
        ((8, 1), (1 << 12, 256)),
        ((6, 1), (1 << 12,)),
        ((20, 1), (256,)),
        ((3, 4), (256, 1 << 9)),
    ],
)
def test_entries_of_any_shape(backend, shape, sizes, dtype):
    weight = random_codebook(77, 1344, shape, sizes, seeded())
    books = tuple(replace(book, entries=book.entries.to(dtype)) for book in weight.books)
    check(backend, replace(weight, books=books))


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_of_any_width(backend, bits):
    check(backend, random_row_grouped(77, 1352, bits, seeded()))


@pytest.mark.parametrize("sizes", [(64, 256), (60, 1536), (100, 2048 + 1024)])
def test_points_between_rotations(backend, sizes):
    check(backend, random_rotated(*sizes, seeded()), 2e-5)
    check(backend, random_lattice(*sizes, seeded()))


def test_outliers_beside(backend):
    check(backend, random_outlying(77, 576, seeded()))
    check(backend, random_outlying(3, 96, seeded()))


@pytest.mark.parametrize("made", [random_vector_runs, random_runs])
def test_runs_with_and_without_an_order(backend, made):
    weight = made(77, 640, seeded())
    rounded = made is random_runs
    for change in ({}, {"columns": None}, {"scale": None}, {"shift": None}):
        check(backend, replace(weight, **change), 0.1 if rounded else 1e-5)
    plain = replace(weight, columns=None, scale=None, shift=None)
    check(backend, plain, 0.1 if rounded else 1e-5)


def test_what_kernels_do_not_take_is_multiplied_all_the_same(backend):
    nine = random_codebook(40, 64, (1, 8), (16,) * 9, seeded())
    tall = random_codebook(40, 64, (4, 1), (16,), seeded()).rows(torch.tensor([7, 1, 30]))
    runs = Runs((tall, tall))
    picked = random_rotated(64, 96, seeded()).rows(torch.tensor([5, 60]))
    outlying = Outlying(tall, random_outlying(3, 64, seeded()).outliers)
    for weight in (nine, tall, runs, picked, outlying):
        prepared = backend.prepare(weight)
        assert not backend.multiplies(prepared)
        x = torch.randn(2, weight.in_features, generator=seeded())
        found = backend.matmul_for(prepared)(x, prepared)
        torch.testing.assert_close(found, x @ weight.dequantize().T, rtol=1e-4, atol=1e-4)
        tokens = torch.tensor([1, 0], dtype=torch.int32)
        rows = backend.embed_for(prepared)(tokens, prepared, 2.0)
        torch.testing.assert_close(rows, 2 * weight.dequantize()[:2].flip(0))


def test_codes_of_a_weight_stay_where_they_are(backend):
    weight = random_codebook(64, 64, (1, 8), (256, 256), seeded())
    prepared = backend.prepare(weight)
    codes = [book.codes.data_ptr() for book in prepared.source.books]
    assert codes == [book.codes.data_ptr() for book in weight.books]
    assert isinstance(prepared.source, Codebook)
    assert prepared.nbytes < weight.nbytes + 200
