"""Are products that unpack a weight on its way to tensor cores right, and the same bits each time?

    python benchmarks/gpu/kernels/unpacked.py [--kinds Q4_K,Q6_K] [--more] [--times]

In the tiles that are chosen; with --more also in others; with --times how long some take.
"""

import argparse
from collections.abc import Mapping

import torch
from aphrodite_kernels.backends.triton.dense_tiles import Tiling, Workspace, workspace_on
from aphrodite_kernels.backends.triton.ggml.encoding import ENCODINGS, GROUPED, UNIT, Encoding
from aphrodite_kernels.backends.triton.ggml.fragments import Fragments
from aphrodite_kernels.backends.triton.ggml.matmul import UNPACKED, first_of
from aphrodite_kernels.backends.triton.ggml.unpacked import unpacked_product
from triton.testing import do_bench

DEVICE = torch.device("cuda")
SHAPES = ((4096, 4096), (1536, 14336), (6144, 2048))
ROWS = (33, 64, 100, 128, 200, 256)
TIMES = 20
MORE = {
    f"{t}x{n}, {warps} warps, {stages} stages": Tiling(
        t, n, UNIT, num_warps=warps, num_stages=stages, split=0, resident=1 if t == 256 else 2
    )
    for t, n, warps in ((32, 128, 4), (64, 64, 4), (128, 64, 4), (256, 128, 8))
    for stages in (2, 3, 4)
}


def random_fragments(encoding: Encoding, outputs: int, inputs: int) -> Fragments:
    """Random codes; scales and biases of a size that float16 multiplies well."""
    generator = torch.Generator(DEVICE).manual_seed(outputs)
    shape = (outputs // 16, inputs // UNIT, encoding.record)
    records = torch.randint(
        -(1 << 15), 1 << 15, shape, generator=generator, device=DEVICE, dtype=torch.int16
    )
    header = records[..., UNIT * (encoding.low + encoding.high) :]
    if encoding.header in ("half", "halves"):
        header.copy_((torch.rand(header.shape, device=DEVICE) / 64).half().view(torch.int16))
    elif encoding.header in ("float", "floats"):
        wide = torch.rand(*header.shape[:2], header.shape[2] // 2, device=DEVICE) / 64
        header.copy_(wide.view(torch.int16))
    else:
        units = header.view(*header.shape[:2], 16, 2 * encoding.words)[..., -2:]
        units.copy_((torch.rand(units.shape, device=DEVICE) / 4096).half().view(torch.int16))
    return Fragments(records, encoding, outputs, inputs)


def verdict(
    weight: Fragments, dense: torch.Tensor, rows: int, tiling: Tiling, workspace: Workspace
) -> str:
    x = torch.randn(rows, weight.inputs, device=DEVICE).bfloat16()
    expected = x.float() @ dense.float().T
    allowed = 2e-2 * (dense.float().square().sum(1).sqrt() + expected.abs())
    runs = [
        unpacked_product(x, weight, None, workspace, tiling, overlapped=False) for _ in range(TIMES)
    ]
    wrong = sum(not bool(((run.float() - expected).abs() <= allowed).all()) for run in runs)
    unlike = sum(not torch.equal(run, runs[0]) for run in runs)
    return f"{wrong:2d} wrong, {unlike:2d} unlike the first" if wrong or unlike else ""


def check(name: str, encoding: Encoding, workspace: Workspace, more: Mapping[str, Tiling]) -> None:
    bad, count = [], 0
    for outputs, inputs in SHAPES:
        weight = random_fragments(encoding, outputs, inputs)
        dense = weight.dequantize(torch.bfloat16)
        for rows in ROWS:
            tilings = {"chosen": first_of(UNPACKED, rows)}
            if rows in (64, 256):
                tilings |= more
            for label, tiling in tilings.items():
                count += 1
                if found := verdict(weight, dense, rows, tiling, workspace):
                    bad.append(f"  {label}, {rows} rows of [{outputs}, {inputs}]: {found}")
    head = f"{name}: {count} products, {TIMES} times each, {len(bad)} of them bad"
    print("\n".join([head, *bad]), flush=True)


def measure(name: str, encoding: Encoding, workspace: Workspace) -> None:
    weights = [random_fragments(encoding, 1 << 12, inputs) for inputs in (4096, 4096, 14336)]
    for rows in (64, 128, 256):
        inputs = [torch.randn(rows, weight.inputs, device=DEVICE).bfloat16() for weight in weights]
        tiling = first_of(UNPACKED, rows)

        def three(inputs: list[torch.Tensor] = inputs, tiling: Tiling = tiling) -> None:
            for x, weight in zip(inputs, weights, strict=True):
                unpacked_product(x, weight, None, workspace, tiling, overlapped=False)

        took = do_bench(three, warmup=30, rep=150, return_mode="median")
        print(f"{name}, {rows} rows: {1000 * took:.1f} us for three products", flush=True)


def main() -> None:
    kinds = {kind.name: encoding for kind, encoding in ENCODINGS.items()}
    kinds |= {f"grouped{index}": encoding for index, encoding in enumerate(GROUPED)}
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", default=",".join(kinds))
    parser.add_argument("--more", action="store_true")
    parser.add_argument("--times", action="store_true")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    workspace = workspace_on(DEVICE)
    for name in options.kinds.split(","):
        if options.times:
            measure(name, kinds[name], workspace)
        else:
            check(name, kinds[name], workspace, MORE if options.more else {})


if __name__ == "__main__":
    main()
