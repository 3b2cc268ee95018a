"""Reads what a sentence-transformers model folder says about itself: pooling, normalisation, length, checksums.

Knows both spellings of the format (before and since sentence-transformers 6). This module refuses to load weights and
to choose an engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embeddings.errors import WeightsError

_SHAPING_SUFFIXES = (".json", ".txt", ".model", ".safetensors")
_OTHER_BUILDS = ("onnx", "openvino")  # copies of the weights for other runtimes; nothing here reads them
_FILES_MAX = 200  # a model folder has about 12; more means that the path is not one


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model folder whose configuration has been read. `digests` maps path in the folder to sha256 in hex."""

    path: Path
    config: Mapping[str, Any]
    modules: tuple[str, ...]  # class names in order, `("Transformer", "Pooling", "Normalize")`
    pooling: str  # `mean`, `cls`, ... or `unknown`
    max_tokens: int | None
    lowers_case: bool
    digests: Mapping[str, str]

    @property
    def normalises(self) -> bool:
        """Whether the model itself gives unit vectors (the engines do so in any case)."""
        return "Normalize" in self.modules


def missing_files(path: Path) -> list[str]:
    """What a folder lacks to be a model: empty when it can be read. Weights as pickles do not count."""
    missing = [] if (path / "config.json").is_file() else ["config.json"]
    if next(path.glob("*.safetensors"), None) is None:
        missing.append("*.safetensors (pickled weights are never loaded: they can run code)")
    return missing


def shaping_files(path: Path) -> list[str]:
    """The files of a folder that can shape a vector, relative, sorted. Raises WeightsError if it is no model folder."""
    found: list[str] = []
    for each in path.rglob("*"):
        parts = each.relative_to(path).parts
        if each.suffix not in _SHAPING_SUFFIXES or parts[0] in _OTHER_BUILDS or not each.is_file():
            continue
        if any(part.startswith(".") for part in parts):
            continue
        found.append("/".join(parts))
        if len(found) > _FILES_MAX:
            raise WeightsError(f"{path} holds more than {_FILES_MAX} files of weights and settings: not a model folder")
    return sorted(found)


def sha256_of(path: Path, files: Iterable[str]) -> dict[str, str]:
    """Digest of each file, in hex. Reads them whole: about 0.1 s per 100 MB. Raises WeightsError."""
    digests = {}
    for name in files:
        try:
            with (path / name).open("rb") as stream:
                digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise WeightsError(f"{path / name} cannot be read: {error.strerror}") from error
    return digests


def read_folder(path: Path, digests: Mapping[str, str]) -> ModelFolder:
    """What the folder's own settings say. Raises WeightsError where they cannot be read."""
    modules = _modules(path)
    names = tuple(str(module.get("type", "")).rpartition(".")[2] for module in modules)
    pooling_at = next(
        (module.get("path", "") for module, name in zip(modules, names, strict=True) if name == "Pooling"), None
    )
    sentence = _json(path, "sentence_bert_config.json", needed=False)
    return ModelFolder(
        path=path,
        config=_json(path, "config.json", needed=True),
        modules=names,
        pooling="unknown" if pooling_at is None else _pooling(_json(path, f"{pooling_at}/config.json", needed=False)),
        max_tokens=_max_tokens(path, sentence),
        lowers_case=bool(sentence.get("do_lower_case")),
        digests=digests,
    )


def _pooling(config: Mapping[str, Any]) -> str:
    if config.get("include_prompt") is False:
        return "unknown"
    if isinstance(mode := config.get("pooling_mode"), str):
        return mode
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    short = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}
    return short.get(modes[0], "unknown") if len(modes) == 1 else "unknown"


def _max_tokens(path: Path, sentence: Mapping[str, Any]) -> int | None:
    length = sentence.get("max_seq_length")
    if length is None:
        length = _json(path, "tokenizer_config.json", needed=False).get("model_max_length")
    return length if isinstance(length, int) and 2 < length <= 1_000_000 else None


def _modules(path: Path) -> list[dict[str, Any]]:
    try:
        modules = json.loads((path / "modules.json").read_bytes())
    except FileNotFoundError:
        return []  # a bare transformers folder: sentence-transformers adds mean pooling by itself
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path / 'modules.json'} cannot be read: {error}") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise WeightsError(f"{path / 'modules.json'} is not a list of modules")
    return modules


def _json(path: Path, name: str, *, needed: bool) -> dict[str, Any]:
    try:
        value = json.loads((path / name).read_bytes())
    except FileNotFoundError as error:
        if not needed:
            return {}
        raise WeightsError(f"{path} has no {name}, so it is not a model folder") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path / name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path / name} is not a JSON object")
    return value
