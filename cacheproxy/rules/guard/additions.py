"""One thing more: two sentences of which one asks for all that the other does, and for something beside it.

*Aspirin and ibuprofen* is not *aspirin*, *songs for free* are not *songs*: what is joined on or bound by a preposition
or a conjunction narrows or widens what is asked. Refuses to look at sentences that differ on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

from cacheproxy.rules.guard.function_words import ARTICLES
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Change
from cacheproxy.rules.guard.reading import Kind

_JOINING = words("and or plus per")
_BINDING = words(
    """in on at for with without from to by as after before during while when if using via than that who which whose
    because until since under over inside through about against between where into onto within across"""
)
"""What begins a phrase or a clause that says where, when, how or for whom. *Of* mostly says only what a thing is."""
_BE = words("be is are am was were been being get gets got getting")
_SAYS_NOTHING = words(
    """order latest sentence sentences following list text phrase paragraph passage word words question house home world
    life general detail details total fact advance moment particular case practice theory end please"""
)
"""What is bound where nothing is narrowed (`in general`, `in the following text`, `in my house`)."""


def one_more(changes: Sequence[Change]) -> bool:
    """Whether the only one of these changes adds a thing on one side: joined on, counted by, or bound to the rest."""
    if len(changes) != 1 or (changes[0].left and changes[0].right):
        return False
    added = [token for token in (*changes[0].left, *changes[0].right) if token.text not in ARTICLES]
    if all(token.kind is not Kind.WORD or token.text in _SAYS_NOTHING for token in added):
        return False
    governed = added[0].text in _BE and added[-1].text == "to"  # what one *is forced to* do
    return governed or added[0].text in _BINDING | _JOINING or added[-1].text in _JOINING
