"""What a verb like *can* or *must* makes of a question: what is, what may be done, what should, what has to be.

*What can I bring* is not *what must I bring*, and *should I* is neither. Knows English alone; refuses to judge what is
denied (*can't*) and when it is (*will*, *was*). Called by the guard over tense.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

from cacheproxy.rules.guard.function_words import QUESTION_WORDS
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading

_OPENING_VERBS = words("is are am do does did was were can could may might must should will would shall has have")
_MODES = {
    helper: mode
    for mode, helpers in {
        "fact": "is are am do does did was were has have had", "chance": "can could may might",
        "advice": "should ought", "duty": "must", "future": "will would shall",
    }.items()
    for helper in helpers.split()
}  # fmt: skip
"""What kind of yes a question wants that opens with its helping verb."""
_NECESSITY = words("must should required ought necessary obliged mandatory")
_POSSIBILITY = words("may can could might allowed permitted possible")
_DUTY = words("must required obliged obligated obligatory mandatory compulsory")
"""*Have to* and *need to* are read as *must*."""
_POLITE = words("can could may might would will")
_TELLING = words("tell ask know explain give list show help check recommend write")
"""Behind *you* or *I* after one of the polite verbs: an opening (`could you tell me`)."""
_MEASURED = words("long many much often")
"""After *how*: an amount is asked for, and not a way."""
_HAVING = words("have has had need needs")
"""Verbs which with *to* are read as *must*."""
_FIRST_SENTENCE = re.compile(r"[.?!](?:\s|$)")
_CALLED_FOR = _DUTY | words("need needs needed necessary")
"""In a question that opens with *do*, *is* and the like: it is about a duty."""


def may_or_must(pair: Pair) -> bool:
    """Two questions that open with their verbs, one about what one must, the other about what one may."""
    left, right = _moods(pair.a), _moods(pair.b)
    return bool(left and right) and left.isdisjoint(right)


def other_mode(pair: Pair) -> bool:
    """Of two sentences in one frame: another kind of yes is wanted, or what one can do became what one has to."""
    return _modes_differ(pair) or _can_or_must(pair)


@lru_cache(maxsize=READINGS_MAX)
def _moods(reading: Reading) -> set[str]:
    """Whether a question that opens with its verb asks what one must, or what one may."""
    if not reading.tokens or not (reading.tokens[0].text in _OPENING_VERBS or reading.tokens[0].form == "must"):
        return set()
    return {
        name
        for name, verbs in (("necessity", _NECESSITY), ("possibility", _POSSIBILITY))
        if (reading.texts | reading.forms) & verbs
    }


def _modes_differ(pair: Pair) -> bool:
    """One asks what should be, the other what is, can be or will be. *How* one can is how one should."""
    left, right = _mode(pair.a), _mode(pair.b)
    if not left[1] or not right[1] or left[0] != right[0] or left[1] == right[1]:
        return False
    modes = {left[1], right[1]}
    called_for = not modes.isdisjoint(("advice", "duty"))
    return modes == {"chance", "future"} or (called_for and (not left[0] or "future" in modes))


def _mode(reading: Reading) -> tuple[str, str]:
    """The question word it opens with, if it does and it is not *how*, and the mode of the helping verb after it."""
    opening = [token.text for token in reading.tokens[:2]]
    asked = opening.pop(0) if opening and opening[0] in QUESTION_WORDS - {"how"} else ""
    mode = _MODES.get(opening[0], "") if opening else ""
    if _asks_to_tell(reading):
        return asked, ""
    return asked, "duty" if mode == "fact" and not asked and _is_on_duty(reading) else mode


def _is_on_duty(reading: Reading) -> bool:
    """Its first sentence is about what has to be; a later one may tell what for (`I need it for school`)."""
    first = set(_FIRST_SENTENCE.split(reading.text.lower(), maxsplit=1)[0].split())
    has_to = "must" in reading.texts and not first.isdisjoint(_HAVING)
    return has_to or not first.isdisjoint(_CALLED_FOR)


def _asks_to_tell(reading: Reading) -> bool:
    """`could you tell me`, `may I ask`: a polite opening, whose verb is no part of the question."""
    opening = [token.text for token in reading.tokens[:3]]
    return len(opening) == 3 and opening[0] in _POLITE and opening[1] in ("you", "i") and opening[2] in _TELLING


def _can_or_must(pair: Pair) -> bool:
    """One is about what one can or may do, the other about what one has to.

    *How* one can is how one must, and what one can *do to* get there is what one must.
    """
    if _asks_how(pair.a) or _asks_how(pair.b) or (_asks_for_means(pair.a) and _asks_for_means(pair.b)):
        return False
    can, must = ([_says(reading, helpers) for reading in (pair.a, pair.b)] for helpers in (_POSSIBILITY, _DUTY))
    return can[0] != can[1] and must[0] != must[1] and can[0] != must[0]


def _says(reading: Reading, helpers: frozenset[str]) -> bool:
    """One of these stands there, as a verb of what is asked: the month of May and a polite opening are left out."""
    start = 1 if _asks_to_tell(reading) else 0
    return any(token.text in helpers and token.kind is not Kind.DATE for token in reading.tokens[start:])


def _asks_how(reading: Reading) -> bool:
    """*How*, and not *how many*."""
    return any(one.text == "how" and other.text not in _MEASURED for one, other in pairwise(reading.tokens))


def _asks_for_means(reading: Reading) -> bool:
    return any(one.text == "do" and other.text == "to" for one, other in pairwise(reading.tokens))
