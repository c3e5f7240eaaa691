"""Finding and opening the compiled library.

It is installed into the package (`aphrodite_kernels/lib`); an editable install keeps that folder in
site-packages, apart from the sources, so every folder of the package's path is looked at.
"""

import ctypes
import hashlib
import re
from pathlib import Path

import aphrodite_kernels
from aphrodite_kernels.errors import BackendError

LEVELS = ("generic", "avx2", "avx512", "avx512_vnni", "avx512_bf16")
"""Instruction sets from the plainest up, numbered as in csrc/cpu/runtime.h."""

_NAME = "*aphrodite_cpu.*"
_SOURCES = Path(__file__).parents[4] / "csrc" / "cpu"
"""Of the library, where the package lies among them; a wheel has a library made with it."""
_INTERFACE = re.compile(rb"(?:struct aph_[a-z_: ]+|enum [A-Za-z_: ]+) {[^}]*}|APH_EXPORT [^{;]*")
"""What both sides must agree on, as CMakeLists.txt finds it."""


def find_library() -> Path | None:
    """Where the compiled library lies, if it was built; the newest, if several were."""
    folders = [Path(folder) / "lib" for folder in aphrodite_kernels.__path__]
    found = [path for folder in folders for path in folder.glob(_NAME)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def open_library() -> ctypes.CDLL:
    """The library, its functions declared; ops are declared by `Runtime.op`.

    Raises:
        BackendError: it was not built, or does not load.
    """
    path = find_library()
    if path is None:
        raise BackendError(
            "the compiled CPU library is missing from the package; "
            "install a C++20 compiler and reinstall aphrodite-kernels"
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise BackendError(f"the compiled CPU library does not load: {error}") from error
    try:
        _declare(library)
    except AttributeError as error:
        raise BackendError(
            f"the compiled CPU library is older than the Python files ({error}); "
            "reinstall aphrodite-kernels"
        ) from error
    _check_interface(path, library.aph_interface())
    return library


def interface_of(sources: Path) -> int:
    """The structures and functions of the library as a number, from its sources."""
    files = sorted(
        file.relative_to(sources).as_posix()
        for pattern in ("*.h", "*.cpp")
        for file in sources.rglob(pattern)
    )
    found = (b";".join(_INTERFACE.findall((sources / file).read_bytes())) for file in files)
    return int(hashlib.sha256(b"".join(found)).hexdigest()[:8], 16)


def _check_interface(path: Path, number: int) -> None:
    """BackendError if the library was not made of the sources that lie beside the package."""
    expected = interface_of(_SOURCES) if _SOURCES.is_dir() else number
    if number != expected:
        raise BackendError(
            f"the compiled CPU library {path} has interface {number:08x}, but its sources have "
            f"{expected:08x}: they are of another time; reinstall aphrodite-kernels "
            "(`uv sync --reinstall-package aphrodite-kernels`, or `scripts/build_cpu`)"
        )


def _declare(library: ctypes.CDLL) -> None:
    """Arguments and results of its functions; AttributeError if one is not there."""
    library.aph_interface.restype = ctypes.c_uint
    library.aph_runtime_new.argtypes = (ctypes.c_int, ctypes.c_int)
    library.aph_runtime_new.restype = ctypes.c_void_p
    library.aph_runtime_delete.argtypes = (ctypes.c_void_p,)
    library.aph_runtime_delete.restype = None
    library.aph_runtime_level.argtypes = (ctypes.c_void_p,)
    library.aph_last_error.restype = ctypes.c_char_p
    library.aph_tile_format_of.argtypes = (ctypes.c_int, ctypes.c_void_p)
    for sizes in (library.aph_tile_code_bytes, library.aph_tile_scale_bytes):
        sizes.argtypes = (ctypes.c_void_p, ctypes.c_int64)
        sizes.restype = ctypes.c_int64
    library.aph_program_patch.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    library.aph_program_patch.restype = None
    library.aph_program_run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    library.aph_program_run.restype = ctypes.c_int64
