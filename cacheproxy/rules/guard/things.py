"""Guards over what is asked about and how it is to be told: names, language, format, question word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from cacheproxy.rules.guard.compounds import longer_name
from cacheproxy.rules.guard.function_words import LATIN_STOPWORDS, QUESTION_WORDS
from cacheproxy.rules.guard.kinds import FORMATS, LANGUAGES
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Reading, Token
from cacheproxy.rules.guard.stems import stems

_NARROWING = words("north south east west northern southern eastern western new old upper lower great")
"""Words that make another name of the name they precede."""
_CLASSES = stems(
    """language programming series show tv app application company city country state county province river lake movie
    film book novel song game exam test university college school airport station website site brand model team club
    band"""
)
"""Kinds of named things: *the TV series X* is *X*."""
_LANGUAGE_LEADS = words("in to into from")
_SCRIPT_SAMPLE_CHARACTERS = 400
_MASK = re.compile(r"\b(?:[yY]{2,4}|[mM]{1,4}|[dD]{1,4}|[hH]{1,2}|[sS]{1,2})(?:[-/.:](?:[yYmMdDhHsS])\w{0,3}\b)+")
_SIZES = words("short long simple quick")
_POINTING = words("this these that those following")
_ANSWER_FORMS = stems("answer explanation summary essay reply text story description version overview term")
_ASKED_FOR = {"who": "person", "whom": "person", "whose": "person", "when": "time", "where": "place", "why": "reason"}
_SAME_ASKED = {
    "time": stems("time year date day month week period era century hour age decade long deadline"),
    "reason": stems("reason cause make lead purpose point motive explain explanation happen about matter"),
}
"""Words by which a question with *what* or *which* asks for the same kind of answer (`what year`, `what makes`)."""
_ASKED_WITHIN = 5
"""Words after *what* within which such a word stands."""
_MEASURES = words("many much long old far tall fast often big high deep heavy large")
_AUXILIARIES = words("is are was were do does did can could will would should shall may might must has have had am")


_TITLED = words(
    """film films filmed movie movies series show season episode episodes novel book song songs sing sings sang album
    band musical opera game play plays played plot director directed directs cast starred stars starring released
    soundtrack sequel prequel trilogy lyrics author wrote written painted composed"""
)
"""Words beside which a capital is a title's."""
_ONE_OF_MANY = words("a an the my your his her our their this that each every one some any which what these those all")
"""Words before a capital that is no title's."""
_OF_A_PEOPLE = ("an", "ans", "ese", "ish", "im", "ims", "ist", "ists")
"""Endings of those who are called by a capital in English, one as many."""


def names(pair: Pair) -> bool:
    """Another named thing, or one that only one side names. A first name left out is no other person."""
    if _other_title(pair) or longer_name(pair):
        return True
    left, right = _new_names(pair.left, pair.a), _new_names(pair.right, pair.b)
    return bool(left and right) or (bool(left or right) and pair.framed)


def _other_title(pair: Pair) -> bool:
    """A name with and without an *s* in the same sentence (`the film Alien`, `the film Aliens`).

    Stems hide it. A name that has an article or an owner is no title but one of many (*an Indian*, *my Kindle*), as is
    one that takes *has* or *was* where its plural takes *have* or *were*.
    """
    if len(pair.a.tokens) != len(pair.b.tokens) or _TITLED.isdisjoint(pair.a.texts & pair.b.texts):
        return False
    other = [
        (index, one, two)
        for index, (one, two) in enumerate(zip(pair.a.tokens, pair.b.tokens, strict=True))
        if one.text != two.text
    ]
    if len(other) != 1:
        return False
    index, one, two = other[0]
    before = pair.a.tokens[index - 1] if index else one
    titled = one.proper and two.proper and before.text not in _ONE_OF_MANY and not one.text.endswith(_OF_A_PEOPLE)
    short, long = sorted((one.text, two.text), key=len)
    return titled and long in (f"{short}s", f"{short}es")


def language(pair: Pair) -> bool:
    """Another language: asked for, or written in."""
    left, right = pair.a.texts & LANGUAGES, pair.b.texts & LANGUAGES
    if left - right and right - left:
        return True
    if left != right and _languages_asked(pair.a) != _languages_asked(pair.b):
        return True
    one, other = _written_in(pair.a.text), _written_in(pair.b.text)
    return one != other and not (_may_be(other, pair.a.text, one) or _may_be(one, pair.b.text, other))


def answer_format(pair: Pair) -> bool:
    """Another shape or length of the answer (`as JSON`, `YYYY-MM-DD`, `briefly`, `a short explanation`)."""
    if _other_mask(_masks(pair.a), _masks(pair.b)):
        return True
    return _shaped(pair.left, pair.a) or _shaped(pair.right, pair.b) or _sizes(pair.a) != _sizes(pair.b)


@lru_cache(maxsize=READINGS_MAX)
def _masks(reading: Reading) -> frozenset[str]:
    """How days and times are to be written (`YYYY-MM-DD`, `hh:mm`)."""
    return frozenset(_MASK.findall(reading.text))


def _other_mask(one: frozenset[str], other: frozenset[str]) -> bool:
    """Who writes large and small letters in one knows months (`MM`) from minutes (`mm`)."""
    mixed = any(mask not in (mask.lower(), mask.upper()) for mask in one | other)
    if not mixed:
        one, other = (frozenset(mask.lower() for mask in masks) for masks in (one, other))
    return bool(one and other) and one != other


