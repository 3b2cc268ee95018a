"""Values that are given by what they are: *my username is jsmith*, *the branch main*, *set LANG to C*.

They hold to the letter, so that neither other capitals nor a slip of the finger is let pass in them. What is said of
such a thing (*my password is wrong*) is no value. Knows no values without a label; called by the guard over tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from cacheproxy.rules.guard.capitals import heading
from cacheproxy.rules.guard.function_words import ARTICLES, FUNCTION_WORDS
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.reading import READINGS_MAX, Reading
from cacheproxy.rules.guard.stems import stem
from cacheproxy.rules.guard.synonyms import root
from cacheproxy.rules.guard.words import exchanged, same_word

_SECRETS = words(
    """username password passcode passphrase passwd login id code token key serial number plate name email e-mail
    address handle ssid"""
)
"""Labels of what somebody else must find letter by letter."""
_ANY_CASE = words("name email e-mail address")
"""Those of which the value is the same in any letters; it may have two words."""
_THINGS = words(
    """branch column table file filename folder directory variable key command flag option field method tag function
    class label repo project"""
)
"""Things of code, which have names."""
_SHORT_NAMED = words("branch column table file filename folder directory variable")
"""Those of which the name may follow at once; *the project manager* is no project."""
_LETTERED = words("variable")
"""Things of which the name may be a single letter and other than its capital: columns and choices are A and a."""
_STATES = words("status state type role")
"""What has one of a few values, of which another may be a capital's, where rows are picked by it."""
_PICKING = words("show list filter find count select where whose")
_COMPOUND = words("explorer manager system structure width height size width type format extension path rate options")
"""What makes another thing of one of these (`the file Explorer`)."""
_TOLD = words(
    """wrong broken invalid incorrect correct slow fast weak strong full empty lost private public new old pending
    single safe bad good"""
)
"""What is said of a thing, in whatever letters."""
_COMMANDS = words("grep checkout cd mkdir touch")
_NO_COMMAND_AFTER = ARTICLES | words("my to your")
_BEFORE = ARTICLES | words("my our this in on from of into to delete drop create rename merge open")
"""After one of these a name may follow the thing without *named*."""
_IS = words("is = : named called")
_NAMED = words("= named called")
_GIVEN = words("username password passcode passphrase passwd id name email e-mail ssid")
"""Labels whose value stands behind a colon; behind others a sentence begins there."""
_SET = "set"
_LABELS = _SECRETS | _THINGS | _STATES | _COMMANDS | {_SET}
_AROUND = ".,;:?!()\"'`“”*"
_SAID_OF = ("ed", "ing", "ble")
"""Endings of what is said of a thing."""


class Labelled(NamedTuple):
    """The values of a text."""

    secrets: dict[str, list[tuple[str, ...]]]
    """Each label in small letters, with the words of its values, in the order they come."""
    named: dict[str, set[str]]
    """Names of things as they are written, by their small letters."""


def other_value(a: Reading, b: Reading) -> bool:
    """The same labels have values that are not the same to the letter, though they look alike."""
    if _LABELS.isdisjoint(a.texts) or _LABELS.isdisjoint(b.texts):
        return False
    one, other = _labelled(a.text), _labelled(b.text)
    if any(one.named[lower] != other.named[lower] for lower in one.named.keys() & other.named.keys()):
        return True
    cased = not (_even(a.text) or _even(b.text))
    return any(
        _misspelled(mine, yours, any_case=label in _ANY_CASE, cased=cased)
        for label in one.secrets.keys() & other.secrets.keys()
        for mine, yours in zip(one.secrets[label], other.secrets[label], strict=False)
    )


def _even(text: str) -> bool:
    """In capitals throughout, or a heading: there no value has letters of its own."""
    return text.isupper() or heading(text)


@lru_cache(maxsize=READINGS_MAX)
def _labelled(text: str) -> Labelled:
    """The values of a text with their labels."""
    chunks = [part for chunk in text.split() for part in _parted(chunk)]
    secrets: dict[str, list[tuple[str, ...]]] = {}
    for label, value in _secrets(chunks):
        secrets.setdefault(label, []).append(value)
    named: dict[str, set[str]] = {}
    for name in () if _even(text) else _names(chunks):
        named.setdefault(name.lower(), set()).add(name)
    return Labelled(secrets, named)


