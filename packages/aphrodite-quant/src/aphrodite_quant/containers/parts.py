"""Names of the parts of a split file, as `model-00001-of-00002.gguf`."""

import re
from pathlib import Path

from aphrodite_quant.errors import CheckpointError, listed

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")


def split_parts(path: Path) -> tuple[Path, ...]:
    """All parts of the split that `path` begins; `path` alone if it is no part of one."""
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        return (path,)
    stem, number, count = match["stem"], int(match["number"]), int(match["count"])
    names = (f"{stem}-{i:05}-of-{count:05}{match['suffix']}" for i in range(1, count + 1))
    parts = tuple(map(path.with_name, names))
    if number != 1:
        raise CheckpointError(
            f"{path} is part {number} of {count}: give the first, {parts[0].name}"
        )
    missing = [part.name for part in parts if not part.exists()]
    if path.exists() and missing:
        raise CheckpointError(f"{path} is split, and parts are missing: {listed(missing)}")
    return parts
