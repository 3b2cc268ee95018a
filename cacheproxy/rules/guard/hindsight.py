"""When it is, where no helping verb alone tells it: *should I have done*, *should I do*; *who leads*, *who led*.

Knows the verbs of what somebody is for a while. Refuses those of works, which are told in any tense (*who plays Hamlet
in that film*, *who played*).
"""

from __future__ import annotations

from functools import lru_cache

from cacheproxy.rules.guard.lists import groups, words
from cacheproxy.rules.guard.pair import Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading

_MODALS = words("should could would")
_SUBJECT_MAX = 3
"""Words between a modal verb and *have*, at most."""
_CLAUSES = words("who which that to do does did and or if when")
_HELPERS = words("do does did is are was were will would can could has have had")
_LASTING = {
    form: (group[0], form == group[-1])
    for group in groups(
        """lead leads led; own owns owned; run runs ran; rule rules ruled; win wins won; coach coaches coached;
        manage manages managed; govern governs governed; hold holds held; live lives lived; work works worked;
        sponsor sponsors sponsored; represent represents represented; command commands commanded; head heads headed;
        chair chairs chaired"""
    )
    for form in group
}
"""Forms of the verbs, to the verb and whether the form is past."""


def other_time(pair: Pair) -> bool:
    """One asks what would have been, or who was it, and the other what is."""
    if not pair.framed:
        return False
    if _looks_back(pair.a) != _looks_back(pair.b):
        return True
    here, there = _held(pair.a), _held(pair.b)
    return here is not None and there is not None and here[0] == there[0] and here[1] != there[1]


@lru_cache(maxsize=READINGS_MAX)
def _looks_back(reading: Reading) -> bool:
    """*Should I have done*, *I should have done*."""
    if "have" not in reading.texts or _MODALS.isdisjoint(reading.texts):
        return False
    texts = [token.text for token in reading.tokens]
    for at, text in enumerate(texts):
        if text not in _MODALS or "have" not in texts[at + 1 : at + 2 + _SUBJECT_MAX]:
            continue
        have = texts.index("have", at)
        if _CLAUSES.isdisjoint(texts[at + 1 : have]) and _is_done(reading, have + 1):
            return True
    return False


def _is_done(reading: Reading, at: int) -> bool:
    """A participle stands there."""
    token = reading.tokens[at] if at < len(reading.tokens) else None
    return token is not None and (token.text in ("been", "done", "had") or token.text != token.form)


@lru_cache(maxsize=READINGS_MAX)
def _held(reading: Reading) -> tuple[str, bool] | None:
    """The verb of a question that opens with *who* or *which* and its noun, if it is one of these."""
    tokens = reading.tokens
    if not tokens or tokens[0].text not in ("who", "which", "what") or not _HELPERS.isdisjoint(reading.texts):
        return None
    return next(
        (_LASTING[token.text] for token in tokens[1:3] if token.text in _LASTING and token.kind is not Kind.FUNCTION),
        None,
    )
