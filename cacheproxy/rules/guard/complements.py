"""What follows a noun in Spanish, French, Italian, Portuguese and German: *la píldora*, *la píldora del día después*.

There a noun is narrowed by what comes after it, so one more phrase with *de*, *sans* or *für*, or in the Romance
languages one more word, asks for another thing. English, which puts it before the noun, is weighed in `slots.py`.
Knows small words only: a text counts as one in such a language by two of them, or one and an accent, and none that is
English.
"""

from __future__ import annotations

from functools import lru_cache

from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token

_ROMANCE = words(
    """el la los las del de que como es en un una por para mi con cual donde se y puedo hay le les des du est une pour
    mon ma avec quel quelle je dans au aux et comment quels quelles il lo gli di che della dei delle uno per mio mia
    nel quale os da do dos das um uma meu minha qual onde no na posso tengo cuanto quanto combien dois
    ou si dove donde cuando quand come"""
)
_GERMAN = words(
    "der die das ist wie ich ein eine einen einem zu mein meine meinen mit wer wo von den dem kann darf was"
)
_ENGLISH = words("the is are was what how who which of to and my you your i with for can does it")
_JOINTS = words(
    """de del des du di della dei delle da do dos das a al aux con avec sin sans senza sem para pour per
    aus von vom fur mit ohne zum zur des"""
)
"""What joins a complement to its noun, as far as it seldom joins one to the verb."""
_IDLE = words(
    """mundo monde mondo welt historia histoire favor mi ti moi toi mich mir dich dir hoy aqui ahora bien mejor mucho
    solo ya siempre gratis rapido online aujourdhui maintenant ici vite mieux oggi ora qui bene hoje agora aqui bem
    actualmente exactamente exactement exatamente heute jetzt hier genau svp merci gracias danke bitte
    alto ancho largo haut
    persona personas personne personnes personen"""
)
"""Words that ask for nothing else."""
_ADVERBS = ("mente", "ment")
_COMPLEMENT_MAX = 5
"""Tokens of a complement, at most; a longer one is a clause."""


def other_complement(pair: Pair) -> bool:
    """All that differs in a frame is what one noun has after it."""
    if len(pair.changes) != 1:
        return False
    change = pair.changes[0]
    if change.left and change.right:
        return False
    more, reading = (change.left, pair.a) if change.left else (change.right, pair.b)
    spoken = _spoken(reading)
    at = reading.place(more[0])
    if not spoken or not at or len(more) > _COMPLEMENT_MAX or reading.tokens[at - 1].kind is not Kind.WORD:
        return False
    added = [token for token in more if token.text not in _JOINTS | _ROMANCE | _GERMAN]
    if not added or any(token.text in _IDLE or token.valued for token in added):
        return False
    return more[0].text in _JOINTS or (spoken is _ROMANCE and _follows_noun(more, reading))


@lru_cache(maxsize=READINGS_MAX)
def _spoken(reading: Reading) -> frozenset[str] | None:
    """The small words of the language a text is in, if it is one of these."""
    if not reading.texts.isdisjoint(_ENGLISH):
        return None
    best = max((_ROMANCE, _GERMAN), key=lambda small: len(reading.texts & small))
    found = len(reading.texts & best)
    return best if found > 1 or (found and not reading.text.isascii()) else None


def _follows_noun(more: tuple[Token, ...], reading: Reading) -> bool:
    """One word at the end of a noun: the text ends after it, or a small word follows."""
    if len(more) > 1 or more[0].text.endswith(_ADVERBS):
        return False
    at = reading.place(more[0])
    after = reading.tokens[at + 1 : at + 2]
    small = _JOINTS | _ROMANCE
    return reading.tokens[at - 1].text not in small and (not after or after[0].text in small)
