"""Who does it to whom in German and French, as far as the pronoun's case tells: *kann ich ihm*, *kann er mir*.

Knows a handful of pronouns and no grammar; English pronouns are weighed in `parties.py`.
"""

from __future__ import annotations

from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.reading import Reading, Token

_ICH = words("ich wir je")
_MICH = words("mir mich uns ihm ihn me moi")
_SMALL_MAX = 4
"""Letters up to which an unmatched German or French word may be an article or a helper."""
_LACKING_MAX = 3
"""Longer words of which the other text may have another case."""


def cases_exchanged(pair: Pair) -> bool:
    """Who acts in one text is acted on in the other."""
    return _acting_and_suffering(pair.a, pair.b) or _acting_and_suffering(pair.b, pair.a)


def _acting_and_suffering(one: Reading, other: Reading) -> bool:
    """*Ich* in one text and *mir* or *mich* in the other, and otherwise the same words."""
    if one.texts.isdisjoint(_ICH) or not one.texts.isdisjoint(_MICH):
        return False
    if other.texts.isdisjoint(_MICH) or not other.texts.isdisjoint(_ICH):
        return False
    return _lacks_little(one, other) and _lacks_little(other, one)


def _lacks_little(own: Reading, other: Reading) -> bool:
    """All that the other text lacks are small words and other cases of its nouns (`Nachbar`, `Nachbarn`)."""
    lacking = [token for token in own.tokens if token.form not in other.forms and not _small(token)]
    return len(lacking) <= _LACKING_MAX and all(
        any(token.text[:-2] == word.text[: len(token.text) - 2] for word in other.tokens) for token in lacking
    )


def _small(token: Token) -> bool:
    return len(token.text) <= _SMALL_MAX or token.text.startswith(("mein", "dein", "sein", "unser"))
