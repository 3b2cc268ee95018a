"""A light word against another word, where two sentences differ in nothing else.

Light words come and go in a rewording. But in the only place where two sentences differ one of them is the whole
difference (*sorted by name*, *sorted by value*), unless the two are known to mean the same there. Refuses to look at
words that stand on one side alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from cacheproxy.rules.guard.lists import groups
from cacheproxy.rules.guard.pair import Change
from cacheproxy.rules.guard.reading import Kind, Token
from cacheproxy.rules.guard.stems import stem

_WORDS_MAX = 3
"""Content words of a side at most; with more it is another sentence."""

_ALIKE = [
    frozenset(map(stem, group))
    for group in groups(
        """
        get gain obtain receive have buy purchase acquire fetch download earn find take go reach; give grant
        provide offer supply hand return send write make want need; let allow permit enable grant; show plot
        display draw chart present list see tell view; tell say inform explain know whether describe; best top
        good great nice greatest coolest finest ideal right perfect dominant important amazing awesome better;
        right correct proper fix repair; mean stand signify imply; know learn understand realize; use utilize
        application purpose operate apply; put place set bring add insert; take bring require last need; make
        create produce cause build write have do let; make help cause let; work function run job workplace
        operate; feel pain hurt think; need require want must; suggest recommend advise propose suggestion
        recommendation; find search locate look discover; go travel move get drive; come arrive get go; start
        begin open launch initiate; try attempt test; think believe opinion say view; keep store hold stay
        remain preserve; explain describe clarify; different various several; main primary key major chief;
        basic fundamental simple elementary; kind type sort category form; way method approach mean manner;
        example instance sample; happen occur go; answer reply solution respond response; help assist support
        aid; long provided; exist live occur; thing item stuff object; possible feasible doable; effective
        efficient successful; become get be; suppose expect mean
        """
    )
]
"""Words of which each may stand for another of its group; most stand in several."""


def another_light_word(changes: Sequence[Change]) -> bool:
    """Whether the only one of these changes puts a light word in another word's place, or the other way round."""
    if len(changes) != 1:
        return False
    left, right = (_content(side) for side in (changes[0].left, changes[0].right))
    if not (0 < len(left) <= _WORDS_MAX and 0 < len(right) <= _WORDS_MAX):
        return False
    if all(token.kind is not Kind.LIGHT for token in (*left, *right)):
        return False
    return not any(_alike(one, other) for one in left for other in right)


def _content(tokens: Sequence[Token]) -> list[Token]:
    return [token for token in tokens if token.kind in (Kind.WORD, Kind.LIGHT)]


def _alike(one: Token, other: Token) -> bool:
    return one.sense == other.sense or any(one.form in group and other.form in group for group in _ALIKE)