def _shaped(unmatched: Sequence[Token], reading: Reading) -> bool:
    """A shape is asked for. *This sentence* and *the following table* are what the question is about."""
    return any(token.text in FORMATS and not _pointed_at(token, reading) for token in unmatched)


def _pointed_at(token: Token, reading: Reading) -> bool:
    return any(after is token and before.text in _POINTING for before, after in pairwise(reading.tokens))


def aspect(pair: Pair) -> bool:
    """Another question word: *who* for *when*, *why* for *what*."""
    left, right = _asked(pair.a), _asked(pair.b)
    if pair.framed and {*_opening(pair.a), *_opening(pair.b)} == {"why", "how"}:
        return True
    if left and right:
        return left.isdisjoint(right)
    if pair.framed and (_only_whether(pair.a, pair.b) or _only_whether(pair.b, pair.a)):
        return True
    return _else_than(left, pair.a, pair.b) or _else_than(right, pair.b, pair.a)


def _new_names(unmatched: Sequence[Token], reading: Reading) -> list[Token]:
    named = [token for token in unmatched if token.proper]
    return [token for token in named if not _adds_nothing(token, reading, named)]


def _adds_nothing(token: Token, reading: Reading, named: Sequence[Token]) -> bool:
    """A first name, the larger place after a comma, or the class of a thing that is named anyway."""
    if token.form in _CLASSES:
        return True
    index = reading.place(token)
    before, after = reading.tokens[max(0, index - 1) : index], reading.tokens[index + 1 : index + 2]
    known_before = any(other.proper and other not in named for other in before)
    known_after = any(other.proper and not other.apposed and other not in named for other in after)
    return (known_before and token.apposed) or (known_after and token.text not in _NARROWING)


def _languages_asked(reading: Reading) -> set[str]:
    return {
        token.text
        for before, token in pairwise(reading.tokens)
        if token.text in LANGUAGES and before.text in _LANGUAGE_LEADS
    }


@lru_cache(maxsize=READINGS_MAX)
def _written_in(text: str) -> str:
    """The script of most letters; for Latin script the language, where its commonest words leave no doubt."""
    counts: dict[str, int] = {}
    for character in "" if text.isascii() else text[:_SCRIPT_SAMPLE_CHARACTERS]:
        if character.isalpha():
            script = "LATIN" if character.isascii() else unicodedata.name(character, "?").split()[0]
            counts[script] = counts.get(script, 0) + 1
    script = max(counts, key=lambda name: (counts[name], name), default="LATIN")
    return _latin_language(text) if script == "LATIN" else script


def _latin_language(text: str) -> str:
    (best, code), (second, _) = _by_stopwords(text)[:2]
    return code if code != "en" and best >= max(2, second + 2) else "LATIN"


def _may_be(code: str, text: str, script: str) -> bool:
    """Nothing tells the language of a text in Latin script (`script`), and no other has more of its words."""
    if script != "LATIN" or code not in LATIN_STOPWORDS:
        return False
    counts = {language: count for count, language in _by_stopwords(text)}
    return counts[code] == max(counts.values()) > counts["en"]


def _by_stopwords(text: str) -> list[tuple[int, str]]:
    found = {word.strip(".,;:!?¿¡\"'()") for word in text.lower().split()}
    return sorted(((len(found & common), code) for code, common in LATIN_STOPWORDS.items()), reverse=True)


def _sizes(reading: Reading) -> set[str]:
    """Sizes that are asked of the answer, not of what it is about."""
    return {
        size.form for size, thing in pairwise(reading.tokens) if size.text in _SIZES and thing.form in _ANSWER_FORMS
    }


@lru_cache(maxsize=READINGS_MAX)
def _asked(reading: Reading) -> set[str]:
    """What kinds of answer the question words want; *what*, *which* and *how* leave it open."""
    found = set()
    for index, token in enumerate(reading.tokens):
        following = reading.tokens[index + 1].text if index + 1 < len(reading.tokens) else ""
        opens = index == 0 and token.text != "when"
        if token.text in _ASKED_FOR and (opens or following in _AUXILIARIES):
            found.add(_ASKED_FOR[token.text])
        elif token.text == "how" and following in _MEASURES:
            found.add(_measure(following, reading.tokens[index + 2 : index + 3]))
    return found


def _only_whether(one: Reading, other: Reading) -> bool:
    """One asks why, when or how it is, the other only whether it is so."""
    if QUESTION_WORDS.isdisjoint(_opening(one)) or _AUXILIARIES.isdisjoint(_opening(other)):
        return False
    return other.texts.isdisjoint(QUESTION_WORDS | {"if", "whether", "there"})


def _measure(how: str, after: Sequence[Token]) -> str:
    """What *how* measures. *How much time* is *how long*, *how many times* is *how often*."""
    counted = after[0].text if after and how in ("much", "many") else ""
    return {"time": "long", "times": "often"}.get(counted, "much" if how == "many" else how)


def _opening(reading: Reading) -> list[str]:
    return [token.text for token in reading.tokens[:1]]


def _else_than(asked: set[str], own: Reading, other: Reading) -> bool:
    """`own` asks for a time or a reason, and `other` asks *what*, but for nothing of that kind."""
    if not own.texts.isdisjoint(("what", "which")) or not other.texts.isdisjoint(("how", "if", "whether")):
        return False
    after_what = [
        {token.form for token in other.tokens[index + 1 : index + 1 + _ASKED_WITHIN]}
        for index, token in enumerate(other.tokens)
        if token.text in ("what", "which")
    ]
    return bool(after_what) and any(
        kind in _SAME_ASKED and all(_SAME_ASKED[kind].isdisjoint(forms) for forms in after_what) for kind in asked
    )
