"""Layouts for weights of few bits: splitting, stacking and moving agree with the dense matrix."""

from dataclasses import replace

import pytest
import torch
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import Dense, Lookup, Microscaled
from aphrodite_kernels.layouts.codebook import Book, Codebook
from aphrodite_kernels.layouts.hadamard import hadamard, sylvester
from aphrodite_kernels.layouts.lattice import Lattice, lattice_points
from aphrodite_kernels.layouts.outlying import Entries, Outlying, Sparse
from aphrodite_kernels.layouts.rotated import Rotated, Rotation
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.testing.kinds import weight_kinds
from aphrodite_kernels.testing.kinds.codebook import random_codebook, random_lattice
from aphrodite_kernels.testing.kinds.rotated import random_rotated

KINDS = {kind.label: kind.draw for kind in weight_kinds()}
DIVISIBLE = [
    "lookup_shared", "lookup_by_row", "mxfp4", "mxfp8", "nvfp4",
    "codebook_wide", "codebook_tall", "codebook_lattice", "outlying",
]  # fmt: skip


def made(label, rows=12, columns=192):
    return KINDS[label](rows, columns, torch.Generator().manual_seed(7))


@pytest.mark.parametrize("label", [*DIVISIBLE, "runs", "rotated"])
def test_a_layout_is_a_matrix(label):
    weight = made(label)
    dense = weight.dequantize()
    assert dense.shape == (weight.out_features, weight.in_features) == (12, 192)
    assert torch.equal(weight.dequantize(torch.bfloat16), dense.bfloat16())
    assert torch.equal(weight.to(torch.device("cpu")).dequantize(), dense)
    index = torch.tensor([11, 0, 0, 7])
    assert torch.equal(weight.rows(index).dequantize(), dense[index])
    again = torch.tensor([3, 1, 1])
    assert torch.equal(weight.rows(index).rows(again).dequantize(), dense[index[again]])
    assert weight.rows(index[:0]).dequantize().shape == (0, 192)


@pytest.mark.parametrize("label", [*DIVISIBLE, "runs"])
def test_shards_and_stacks_agree_with_the_dense_matrix(label):
    weight = made(label)
    dense = weight.dequantize()
    for axis in (0,) if label == "runs" else (0, 1):
        parts = [weight.shard(axis, rank, 2) for rank in range(2)]
        assert torch.equal(torch.cat([part.dequantize() for part in parts], axis), dense)
    halves = [weight.shard(0, 1, 2), weight.rows(torch.tensor([5, 2, 3])), weight]
    expected = torch.cat([half.dequantize() for half in halves])
    stacked = type(weight).stack(halves)
    assert torch.equal(stacked.dequantize(), expected)
    assert torch.equal(stacked.rows(torch.tensor([0, 6, 20])).dequantize(), expected[[0, 6, 20]])


def test_decoding_in_chunks_changes_nothing(monkeypatch):
    weight = made("codebook_tall", 20)
    dense, picked = weight.dequantize(), weight.rows(torch.tensor([19, 4, 4])).dequantize()
    monkeypatch.setattr("aphrodite_kernels.layouts.codebook._DECODED_AT_ONCE", 1)
    assert torch.equal(weight.dequantize(), dense)
    assert torch.equal(weight.rows(torch.tensor([19, 4, 4])).dequantize(), picked)


@pytest.mark.parametrize(
    ("label", "axis", "size", "message"),
    [
        ("lookup_shared", 1, 4, "192 in groups of 32 does not divide into 4 parts"),
        ("lookup_by_row", 1, 64, "192 in groups of 2 does not divide into 64 parts"),
        ("mxfp4", 1, 5, "192 in groups of 32 does not divide into 5 parts"),
        ("nvfp4", 0, 5, "12 in groups of 1 does not divide into 5 parts"),
        ("codebook_tall", 0, 3, "12 in groups of 6 does not divide into 3 parts"),
        ("codebook_wide", 1, 16, "192 in groups of 8 does not divide into 16 parts"),
        ("outlying", 1, 64, "192 in groups of 2 does not divide into 64 parts"),
        ("runs", 1, 2, "runs of columns packed in different ways have no equal parts"),
        ("rotated", 0, 2, r"mixes all channels: \[12, 192\] does not divide into 2 parts"),
    ],
)
def test_what_belongs_together_is_not_split(label, axis, size, message):
    with pytest.raises(LayoutError, match=message):
        made(label).shard(axis, 0, size)


