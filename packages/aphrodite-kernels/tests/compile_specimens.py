"""Compiles every specimen of the Triton backend for every device it names, without any device.

    python compile_specimens.py

A line of JSON for each: its name, and what is wrong with it if something is. Run without
TRITON_INTERPRET.
"""

import importlib
import json
import os
import pkgutil
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from pathlib import Path

import triton
from aphrodite_kernels.backends import triton as backend
from aphrodite_kernels.backends.triton.specimen import Specimen
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

_CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"

Job = tuple[str, int, int]
"""Module, place among its specimens, capability of the device."""


def jobs() -> Iterator[Job]:
    """Every specimen on every device."""
    for found in pkgutil.walk_packages(backend.__path__, backend.__name__ + "."):
        specimens = getattr(importlib.import_module(found.name), "SPECIMENS", ())
        for place, specimen in enumerate(specimens):
            yield from ((found.name, place, capability) for capability in specimen.capabilities)


def report(job: Job) -> dict[str, str | None]:
    """What became of one."""
    module, place, capability = job
    specimen: Specimen = importlib.import_module(module).SPECIMENS[place]
    file = module.removeprefix(backend.__name__ + ".")
    name = f"{file}[{place}] {specimen.kernel.__name__} {specimen.constants} sm_{capability}"
    try:
        spilled = stack(compiled(specimen, capability))
    except Exception as failure:
        return {"name": name, "fault": f"{type(failure).__name__}: {failure}"}
    excess = spilled > specimen.spilled
    fault = f"{spilled} bytes of registers are spilled, at most {specimen.spilled}"
    return {"name": name, "fault": fault if excess else None}


def compiled(specimen: Specimen, capability: int) -> bytes:
    """The device's program."""
    names = specimen.kernel.arg_names
    source = ASTSource(
        fn=specimen.kernel,
        signature={name: specimen.signature.get(name, "constexpr") for name in names},
        constexprs=constants_of(specimen, names),
        attrs={path_of(name, names): [["tt.divisibility", 16]] for name in specimen.aligned},
    )
    options = {
        "num_warps": specimen.num_warps,
        "num_stages": specimen.num_stages,
        "maxnreg": specimen.registers,
    }
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=options).asm["cubin"]


def constants_of(specimen: Specimen, names: list[str]) -> dict[tuple[int, ...], object]:
    """By place; what is a constant in a tuple is None."""
    given = {path_of(name, names): value for name, value in specimen.constants.items()}
    for name, kinds in specimen.signature.items():
        if isinstance(kinds, tuple):
            absent = (place for place, kind in enumerate(kinds) if kind == "constexpr")
            given |= {(names.index(name), place): None for place in absent}
    return given


def path_of(argument: str, names: list[str]) -> tuple[int, ...]:
    """Where an argument, or one in a tuple, stands."""
    name, *inside = argument.split(".")
    return (names.index(name), *map(int, inside))


def stack(cubin: bytes) -> int:
    """Bytes of a thread's stack, where spilled registers lie."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run(
            [_CUOBJDUMP, "--dump-resource-usage", file.name],
            capture_output=True, check=True, text=True,
        ).stdout  # fmt: skip
    return max(int(size) for size in re.findall(r"STACK:(\d+)", usage))


def main() -> None:
    every = sorted(jobs(), key=lambda job: job[2])
    # Triton remembers how the first device of a process converts floats of eight bits.
    for _, alike in groupby(every, key=lambda job: job[2]):
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for line in pool.map(report, alike):
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
