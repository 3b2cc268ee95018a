"""A noun or name made longer by a word, which is another thing: *egg yolks*, *iPhone 15 Pro*, *American Samoa*.

Knows the second halves by a list, since anything may come after a noun (*London today*, *weight fast*). Refuses those
that say only what a thing is (*Python language*, *Redis server*, *SIM card*). A noun before another is weighed in
`slots.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from cacheproxy.rules.guard.function_words import ARTICLES
from cacheproxy.rules.guard.kinds import kinds
from cacheproxy.rules.guard.lists import groups, words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token
from cacheproxy.rules.guard.stems import stems

_HEADS = stems(
    """yolk white peel rind seed pit skin shell stem root leaf husk pulp zest juice oil milk flour butter paste powder
    sauce soup syrup cream jam puree stock broth bran sprout blossom bark sap bone fat liver egg feather horn wing tail
    paw claw bite sting allergy nest cage coop litter kennel leash collar food
    battery engine tyre tire wheel brake key lock door window roof seat mirror bumper filter pump belt hose valve tank
    lid handle hinge drawer shelf cushion frame cover case strap band charger cable cord plug socket adapter remote
    screen keyboard cartridge tray drum bulb switch fuse pipe tap drain
    hint number pin signature attachment draft inbox template header footer
    ticket fare driver lane insurance loan lease rental dealer mechanic wash
    account statement transfer cheque fee deposit receipt invoice contract
    library bus uniform playground nurse dress ring cake gift vow
    group role owner path extension name size hash history log
    house trunk stump cutter cleaner stain remover wrapper bottle carton bag box jar
    transplant transfusion donor donation stone share price top
    content password"""
)
"""Second halves of which the whole is neither the first half nor the same by another name."""
_VARIANTS = words("pro max plus mini ultra lite premium air xl se prime ee enterprise")
"""The same of what is sold in several sizes."""
_SAYING_IT = frozenset(
    tuple(pair)
    for pair in groups(
        """sim card; pan card; pin number; isbn number; vin number; imei number; sku number; gmail account;
        paypal account; outlook account; icloud account; spotify account; discord account; github account;
        steam account"""
    )
)
"""Wholes that are also called by their first half."""
_DESCRIBING = words(
    """extra additional new old same other own single free prime whole natural rational complex even odd serial tracking
    order roll domain brand first last"""
)
"""Words that stand for no thing of their own before another."""
_LONGER_MAX = 2
"""Words by which a noun is made longer, at most."""
_IDLE = ARTICLES | words("my your our their is are do does")

_PLACES = frozenset(
    tuple(pair)
    for pair in groups(
        """equatorial guinea; dr congo; guinea bissau; american samoa; democratic republic; people republic;
        peoples republic; french guiana; british columbia; inner mongolia; saxony anhalt; lower saxony;
        baja california; kansas city; oklahoma city; mexico city; panama city; quebec city; guatemala city;
        iowa city; jersey city; kuwait city; washington state; york region; northern ireland; northern cyprus;
        western sahara; western samoa; virgin islands; east timor; west bengal; new england; falkland islands;
        north macedonia; saint martin; sint maarten"""
    )
)
"""Two neighbours in the name of a place of which one alone names another."""


def longer_name(pair: Pair) -> bool:
    """One text has both halves of the name of a place, and the other only one."""
    here, there = _places(pair.a), _places(pair.b)
    halved = [*(pair.b.texts.intersection(place) for place in here - there)]
    halved += [pair.a.texts.intersection(place) for place in there - here]
    return pair.framed and any(len(half) == 1 for half in halved)


@lru_cache(maxsize=READINGS_MAX)
def _places(reading: Reading) -> frozenset[tuple[str, ...]]:
    return _PLACES.intersection((one.text, other.text) for one, other in pairwise(reading.tokens))


def longer_noun(pair: Pair) -> bool:
    """All that differs in a frame is the second half of a noun at its end (`potato skins`)."""
    changes = [
        change for change in pair.changes if any(token.text not in _IDLE for token in (*change.left, *change.right))
    ]
    if len(changes) != 1:
        return False
    change = changes[0]
    if change.left and change.right:
        return False
    more, reading, other = (change.left, pair.a, pair.b) if change.left else (change.right, pair.b, pair.a)
    return _second_half(more, reading) and more[-1].form not in other.forms


def _second_half(more: Sequence[Token], reading: Reading) -> bool:
    """The words end a noun that begins before them."""
    at = reading.place(more[0])
    if not at or len(more) > _LONGER_MAX or any(token.kind is Kind.FUNCTION for token in more):
        return False
    first, after = reading.tokens[at - 1], reading.tokens[at + len(more) : at + len(more) + 1]
    if after and after[0].kind is not Kind.FUNCTION and not after[0].apposed:
        return False
    if first.kind is Kind.FUNCTION or first.text in _DESCRIBING:
        return False
    owned = f"{first.text}'s {more[0].text}" in reading.text.lower()
    return owned or more[-1].text in _VARIANTS or _halves(first, more[-1])


def _halves(first: Token, second: Token) -> bool:
    """The two make one noun for a third thing."""
    if second.text == "account" and (first.proper or kinds((first.form,))):
        return False  # who deletes his Instagram deletes that
    return first.kind is Kind.WORD and second.form in _HEADS and (first.text, second.form) not in _SAYING_IT