@pytest.mark.parametrize("label", [*DIVISIBLE, "runs", "rotated"])
def test_other_layouts_do_not_stack(label):
    weight = made(label)
    for other in (Dense(weight.dequantize()), made(label, 12, 384)):
        with pytest.raises(LayoutError):
            type(weight).stack([weight, other])


def test_rows_of_one_rotated_weight_are_put_together_again():
    weight = made("rotated")
    dense, parts = weight.dequantize(), [weight.rows(torch.arange(n, n + 4)) for n in (0, 4, 8)]
    first = Rotated.stack(parts[:2])
    assert torch.equal(first.dequantize(), dense[:8])
    whole = Rotated.stack([first, parts[2]])
    assert whole.picked is None and torch.equal(whole.dequantize(), dense)
    turned = Rotated.stack(parts[::-1])
    assert torch.equal(turned.dequantize(), dense[[8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3]])
    assert torch.equal(
        Rotated.stack([weight, parts[1]]).dequantize(), dense[[*range(12), *range(4, 8)]]
    )
    other = replace(parts[1], left=replace(weight.left, scale=weight.left.scale.clone()))
    with pytest.raises(LayoutError, match="each of them stays a product alone"):
        Rotated.stack([parts[0], other])


def test_tables_of_other_numbers_stack_row_by_row():
    shared = [made("lookup_shared"), replace(made("lookup_shared"), table=torch.rand(1, 16))]
    for parts in (shared, [made("lookup_by_row"), made("lookup_by_row", 6)]):
        expected = torch.cat([part.dequantize() for part in parts])
        assert torch.equal(Lookup.stack(parts).dequantize(), expected)


def test_scales_of_rows_stack_with_none():
    with_rows = made("nvfp4")
    parts = [with_rows, Microscaled(with_rows.elements, with_rows.scale, 16)]
    expected = torch.cat([part.dequantize() for part in parts])
    assert torch.equal(Microscaled.stack(parts).dequantize(), expected)


def test_other_codebooks_and_columns_do_not_stack():
    generator = torch.Generator().manual_seed(1)
    first, second = (random_codebook(8, 64, (1, 8), (256,), generator) for _ in range(2))
    with pytest.raises(LayoutError, match="different codebooks"):
        Codebook.stack([first, second])
    runs = made("runs")
    for name in ("columns", "scale", "shift"):
        with pytest.raises(LayoutError, match=f"whose {name} differ"):
            Runs.stack([runs, replace(runs, **{name: getattr(runs, name).flip(0)})])
        with pytest.raises(LayoutError, match=f"whose {name} differ"):
            Runs.stack([runs, replace(runs, **{name: None})])


@pytest.mark.parametrize("size", [1, 2, 64, 128, 256, 2048, 65536])
def test_the_transform_is_orthonormal_and_its_own_inverse(size):
    x = torch.randn(2, size, generator=torch.Generator().manual_seed(size)).double()
    turned = hadamard(x.float()).double()
    torch.testing.assert_close(turned.norm(dim=1), x.norm(dim=1), rtol=1e-5, atol=0)
    torch.testing.assert_close(hadamard(turned.float()).double(), x, rtol=0, atol=1e-4)
    if size <= 2048:
        signs = [[(-1) ** (i & j).bit_count() for j in range(size)] for i in range(0, size, 37)]
        matrix = torch.tensor(signs).double() / size**0.5
        torch.testing.assert_close(turned[:, ::37], x @ matrix.T, rtol=0, atol=1e-5)
        assert torch.equal(sylvester(size, x.device), sylvester(size, x.device).T)


def test_a_rotated_weight_is_the_product_of_its_matrices():
    weight = random_rotated(11, 96, torch.Generator().manual_seed(3))
    right = torch.kron(weight.right.base, sylvester(32, torch.device("cpu"))).double()
    left = sylvester(16, torch.device("cpu")).double()
    inner = weight.weight.dequantize().double()
    expected = (left @ inner @ right.T)[:11] * weight.left.scale[:, None] * weight.right.scale
    torch.testing.assert_close(weight.dequantize().double(), expected, rtol=0, atol=1e-5)


