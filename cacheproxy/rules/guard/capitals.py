"""Capitals that mean something: `README` and `readme` as file names, `userId` and `userid`, *Turkey* and *turkey*.

Most writers are sloppy about capitals, and of what merely lies near most pairs that differ in them are one question. So
a capital counts only where it is evidence by itself: in what is no prose (paths, identifiers, escapes), in a word that
one text writes in two ways, in a quoted word, and in a noun that a capital makes another. Refuses to judge names and
headings (*docker*, *Docker*); values behind a label are in `labelled.py`. Called by the guard over tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from itertools import pairwise

from cacheproxy.rules.guard.function_words import FUNCTION_WORDS, PREPOSITIONS, SYMMETRIC
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.reading import READINGS_MAX, Reading, Token

OTHER_WITH_CAPITAL = words("polish turkey nice lent jersey")
"""Nouns and verbs that a capital makes a place, a language or a name, as far as both may stand in one sentence."""
_SLIPS_AFTER = words("a an i you we new nail shoe football")
"""Words after which a capital there is the slip of a telephone (`a Nice gift`, `nail Polish`)."""
_BRANDS = words(
    """javascript typescript youtube whatsapp linkedin paypal facebook macos watchos mysql nosql mongodb postgresql
    github gitlab chatgpt openai tensorflow nodejs tiktok airdrop airpods powerpoint powershell playstation macbook
    fastapi mcdonalds openssl"""
)
"""Written with a capital inside by those who know, so that other letters are a slip."""
_FILE = (
    r"py|ts|c|h|cpp|java|go|rs|rb|php|html?|css|json|ya?ml|toml|md|txt|[ct]sv|xml|pdf|docx?|xlsx?|png|jpe?g|gif|svg|"
    r"zip|tar|gz|sh|bat|exe|dll|ini|cfg|conf|log|sql|ipynb"
)
_ODD = (
    re.compile(r"[_\\$%=<\[(/]"),
    re.compile(r"\.\w"),
    re.compile("[a-z][A-Z]"),
    re.compile(r"\d(?:[A-Za-z]|(?<=[A-Za-z]\d))"),
)
"""Only a text with one of these has something that is no prose. Each begins with what is quickly looked for."""
_CODE = re.compile(
    r"\w_\w|\\\w|\$[A-Za-z_]|(?<!\w)%[A-Za-z]\b|^[~.]{0,2}/(?![rsu]/)\w\w|\w\(\)|\w<\w|\w\w=\w|\[[^\]]{0,16}-[^\]]{0,16}\]"
    rf"|\w\w\.(?:{_FILE})$|://[^/]{{1,80}}/\w|^[a-z]{{2,}}(?:[A-Z][a-z\d]*)+$"
)
"""What makes a chunk a path, a file, an identifier, an escape or a range of letters."""
_SERIAL = re.compile(
    r"(?=\D*\d)(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])(?!.*[a-z]{3}\d|[a-z]?[A-Z][a-z]+\d+$|\d+[A-Za-z]{1,4}$"
    r"|i?OS\d+$|GPT|RTX|HbA|CaCO)[A-Za-z\d]{5,64}$"
)
"""Both cases and digits, which is no word with a number (`iPhone13`), no amount (`5000mAh`) and no common name."""
_PATTERN = re.compile(r"\\[dDwWsSbB]|\[\^?\w-\w")
"""A regular expression, beside which a word with digits is what it is to match."""
_LETTERS_AND_DIGITS = re.compile(r"(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z\d]{2,64}$")
_HEADING_WORDS_MIN = 3
_HEADING_SHARE = 0.8
"""Of the words of a heading, so many begin with a capital at least."""
_SENTENCE = re.compile(r"[.?!] ")
_SEARCHED = words("occur occurs contain contains find replace search string match matches password")
"""Words by which the first letter of a quoted word counts, too."""
_TWICE_MAX = 20
"""Words in two ways that are looked at; prose has none or few."""
_AROUND = ".,;:!?\"'`*“”()"
_FRESH_AFTER = ".?!:;\"'`“("
_Spellings = dict[str, dict[str, bool]]
"""By small letters: each way a chunk is written, and whether it stands so only where all have a capital."""
_QUOTED_WORD = re.compile(r"\"(\w{2,40})\"|“(\w{2,40})”|(?<!\w)'(\w{2,40})'(?!\w)")


def other_capitals(a: Reading, b: Reading) -> bool:
    """The same letters with other capitals, where these mean something. A text in capitals throughout has none."""
    if a.text.isupper() or b.text.isupper():
        return False
    if _other_code(a.text, b.text):
        return True
    told = _other_turn(a, b) or _other_quoted(a, b) or _other_noun(a, b)
    return told and not (heading(a.text) or heading(b.text))


@lru_cache(maxsize=READINGS_MAX)
def heading(text: str) -> bool:
    """In A Text Written Like This Capitals Mark Nothing."""
    said = [chunk[0] for chunk in text.split() if chunk[0].isalpha()]
    return len(said) >= _HEADING_WORDS_MIN and sum(map(str.isupper, said)) >= _HEADING_SHARE * len(said)


def _other_code(a: str, b: str) -> bool:
    """A chunk that is no prose in one of them has other capitals in the other."""
    if not (lowers := _code(a) | _code(b)):
        return False
    one, other = _spellings(a), _spellings(b)
    unlike = [lower for lower in lowers if lower in one and lower in other and _unlike(one[lower], other[lower])]
    return bool(unlike) and not (all(map(str.isalnum, unlike)) and _sloppy(one, other, lowers))


def _sloppy(one: _Spellings, other: _Spellings, lowers: frozenset[str]) -> bool:
    """Words of prose have other capitals too, so that it is the writer who has, and not the thing."""
    words_too = (lower for lower in one.keys() & other.keys() if lower.isalpha() and lower not in lowers)
    return any(one[lower].keys() != other[lower].keys() for lower in words_too)


def _unlike(one: dict[str, bool], other: dict[str, bool]) -> bool:
    """Where a sentence begins with one of them, its first letter says nothing."""
    if one.keys() == other.keys():
        return False
    if not any((*one.values(), *other.values())):
        return True
    return {_uncapped(spelling) for spelling in one} != {_uncapped(spelling) for spelling in other}


def _uncapped(spelling: str) -> str:
    return spelling[:1].lower() + spelling[1:]


@lru_cache(maxsize=READINGS_MAX)
def _code(text: str) -> frozenset[str]:
    """The chunks of a text that are no prose, in small letters."""
    if not any(odd.search(text) for odd in _ODD):
        return frozenset()
    cores = [_core(chunk) for chunk in text.split()]
    matched = _PATTERN.search(text) is not None
    return frozenset(core.lower() for core in cores if _is_code(core) or (matched and _LETTERS_AND_DIGITS.match(core)))


def _core(chunk: str) -> str:
    return chunk.rstrip(_AROUND).lstrip("\"'`*“(") + ("()" if "()" in chunk[-4:] else "")


def _is_code(core: str) -> bool:
    if core.lower() in _BRANDS:
        return False
    return bool(_CODE.search(core) or _SERIAL.match(core))


@lru_cache(maxsize=READINGS_MAX)
def _spellings(text: str) -> _Spellings:
    """The chunks of a text and how they are written."""
    found: _Spellings = {}
    fresh, all_fresh = True, heading(text)
    for chunk in text.split():
        if core := _core(chunk):
            ways = found.setdefault(core.lower(), {})
            ways[core] = ways.get(core, True) and fresh
        fresh = all_fresh or chunk[-1] in _FRESH_AFTER
    return found


def _other_turn(a: Reading, b: Reading) -> bool:
    """In the same words, both write one in two ways, and not in the same order (`rename readme to README`)."""
    one, other = _in_two_ways(a), _in_two_ways(b)
    if not one or not other or [token.form for token in a.content] != [token.form for token in b.content]:
        return False
    if not (SYMMETRIC.isdisjoint(a.texts) or SYMMETRIC.isdisjoint(b.texts)):
        return any(sorted(one[lower]) != sorted(other[lower]) for lower in one.keys() & other.keys())
    return any(one[lower] != other[lower] for lower in one.keys() & other.keys())


@lru_cache(maxsize=READINGS_MAX)
def _in_two_ways(reading: Reading) -> dict[str, list[str]]:
    """Words that stand in one sentence with other capitals as well, each as it comes."""
    if len({token.text for token in reading.content}) == len(reading.content):
        return {}
    found: dict[str, list[str]] = {}
    for sentence in _SENTENCE.split(reading.text):
        found |= _ways(sentence)
    return found


def _ways(text: str) -> dict[str, list[str]]:
    ways = {word for chunk in set(text.split()) if (word := chunk.strip(_AROUND))}
    twice = {lower for lower, count in Counter(map(str.lower, ways)).items() if count > 1} - FUNCTION_WORDS
    if not twice:
        return {}
    said = [word for chunk in text.split() if (word := chunk.strip(_AROUND)).lower() in twice]
    return {lower: [word for word in said if word.lower() == lower] for lower in sorted(twice)[:_TWICE_MAX]}


def _other_quoted(a: Reading, b: Reading) -> bool:
    """A single word in quotes, unless one of the two writers is sloppy."""
    if not a.quoted or not b.quoted or a.text[:1].islower() != b.text[:1].islower():
        return False
    one, other = _quoted_words(a.text), _quoted_words(b.text)
    as_searched = not (_SEARCHED.isdisjoint(a.texts) or _SEARCHED.isdisjoint(b.texts))
    unlike = [(one[lower], other[lower]) for lower in one.keys() & other.keys() if one[lower] != other[lower]]
    if not (unlike if as_searched else [pair for pair in unlike if _uncapped(pair[0]) != _uncapped(pair[1])]):
        return False
    return not _sloppy(_spellings(a.text), _spellings(b.text), a.quoted | b.quoted)


@lru_cache(maxsize=READINGS_MAX)
def _quoted_words(text: str) -> dict[str, str]:
    found = ("".join(match) for match in _QUOTED_WORD.findall(text))
    return {word.lower(): word for word in found}


def _other_noun(a: Reading, b: Reading) -> bool:
    """*Turkey* in one text, *turkey* in the other, whose writer begins sentences with a capital.

    Behind a preposition either is a place or a language more often than not (*to turkey*, *in polish*).
    """
    shared = a.texts & b.texts & OTHER_WITH_CAPITAL
    if not shared or not (a.text.lstrip()[:1].isupper() and b.text.lstrip()[:1].isupper()):
        return False
    if shared.isdisjoint(_as_names(a) & _small(b)) and shared.isdisjoint(_as_names(b) & _small(a)):
        return False
    return not _sloppy(_spellings(a.text), _spellings(b.text), shared)


@lru_cache(maxsize=READINGS_MAX)
def _as_names(reading: Reading) -> frozenset[str]:
    return frozenset(token.text for before, token in pairwise(reading.tokens) if token.proper and _free(before))


@lru_cache(maxsize=READINGS_MAX)
def _small(reading: Reading) -> frozenset[str]:
    """Those of the nouns that stand in small letters everywhere."""
    return frozenset(word for word in OTHER_WITH_CAPITAL if list(_spellings(reading.text).get(word, ())) == [word])


def _free(before: Token) -> bool:
    return before.text not in PREPOSITIONS | _SLIPS_AFTER
