"""Guards over words that turn a question round or bound it: negation, comparison, scope, tense."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

from cacheproxy.rules.guard.converse import converse
from cacheproxy.rules.guard.focus import other_focus
from cacheproxy.rules.guard.function_words import ARTICLES, NEGATORS, PREPOSITIONS, QUESTION_WORDS
from cacheproxy.rules.guard.hindsight import other_time
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.manners import other_manner
from cacheproxy.rules.guard.modals import may_or_must, other_mode
from cacheproxy.rules.guard.opposites import graded
from cacheproxy.rules.guard.pair import Change, Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token
from cacheproxy.rules.guard.stems import stem
from cacheproxy.rules.guard.words import same_word

_UNSURE = words("know sure understand certain see")
"""*Not sure how* asks how; it denies nothing."""
_EXCLUSIVE = words("only except instead formerly simultaneously previous previously former originally everyother")
_NOTHING: frozenset[str] = frozenset()
_SAID_OTHERWISE = {
    "only": words("just solely merely single exclusively"),
    "instead": words("substitute substitutes replace replacing replacement alternative alternatives"),
}
"""How else it is said (`just a single file`, `a substitute for eggs`)."""
_QUANTIFIERS = {
    word: share
    for share, group in {
        "all": "all every each everything everyone everybody", "any": "any anything anyone anybody",
        "some": "some several something few someone somebody", "most": "most mostly", "always": "always",
        "often": "sometimes often", "one": "one",
    }.items()
    for word in group.split()
}  # fmt: skip
_ANY_ONE = ({"one", "any"}, {"one", "some"})
"""Shares that are one: *can one* is *can anyone*."""
_WHOLE = words("all every each both multiple")
_LONE = words("single one minimum current")
"""Of the things asked about: what is done to each need not be done to one, or to *at least one*."""
_PLACES_MAX = 3
"""Places of a pair in which the words differ, up to which one such word stands for the other."""
_PRO = words("for supporting support supports supported favor favour favors favours favoring favouring")
_CON = words("against opposing oppose opposes opposed opposition")
"""Sides that one takes."""
_PRESENT = words("is are am do does will")
_PAST = words("was were did had")
_DONE = words("have has had already been")
_AHEAD = words("will shall")
"""Helping verbs of what is over, and of what is still to come."""
_PHASES = frozenset(stem(word) for word in words("become stop quit cease"))
_INVERTING = words("why when where how")
"""Question words after which verb and subject change places."""


def negation(pair: Pair) -> bool:
    """One denies what the other says, or names the contrary (`enable`, `disable`).

    Two opposites on one scale cancel out: *more optimistic* is *less pessimistic*, *not sad* is *happy*.
    """
    if _cancelled(pair):
        return False
    return (
        any(opposites.contrary for opposites in pair.opposed)
        or _denial_differs(pair)
        or _denies_other(pair)
        or _other_side(pair)
    )


def _other_side(pair: Pair) -> bool:
    """One is for what the other is against, or gets to where the other leaves, in one place of the same sentence."""
    return pair.framed and any(_one_of_each(change, _PRO, _CON) or _gets_or_leaves(change) for change in pair.changes)


def _gets_or_leaves(change: Change) -> bool:
    sides = [frozenset(token.form for token in side) for side in (change.left, change.right)]
    return any({"get", "to"} <= one and "leav" in other for one, other in (sides, sides[::-1]))


def _one_of_each(change: Change, ones: frozenset[str], others: frozenset[str]) -> bool:
    left, right = (frozenset(token.text for token in side) for side in (change.left, change.right))
    return bool((left & ones and right & others) or (left & others and right & ones))


def comparison(pair: Pair) -> bool:
    """The other extreme, the other side or the other order (`highest`, `lowest`; `before`, `after`)."""
    other = any(not opposites.contrary for opposites in pair.opposed)
    return other and not _cancelled(pair) and not converse(pair)


def scope(pair: Pair) -> bool:
    """Another share of the things asked about: *all* for *any*, *only* for *except*, *or* for *and*."""
    if _excludes(pair.a, pair.b) or _excludes(pair.b, pair.a):
        return True
    if other_focus(pair) or other_manner(pair):
        return True
    if len(pair.changes) <= _PLACES_MAX and any(_one_of_each(change, _WHOLE, _LONE) for change in pair.changes):
        return True
    if not pair.framed:
        return False
    for change in pair.changes:
        left, right = _quantified(change.left), _quantified(change.right)
        if left and right and left.isdisjoint(right) and (left | right) not in _ANY_ONE:
            return True
    there = _conjunctions(pair.b)
    return any(there.get(sides, how) != how for sides, how in _conjunctions(pair.a).items())


def _excludes(one: Reading, other: Reading) -> bool:
    """One has such a word where the other has neither it nor another way to say it."""
    own = _EXCLUSIVE & ((one.texts - other.texts) | (one.forms - other.forms))
    if own == {"only"} and any(map(_belittles, other.tokens, other.tokens[1:], other.tokens[2:])):
        return True
    return any(_SAID_OTHERWISE.get(word, _NOTHING).isdisjoint(other.texts - one.texts) for word in own)


def _belittles(word: Token, article: Token, thing: Token) -> bool:
    """*Just a doctor* is not *the only doctor*."""
    return word.text == "just" and article.text in ("a", "an") and thing.text not in ("single", "one")


def tense(pair: Pair) -> bool:
    """Another time or another mood of the same sentence: *was* for *is*, *may* for *must*, *won't* for *can't*."""
    if may_or_must(pair):
        return True
    if not pair.framed:
        return False
    if other_mode(pair) or other_time(pair):
        return True
    return (
        _excluded(_times(pair.a), _times(pair.b))
        or any(_time_changed(change) for change in pair.changes)
        or _excluded(_denied_helpers(pair.a), _denied_helpers(pair.b))
        or _phase_only(pair.left, pair.b)
        or _phase_only(pair.right, pair.a)
    )


def _excluded(left: set[str], right: set[str]) -> bool:
    return bool(left and right) and left.isdisjoint(right)


def _cancelled(pair: Pair) -> bool:
    """One pair of opposites on a scale, and either *more* against *less* or one denial: together they say the same."""
    scale = [opposites for opposites in pair.opposed if not opposites.of_degree]
    turned = len(scale) < len(pair.opposed)
    return turned != _denial_differs(pair) and len(scale) == 1 and graded(scale[0].left.form, scale[0].right.form)


def _denial_differs(pair: Pair) -> bool:
    if (pair.a.texts | pair.b.texts) & {"whether"}:
        return False  # *honest or not* asks for both sides
    return (_denials(pair.a) + _denials(pair.b)) % 2 == 1


@lru_cache(maxsize=READINGS_MAX)
def _denials(reading: Reading) -> int:
    """How often a reading denies."""
    return sum(
        token.text in NEGATORS and not _denies_nothing(reading.tokens, index)
        for index, token in enumerate(reading.tokens)
    )


def _denies_nothing(tokens: Sequence[Token], index: int) -> bool:
    """True for *if not*, *or why not*, *not sure how*, and *no* as an opening word."""
    before = [token.text for token in tokens[max(0, index - 2) : index]]
    after = tokens[index + 1 : index + 3]
    if len(after) == 2 and after[0].text in _UNSURE and after[1].text in QUESTION_WORDS | {"if"}:
        return True
    if index == 0:
        return tokens[0].text == "no" and bool(after) and after[0].kind is not Kind.WORD
    lone = not after or after[0].apposed or after[0].kind is Kind.FUNCTION
    if before[-1] == "if":
        return tokens[index].text == "not" or (tokens[index].text == "no" and lone)
    return before in (["or", "why"], ["and", "why"])


def _denies_other(pair: Pair) -> bool:
    """Both deny, but each denies what the other affirms."""
    left, right = _denied(pair.a), _denied(pair.b)
    only_left, only_right = left - right, right - left
    if not only_left or not only_right or any(same_word(one, other) for one in only_left for other in only_right):
        return False
    lacking = [{token.form for token in side} for side in (pair.left, pair.right)]
    return only_left.isdisjoint(lacking[0]) and only_right.isdisjoint(lacking[1])


@lru_cache(maxsize=READINGS_MAX)
def _denied(reading: Reading) -> set[str]:
    """The first word after each negator, or after its preposition (*not in the EU*).

    In *aren't cats* and *why aren't cats* the subject follows, which nothing denies.
    """
    found = set()
    for index, token in enumerate(reading.tokens):
        inverted = index == 1 or (index > 1 and reading.tokens[index - 2].text in _INVERTING)
        if token.text in NEGATORS and not inverted:
            after = reading.tokens[index + 1 : index + 4]
            if after and after[0].text in PREPOSITIONS:
                after = tuple(other for other in after[1:] if other.text not in ARTICLES)
            if after and after[0].kind is not Kind.FUNCTION:
                found.add(after[0].form)
    return found


def _quantified(tokens: Iterable[Token]) -> set[str]:
    return {_QUANTIFIERS[token.text] for token in tokens if token.text in _QUANTIFIERS}


@lru_cache(maxsize=READINGS_MAX)
def _conjunctions(reading: Reading) -> dict[frozenset[str], str]:
    """For every two neighbours of *and* or *or*: which of them joins the two."""
    bare = [token for token in reading.tokens if token.text not in ARTICLES]
    return {
        frozenset((before.form, after.form)): word.text
        for before, word, after in zip(bare, bare[1:], bare[2:], strict=False)
        if word.text in ("and", "or")
    }


def _time_changed(change: Change) -> bool:
    """Nothing but a helping verb became another (`was`, `will be`; `have shipped`, `are about to ship`)."""
    if any(token.kind is not Kind.FUNCTION for token in (*change.left, *change.right)):
        return False
    done = [_DONE.issuperset(token.text for token in side) for side in (change.left, change.right)]
    if done[0] != done[1] and change.left and change.right and _ahead(change.right if done[0] else change.left):
        return True
    return _excluded(_times_of(change.left), _times_of(change.right))


def _ahead(helpers: Sequence[Token]) -> bool:
    """What they help to say is still to come: *will*, *are about to*."""
    texts = [token.text for token in helpers]
    return not _AHEAD.isdisjoint(texts) or ("about", "to") in pairwise(texts)


def _times(reading: Reading) -> set[str]:
    return _times_of(reading.tokens)


def _times_of(tokens: Iterable[Token]) -> set[str]:
    texts = {token.text for token in tokens}
    return {name for name, verbs in (("present", _PRESENT), ("past", _PAST)) if texts & verbs}


def _denied_helpers(reading: Reading) -> set[str]:
    """What is denied of the doing: that one *can*, or that one *does*."""
    found = set()
    for index, token in enumerate(reading.tokens):
        if token.text == "not":
            before, after = reading.tokens[max(0, index - 1) : index], reading.tokens[index + 1 : index + 3]
            able = any(word.text in ("can", "could") for word in before) or any(word.form == "can" for word in after)
            found.add("can" if able else "does")
    return found


def _phase_only(unmatched: Iterable[Token], other: Reading) -> bool:
    """A verb of beginning or ending that the other text lacks. *How did it become so* is *why is it so*."""
    unmatched = list(unmatched)
    phases = {token.form for token in unmatched} & _PHASES
    perfect = any(token.text in ("has", "have") for token in unmatched)  # what has become so, is so
    state = not other.tokens or other.tokens[0].text not in QUESTION_WORDS
    return bool(phases - {"becom"}) or (bool(phases) and state and not perfect)
