"""Every error this package raises, divided by what would put it right.

    EmbeddingsError
    ├── ModelNotFoundError   no weights under that name: the text lists what was tried and the remedy
    ├── WeightsError         a model folder is incomplete, or its bytes are not the pinned ones
    ├── EngineError          this engine cannot serve this model; another one may
    └── EmbedError           no vector for these texts
        └── TextError        ... because of the texts themselves: asking again cannot help

Foreign exceptions are translated in the file that owns the library and go no further.
"""

from __future__ import annotations


class EmbeddingsError(Exception):
    """Root of all errors raised on purpose by this package."""


class ModelNotFoundError(EmbeddingsError):
    """No rung of the weights ladder holds the model."""


class WeightsError(EmbeddingsError):
    """A model folder cannot be used: files are missing, unreadable, or differ from their pinned sha256."""


class EngineError(EmbeddingsError):
    """The engine is not installed, does not know the model's architecture, or failed to load it."""


class EmbedError(EmbeddingsError):
    """The engine gave no vector, or one of wrong shape or value."""


class TextError(EmbedError):
    """The argument is not a sequence of valid Unicode strings."""