def test_points_are_those_of_their_lattice():
    cpu = torch.device("cpu")
    points = lattice_points(Lattice.E8P, cpu).float()[:, 0]
    assert points.shape == (65536, 8) and len(points.unique(dim=0)) == 65536
    odd = torch.tensor([(code & 255).bit_count() % 2 for code in range(65536)])
    halves = points - 0.25 + 0.5 * odd[:, None]
    assert torch.equal(halves % 1, torch.full_like(halves, 0.5))
    assert (halves.sum(1) % 2 == 0).all()
    norms = halves.square().sum(1)
    assert (norms[: 227 * 256] <= 10).all() and (norms[227 * 256 :] == 12).all()
    ones = lattice_points(Lattice.E81B, cpu).float()[:, 0]
    assert ones.square().sum(1).long().bincount().tolist() == [1, 0, 240, 0, 15]
    assert len(ones.unique(dim=0)) == 256 and (ones.sum(1) % 2 == 0).all()


def sparse(rows, columns):
    entries = Entries(torch.tensor([0, 1, 1]), torch.tensor([2, 1, 0]), torch.ones(3))
    return Sparse.of([entries], rows, columns)


def test_numbers_in_one_place_are_added_up():
    once = Entries(torch.tensor([2, 0]), torch.tensor([1, 3]), torch.tensor([1.5, 4.0]))
    twice = Entries(torch.tensor([2]), torch.tensor([1]), torch.tensor([2.0]))
    found = Sparse.of([once, twice], 3, 4)
    assert found.starts.tolist() == [0, 1, 1, 2] and found.columns.tolist() == [3, 1]
    expected = torch.zeros(3, 4).index_put((once.row, once.column), torch.tensor([3.5, 4.0]))
    assert torch.equal(found.added_to(torch.ones(3, 4)), 1 + expected)
    assert torch.equal(found.looked_up(torch.tensor([2, 2, 1])), expected[[2, 2, 1]])


def book(codes=(4, 3), entries=(256, 1, 8), dtype=torch.uint8):
    return Book(torch.zeros(codes).to(dtype), torch.zeros(entries))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: book(dtype=torch.int32), "matrix of uint8 or int16, not torch.int32"),
        (lambda: book(entries=(256, 8)), r"\[E, height, width\] .* not \[256, 8\]"),
        (lambda: book(entries=(300, 1, 8)), "codes of torch.uint8 do not reach 300 entries"),
        (
            lambda: Book.pack(torch.tensor([[3, 5]]), torch.ones(5, 1, 8)),
            "code 5 names none of 5 entries",
        ),
        (lambda: Codebook((), None, 4), "needs one at least"),
        (lambda: Codebook((book(), book((5, 3))), None, 4), "are of one shape, not"),
        (lambda: Codebook((book(),), None, 9), "9 rows in rectangles of 1 need 9 of them, not 4"),
        (lambda: Codebook((book(),), torch.ones(3), 4), r"scales of 4 .* not \[3\]"),
        (lambda: Codebook((book(),), None, 4, torch.ones(4)), r"places of 4 .* not \[4\]"),
        (lambda: Runs(()), r"one or more of equal height, not \[\]"),
        (lambda: Runs((Dense(torch.ones(2, 2)),), torch.ones(2)), r"columns of .* not \[2\] torch"),
        (lambda: Rotation(torch.ones(4), 12, None), "12 channels are not 1 times a power of two"),
        (lambda: Rotation(torch.ones(9), 8, None), "rotation of 8 channels is too small for 9"),
        (
            lambda: Rotation(torch.ones(3).half(), 8, None),
            r"\[C\] float32, not \[3\] torch.float16",
        ),
        (lambda: Rotation(torch.ones(3), 6, torch.ones(3, 2)), r"a square .* not \[3, 2\]"),
        (
            lambda: Rotated(
                random_lattice(4, 8, torch.Generator()),
                Rotation(torch.ones(4), 4, None),
                Rotation(torch.ones(4), 4, None),
            ),
            r"rotations of 4 and 4 channels do not fit a weight \[4, 8\]",
        ),
        (
            lambda: Outlying(Dense(torch.ones(2, 3)), sparse(2, 4)),
            r"a sparse matrix \[2, 4\] is not added to a weight \[2, 3\]",
        ),
        (
            lambda: replace(sparse(2, 4), columns=torch.zeros(1).int()),
            r"columns of a sparse matrix of 3 numbers are \[3\] int32, not \[1\] torch.int32",
        ),
        (
            lambda: replace(sparse(2, 4), starts=torch.zeros(3)),
            r"starts of .* are \[3\] int32, not \[3\] torch.float32",
        ),
    ],
)
def test_what_is_no_layout_is_refused(wrong, message):
    with pytest.raises(LayoutError, match=message):
        wrong()