def _parted(chunk: str) -> list[str]:
    """A label comes apart from its sign (`password:`)."""
    if len(chunk) > 1 and chunk[-1] in ":=":
        return [chunk[:-1], chunk[-1]]
    return [chunk]


def _secrets(chunks: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for at, chunk in enumerate(chunks[:-2]):
        label, sign = chunk.lower(), chunks[at + 1].lower()
        if label not in _SECRETS or sign not in _IS or _asked(chunks, at) or (sign == ":" and label not in _GIVEN):
            continue
        value = tuple(_bare(chunks[at + 2 : at + 4]))
        if value and value[0].lower() not in FUNCTION_WORDS:
            yield label, value


def _names(chunks: Sequence[str]) -> Iterator[str]:
    """Names as one writes them who writes the thing itself small, where no sentence ends between."""
    for at, chunk in enumerate(chunks[:-1]):
        label = chunk.lower() if at == 0 and not chunk.isupper() else chunk
        if label not in _LABELS or _asked(chunks, at) or not (after := _place(chunks, at, label)):
            continue
        for value in _bare(chunks[after : after + 1]):
            if value.lower() not in FUNCTION_WORDS and (len(value) > 1 or label in _LETTERED or label == _SET):
                yield value


def _asked(chunks: Sequence[str], at: int) -> bool:
    """*Which state is Boston in* gives no value."""
    return at > 0 and chunks[at - 1].lower() in ("what", "which")


def _place(chunks: Sequence[str], at: int, label: str) -> int:
    """Where the name would stand of which `at` is the label; 0 where it gives none."""
    following = chunks[at + 1].lower()
    if label in _COMMANDS:
        if at and chunks[at - 1].lower() in _NO_COMMAND_AFTER:
            return 0
        flags = next((place for place in range(at + 1, len(chunks)) if not chunks[place].startswith("-")), at + 1)
        return flags + (chunks[flags] == "for")
    if label == _SET:
        variable = following.upper() == chunks[at + 1] and chunks[at + 2 : at + 3] == ["to"]
        return at + 3 if variable and len("".join(chunks[at + 3 : at + 4]).strip(_AROUND)) == 1 else 0
    if following in _IS:
        picked = label in _STATES and not _PICKING.isdisjoint(map(str.lower, chunks))
        return at + 2 if picked or (label in _THINGS and following in _NAMED) else 0
    named = label in _SHORT_NAMED and (label in _LETTERED or (at > 0 and chunks[at - 1].lower() in _BEFORE))
    return at + 1 if named and following.strip(_AROUND) not in _COMPOUND else 0


def _bare(chunks: Sequence[str]) -> list[str]:
    """The words of a value without quotes, up to the end of its clause."""
    found: list[str] = []
    for chunk in chunks:
        if bare := chunk.strip(_AROUND):
            found.append(bare)
        if chunk[-1] in ".,;?!" or not bare:
            break
    return found


def _misspelled(one: tuple[str, ...], other: tuple[str, ...], *, any_case: bool, cased: bool) -> bool:
    """Other letters in words that are read as one elsewhere."""
    if any_case:
        return any(_slip(mine.lower(), yours.lower()) for mine, yours in zip(one, other, strict=False))
    mine, yours = one[0], other[0]
    if mine.lower() == yours.lower():
        return cased and mine != yours and not mine.endswith(_SAID_OF) and mine.lower() not in _TOLD
    return _slip(mine.lower(), yours.lower())


def _slip(one: str, other: str) -> bool:
    """Neither the same word nor another one."""
    if one == other or not _TOLD.isdisjoint((one, other)) or one.endswith(_SAID_OF) or other.endswith(_SAID_OF):
        return False
    first, second = stem(one), stem(other)
    return first == second or exchanged(one, other) or (root(first) != root(second) and same_word(first, second))
