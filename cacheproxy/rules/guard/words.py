"""When do two different words say the same: another ending, a slip of the finger, a synonym.

Both words are stems (`rules/guard/stems.py`). The answer errs towards *different*.
"""

from __future__ import annotations

from functools import lru_cache

from cacheproxy.rules.guard.lists import groups, words
from cacheproxy.rules.guard.opposites import opposition
from cacheproxy.rules.guard.stems import base_form
from cacheproxy.rules.guard.synonyms import root

_ENDINGS = words(
    """s es er or ers ing ed d n en an ian ean ese ish ist ism ic ical al ial ally ly y ty ity ness ment tion ion ation
    ition ance ence ant ent able ible ive ative ous ful ize ise izing ized e ation iation cy hood ship dom th est r
    st ure age ery ry ary ory a t c iv abl ibl ativ anc enc ag ur iz ization isation ified ify ional ionally ti tic
    lation"""
)
"""What may be left of two words of one family after their common beginning."""

_LOOKALIKES = """
organ organization; univers university; universal university; past pasta; form formal; form format; form formula;
inform inform; port portion; temper temperatur; intern international; capit capitol; gener generation;
commun communist; employ employee; man many; plan planet; plan plant; pass passion; miss mission; pen pension;
stat station; nat nation; cat category; car carry; war warm; war ward; part party; poll pollution; pol policy;
polit polic; mod model; moment momentum; prison prisoner; hospit hospitality; import importance; import important;
person personal; person personnel; author authority; minor minority; major majority; human humanity; critic critical;
sens sensor; act actor; act actress; hero heroin; terror territory; relat relative; journal journalism;
physic physician; music musician; econom economist; even event; invest investigation; custom customer;
secret secretary; compan companion; mar mary; contin continent; nor norm; sever several; object objective;
execut executioner; trail trial; form from; diary dairy; angel angl; quiet quit; unit unti; casual causal;
marital martial; desert dessert; contact contract; country county; affect effect; advers avers; moral morale;
device devis; breath breathe; statu statut; statue status; through trough; thorough through; friend fiend;
compliment complement; principal principl; later latter; diner dinner; super supper; coma comma; planet plant;
access excess; accept except; expect except; conservation conversation; perfect prefect; preserve persever;
insulin inulin; sliver silver; protein protean; infect inflect; inject infect; steal steel; sing sign; calm clam;
bolt blot; tide tied; lion loin; brain brian; crave carve; spilt split; cloud could; board broad; fried fired;
lair liar; nuclear unclear; scared sacred; tries tires; complied compiled; united untied; unite untie; quiet quite;
angel angle; from form; salt slat; dairy diary; goal gaol; star tsar; bets best; lots lost; bread breed; great greet;
heal heel; bear beer; pear peer; meat meet; weak week
"""
_UNRELATED = frozenset(frozenset(pair) for pair in groups(_LOOKALIKES))
"""Pairs that look like one family or one typo and are not (as stems, or nearly)."""
_COMPOUNDS = ("ous", "ic", "at", "it", "id", "in", "an", "en", "yn")
"""Endings, as stems have them, by which chemistry names other compounds of one element (`sulfite`, `sulfide`)."""
_VOWELS = frozenset("aeiou")
_SAME = ({"left", "leav"}, {"los", "loos"})
"""One verb in two spellings that the rules of stems cannot join without joining others."""


@lru_cache(maxsize=16384)
def same_word(one: str, other: str) -> bool:
    """True when two stems may stand for each other."""
    if one == other:
        return True
    if opposition(one, other) or frozenset((one, other)) in _UNRELATED:
        return False
    if _other_compound(one, other):
        return False
    if root(one) == root(other) or base_form(one) == base_form(other) or {one, other} in _SAME:
        return True
    return one.isalpha() and other.isalpha() and (_same_family(one, other) or _mistyped(one, other))


def _other_compound(one: str, other: str) -> bool:
    """Other compounds of one element, by their endings."""
    for ending in _COMPOUNDS:
        base = one.removesuffix(ending)
        if 2 < len(base) < len(one) and other.startswith(base) and other[len(base) :] in _COMPOUNDS:
            return True
    return False


def exchanged(one: str, other: str) -> bool:
    """True when two neighbouring letters changed places, and no other word came of it."""
    if len(one) != len(other) or len(one) < 3 or not one.isalpha() or frozenset((one, other)) in _UNRELATED:
        return False
    start = _shared_start(one, other)
    return one[start : start + 2] == other[start : start + 2][::-1] and one[start + 2 :] == other[start + 2 :]


def _shared_start(one: str, other: str) -> int:
    shorter = min(len(one), len(other))
    return next((index for index in range(shorter) if one[index] != other[index]), shorter)


def _same_family(one: str, other: str) -> bool:
    """One beginning of at least four letters, and nothing but endings after it."""
    shared = _shared_start(one, other)
    short, long = sorted((one[shared:], other[shared:]), key=len)
    if shared < 4 or len(short) > 2 or long in ("ee", "less") or {short, long} == {"er", "e"}:
        return False
    return (not short or (short in _ENDINGS and shared >= 5)) and long in _ENDINGS


def _mistyped(one: str, other: str) -> bool:
    """One slip: neighbours exchanged, a letter doubled or not, one left out inside a long word, one vowel of two wrong.

    Never the first letter, which few get wrong and many words differ in.
    """
    short, long = sorted((one, other), key=len)
    start = _shared_start(one, other)
    if len(short) < 4 or len(long) - len(short) > 1 or start == 0:
        return False
    if len(one) == len(other):
        vowels = _beside_vowel(one, start) and _beside_vowel(other, start) and one[start + 1 :] == other[start + 1 :]
        return vowels or exchanged(one, other)
    if short[start:] != long[start + 1 :]:
        return False
    return long[start] == long[start - 1] or (len(long) >= 6 and 1 < start < len(short))


def _beside_vowel(word: str, at: int) -> bool:
    """A vowel beside another vowel, where spelling slips most (`peice`)."""
    neighbours = word[at - 1 : at] + word[at + 1 : at + 2]
    return at < len(word) and word[at] in _VOWELS and not _VOWELS.isdisjoint(neighbours)
