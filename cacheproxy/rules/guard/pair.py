"""Two readings side by side: what each has that the other lacks, and where the sentences part.

Single words are matched by meaning (`rules/guard/words.py`). Which text is left and which right must not depend on
which was asked first, so callers pass the two in a fixed order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from cacheproxy.rules.guard.function_words import DEGREE, WEIGHED
from cacheproxy.rules.guard.opposites import opposition
from cacheproxy.rules.guard.reading import Kind, Reading, Token
from cacheproxy.rules.guard.stems import stem
from cacheproxy.rules.guard.words import exchanged, same_word

_APART_MAX = 5
"""How many tokens may differ in one place before two sentences count as unlike from there on."""
_SKIPS = tuple(
    sorted(
        ((left, right) for left in range(_APART_MAX + 1) for right in range(_APART_MAX + 1) if left + right),
        # Nearest first, and of equally near ones the most even: a refilled slot is likelier than two insertions.
        key=lambda skip: (sum(skip), abs(skip[0] - skip[1])),
    )
)
_MATCHED_MAX = 64
"""Words whose likes are looked for in the other text; with more the texts are unlike, and the rest stays unmatched."""
_SPELLED_MAX = 12
"""Unmatched words up to which short forms are looked for; texts with more are unlike anyway."""
_OPPOSED_MAX = 16
"""Unmatched words of a side that are compared with those of the other one by one."""
_ACRONYM_MAX = 6
_NOT_IN_ACRONYMS = frozenset(("of", "the", "and"))


@dataclass(frozen=True, slots=True)
class Change:
    """One place where two sentences differ. One side may be empty."""

    left: tuple[Token, ...]
    right: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Opposites:
    """A word only one text has, and its opposite in the other."""

    left: Token
    right: Token
    contrary: bool
    """`enable`, `disable`; else an ordering: `highest`, `lowest`."""

    @property
    def of_degree(self) -> bool:
        """*more* against *less*, which turns what follows it round."""
        return self.left.text in DEGREE and self.right.text in DEGREE


@dataclass(frozen=True, slots=True)
class Pair:
    """Everything a guard may look at."""

    a: Reading
    b: Reading
    left: tuple[Token, ...]
    """Tokens of `a` that nothing in `b` matches, function words included, in order."""
    right: tuple[Token, ...]
    own_left: tuple[Token, ...]
    """In a frame: tokens of the places where the two differ that have no counterpart in such a place of `b`, one for
    one. A word of `a` may stand here that `b` has elsewhere. Without a frame the same as `left`."""
    own_right: tuple[Token, ...]
    changes: tuple[Change, ...]
    """The places where the two differ, in order; together with what is equal they make up both texts."""
    framed: bool
    """The differences are small and lie in a frame both texts share."""
    opposed: tuple[Opposites, ...]
    """Unmatched words of the two sides that oppose each other."""


def compare(a: Reading, b: Reading) -> Pair:
    """Lay two readings side by side."""
    left, right = _unmatched(a, b), _unmatched(b, a)
    lacking = (*left, *right)
    if left and right and len(left) + len(right) <= 2 * _SPELLED_MAX:
        _cancel_short_forms(left, right, a, b)
        _cancel_short_forms(right, left, b, a)
    changes, framed = _align(a.tokens, b.tokens)
    for change in [change for change in changes if _slipped(change)]:
        changes.remove(change)
        _drop(left, change.left)
        _drop(right, change.right)
    unmatched = {id(token) for token in (*left, *right)}
    explained = {id(token) for token in lacking} - unmatched
    own_left, own_right = _own(changes, unmatched, explained) if framed else (left, right)
    return Pair(
        a=a,
        b=b,
        left=tuple(left),
        right=tuple(right),
        own_left=tuple(own_left),
        own_right=tuple(own_right),
        changes=tuple(changes),
        framed=framed,
        opposed=tuple(_opposed([*left, *own_left], [*right, *own_right])),
    )


def matches(one: Token, other: Token) -> bool:
    """True when two tokens may stand for each other."""
    if one.form == other.form:
        return True
    if Kind.FUNCTION in (one.kind, other.kind) or one.valued or other.valued:
        return False
    return same_word(one.form, other.form)


def _opposed(left: Sequence[Token], right: Sequence[Token]) -> Iterator[Opposites]:
    ours, theirs = _distinct(left), _distinct(right)
    for one in ours:
        for other in theirs:
            if how := opposition(stem(one.text), stem(other.text)):
                yield Opposites(one, other, contrary=how == "contrary")


def _distinct(tokens: Sequence[Token]) -> list[Token]:
    """Each word once that can have an opposite, as many as are compared one by one."""
    weighed = {token.form: token for token in tokens if token.kind is not Kind.FUNCTION or token.text in WEIGHED}
    return list(weighed.values())[:_OPPOSED_MAX]


def _unmatched(own: Reading, other: Reading) -> list[Token]:
    """The tokens of `own` that no token of `other` matches."""
    missing = [token for token in own.tokens if token.form not in other.forms]
    return [token for token in missing[:_MATCHED_MAX] if not _matched(token, other)] + missing[_MATCHED_MAX:]


def _matched(token: Token, other: Reading) -> bool:
    if token.valued or token.kind is Kind.FUNCTION:
        return False
    return any(matches(token, candidate) for candidate in other.alike(token))


def _drop(tokens: list[Token], dropped: Sequence[Token]) -> None:
    tokens[:] = [token for token in tokens if not any(token is other for other in dropped)]


def _own(
    changes: Sequence[Change], unmatched: Collection[int], explained: Collection[int]
) -> tuple[list[Token], list[Token]]:
    """What is left of the differing places when each word was put beside one like it of the other side.

    By identity: `unmatched` are the tokens that are like none of the other text, `explained` the short forms in it.
    """
    left = [token for change in changes for token in change.left if id(token) not in explained]
    right = [token for change in changes for token in change.right if id(token) not in explained]
    there, here = Counter(token.form for token in right), Counter(token.form for token in left)
    left, right = (
        [token for token in left if not _taken(token, there)],
        [token for token in right if not _taken(token, here)],
    )
    free = [token for token in right if id(token) not in unmatched][:_MATCHED_MAX]
    for token in [token for token in left if id(token) not in unmatched][:_MATCHED_MAX]:
        like = next((other for other in free if matches(token, other)), None)
        if like is not None:
            _drop(left, [token])
            _drop(right, [like])
            _drop(free, [like])
    return left, right


def _taken(token: Token, counts: Counter[str]) -> bool:
    """Whether there is one of the form yet, which is then taken."""
    counts[token.form] -= 1
    return counts[token.form] >= 0


def _cancel_short_forms(own: list[Token], theirs: list[Token], reading: Reading, other: Reading) -> None:
    """Drop acronyms with what they stand for (`NYC`, `New York City`), and words written apart (`web site`)."""
    for token in list(own):
        if token.kind is Kind.FUNCTION or token.valued:
            continue
        acronym = token.proper and len(token.text) <= _ACRONYM_MAX
        spelled = _spelled(token, other.tokens, acronym=acronym) or (
            _spelled(token, reading.tokens, acronym=True) if acronym and len(token.text) > 2 else ()
        )
        if any(member is candidate for member in spelled for candidate in (*theirs, *own)):
            _drop(own, [token])
            _drop(theirs, spelled)


def _spelled(token: Token, tokens: Sequence[Token], *, acronym: bool) -> Sequence[Token]:
    """The neighbours in `tokens` whose initials, or who written together, give the token."""
    text = token.text
    for start, first in enumerate(tokens):
        if first.text[:1] != text[:1]:
            continue
        both = tokens[start : start + 2]
        if len(both) == 2 and both[0].text + both[1].text == text:
            return both
        near = [other for other in tokens[start : start + len(text) + 2] if other.text not in _NOT_IN_ACRONYMS]
        if acronym and len(text) > 1 and [other.text[0] for other in near[: len(text)]] == list(text):
            return near[: len(text)]
    return ()


def _slipped(change: Change) -> bool:
    """The same letters, with a space elsewhere or two neighbours exchanged (`evidencet hat`, `teh`)."""
    if any(token.valued for token in (*change.left, *change.right)):
        return False
    one, other = ("".join(token.text for token in side) for side in (change.left, change.right))
    return one == other or exchanged(one, other)


def _align(a: Sequence[Token], b: Sequence[Token]) -> tuple[list[Change], bool]:
    """The differing places, by walking both texts and meeting again after each difference.

    The second value is false when they did not meet again, or when less is shared than differs.
    """
    suffix = 0
    while suffix < min(len(a), len(b)) and matches(a[-1 - suffix], b[-1 - suffix]):
        suffix += 1
    end_a, end_b = len(a) - suffix, len(b) - suffix
    i = j = 0
    changes: list[Change] = []
    met = True
    while i < end_a or j < end_b:
        if i < end_a and j < end_b and matches(a[i], b[j]):
            i, j = i + 1, j + 1
            continue
        rest_a, rest_b = a[i:end_a], b[j:end_b]
        skip_a, skip_b = _meet(rest_a, rest_b) if met else (len(rest_a), len(rest_b))
        met = met and max(skip_a, skip_b) <= _APART_MAX
        changes.append(Change(tuple(rest_a[:skip_a]), tuple(rest_b[:skip_b])))
        i, j = i + skip_a, j + skip_b
    # Where a phrase was read as one word, words for it on the other side are no difference.
    phrases = [sum(token.width - 1 for token in (*change.left, *change.right)) for change in changes]
    sizes = (max(len(change.left), len(change.right)) for change in changes)
    differing = sum(max(1, size - spare) for size, spare in zip(sizes, phrases, strict=True))
    return changes, met and 2 * differing <= max(len(a), len(b)) + sum(phrases)


def _meet(a: Sequence[Token], b: Sequence[Token]) -> tuple[int, int]:
    """How far to go on each side to the next common token or the common end; the whole rest when there is none near."""
    for left, right in _SKIPS:
        inside = left < len(a) and right < len(b)
        if (left == len(a) and right == len(b)) or (inside and matches(a[left], b[right])):
            return left, right
    return len(a), len(b)
