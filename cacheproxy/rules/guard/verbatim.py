"""The exact text that an instruction has for its object: what to translate, correct, judge, count, copy or spell.

There the wording is the question: *I has a dog* and *I have a dog* are two to correct, *banana* and *bananas* two to
count the letters of, though all other rules read them as the same words. The instruction around the text may be worded
in any way. Knows a closed list of such instructions, after a colon, in quotes or behind a phrase; who asks how a page
is translated in a browser has no such text. Called by the guard over tokens.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from cacheproxy.rules.guard.capitals import OTHER_WITH_CAPITAL
from cacheproxy.rules.guard.function_words import ARTICLES
from cacheproxy.rules.guard.kinds import LANGUAGES
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.reading import READINGS_MAX, Reading

_NOUNS = words(
    """translation grammar grammatical grammatically ungrammatical spelling misspelled spelled spelt punctuation tense
    plural singular synonym synonyms antonym antonyms opposite anagram anagrams palindrome syllable syllables rhyme
    rhymes rhyming pronunciation pronounced participle conjugation vowels consonants regex sentiment
    hash md5 sha1 sha256 base64 uppercase lowercase typo typos homophone homophones infinitive passive
    backwards"""
)
"""Words of a lead that make what stands behind its colon an exact text."""
_VERBS = words(
    """translate proofread rewrite rephrase reword paraphrase transliterate transcribe conjugate decline abbreviate
    capitalize capitalise punctuate hyphenate reverse spell pronounce extract quote scan count encode decode tokenize
    shorten simplify correct unscramble parse copy repeat echo
    ubersetze ubersetzen übersetze übersetzen übersetz korrigiere korrigier verbessere berichtige buchstabiere
    konjugiere traduis traduisez traduire corrige corrigez traduce traduzca traducir traduci traduza traduzir vertaal"""
)
"""Verbs that do so where the lead is their command."""
_MENDING = words(
    """correct fix check improve edit polish revise right wrong find identify underline label mistake mistakes error
    errors many count word convert change turn put make detect rate judge classify"""
)
"""Words of which a lead needs one with one of `_MENDED`."""
_MENDED = words(
    """sentence sentences paragraph phrase wording mistake mistakes errors say english text words case voice polite
    formal informal letters characters subject noun nouns verb verbs adverb adjective pronoun"""
)
_JUDGED = words("""formal informal polite politeness rude tone register american british contraction contractions""")
"""What a text is asked to be, or to have: told of the text as it stands."""
_PRESENTED = words("sentence sentences phrase phrases word words string line verse blank blanks")
"""What a lead ends with that presents one of them (*Diagram this sentence:*)."""
_KEYS = (
    _NOUNS
    | _VERBS
    | _MENDING
    | _PRESENTED
    | _JUDGED
    | LANGUAGES
    | words("another letter speech sagt heißt heisst dit dice diz")
)
"""A text with none of these has no exact text."""
_LITERAL = words(
    """grammar grammatical grammatically punctuation punctuate correct fix check proofread mistake mistakes hash md5
    sha1 sha256 base64 encode decode reverse capitalize capitalise characters regex copy repeat echo"""
)
"""Of an instruction with one of these capitals count too."""
_POLITE = words(
    """please kindly can could would will you now then just i need want like to help me and also hey hi hello bitte
    konntest könntest kannst du peux pouvez tu vous puedes"""
)
_POINTING = words("following below this these above that it")
_PLAIN = (
    _POLITE | _POINTING | _NOUNS | _VERBS | _MENDING | _MENDED | _JUDGED | LANGUAGES | ARTICLES
    | words("into in of for or text texts my any all its is are how from word words line lines ins auf en al")
    | words("correctly which does do use uses have contain contains")
)  # fmt: skip
"""All that an instruction consists of which has its text elsewhere."""
_ASKING = words("is are was does do which what whats how")
"""Words that begin a lead after which a question mark belongs to it."""
_LEAD_WORDS_MAX = 20
_LEADS_WITHIN = 1000
"""Characters within which an instruction is looked for: a lead begins there, a longer text has none with its text
inside. What two longer ones share is cut away before (`shared.py`)."""
_ENDS = re.compile(r" ?:(?: ?\n|[ \n]|$)|[.?!][ \n]|\n")
"""Where a lead may end. As all patterns here it reads a text without two spaces in a row, and takes linear time."""
_WORD = re.compile(r"[^\W_]+")
_OPEN_QUOTE = re.compile("[\"“«„`]|(?<!\\w)['\N{LEFT SINGLE QUOTATION MARK}]")
_LABEL = re.compile(r"\s?(?:text|sentence|input|word|phrase|string)s? ?:\s?", re.IGNORECASE)
_DESCRIBED = re.compile(
    r"(?:(?:the|an?|this|these|following|english|my) ){0,3}"
    r"(?:words?|verb|phrase|sentence|name|noun|adjective|adverb|string|term|text)[:,]? (?=\S)",
    re.IGNORECASE,
)
"""What may introduce the text: *the word*, *this sentence*."""
_ARTICLE = re.compile(r"(?:an?|the) (?=\S)", re.IGNORECASE)
_APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
_QUOTES = f"\"“”«»„`'\N{LEFT SINGLE QUOTATION MARK}{_APOSTROPHE} "
_TEXTS = words(
    """words verbs noun nouns sentence sentences names adjectives string strings file files text texts alphabet letters
    input password passwords url page pages website language languages list column columns cell cells field fields
    variable variables document documents"""
)
"""Words of a question about texts in general, even within a sentence."""
_GENERAL = _TEXTS | words("word verb numbers value values code difference name meaning term most best way order things")
"""The same within a few words."""
_JOINTS = words(
    """in of with using for from by on at that which and or without inside as into check checker checking it this them
    something anything"""
)
"""Words with which no text begins."""

_LANGUAGE = f"(?:{'|'.join(sorted(LANGUAGES))})"
_OBJECT = r"(?P<object>[^\n]{1,300}?)"
"""May be a sentence, so that its article counts."""
_SHORT = r"(?P<word>[^\n?!;:]{1,80}?)"
_END = r"(?: in LANGUAGE)? ?(?:[?.!;]{1,3}(?=\s|$)|$|\n)"
_FORMS = words(
    """plural singular tense participle comparative superlative opposite antonym antonyms synonym synonyms anagram
    anagrams pronunciation spelling conjugation infinitive homophone homophones hash md5 sha1 sha256 base64"""
)
"""What of a word is asked for."""
_INLINE = tuple(
    (words(marks), re.compile(pattern.replace("LANGUAGE", _LANGUAGE), re.IGNORECASE | re.MULTILINE))
    for marks, pattern in (
        ("translate", rf"(?P<command>\btranslate) (?!(?:in)?to\b){_OBJECT} (?:from LANGUAGE )?(?:in)?to LANGUAGE\b"),
        ("say", rf"\bhow (?:\w{{1,20}} ){{0,3}}say {_OBJECT} in LANGUAGE\b"),
        ("mean", rf"\bwhat does {_SHORT} mean in LANGUAGE\b"),
        (
            "word translation term phrase",
            rf"\b(?:word|translation|term|phrase) (?:for|of) {_SHORT} in(?:to)? LANGUAGE\b",
        ),
        ("word translation term phrase", rf"\bLANGUAGE (?:word|translation|term|phrase) (?:for|of) {_SHORT}{_END}"),
        (
            " ".join(_FORMS),
            rf"\b(?:{'|'.join(sorted(_FORMS))})(?: form)? (?:of|for) {_SHORT}{_END}",
        ),
        (
            "spell pronounce conjugate hyphenate transliterate unscramble",
            rf"\b(?:spell|pronounce|conjugate|hyphenate|transliterate|unscramble) {_SHORT}{_END}",
        ),
        ("spelled spelt pronounced", rf"\bhow (?:is|are) {_SHORT} (?:spelled|spelt|pronounced)\b"),
        ("what whats", rf"^\W?what(?:['{_APOSTROPHE}]?s| is) the LANGUAGE for {_SHORT}{_END}"),
        ("another", rf"\banother (?:word|term) for {_SHORT}{_END}"),
        ("word", rf"\b(?:of|use|is|repeat) the word {_SHORT}(?: in a sentence| \d{{1,3}} times)?{_END}"),
        ("rhyme", rf"\b(?:do|does) (?P<word>[^\n?!;:]{{1,80}} rhyme with [^\n?!;:]{{1,80}}?){_END}"),
        ("rhyme rhymes", rf"\brhymes? (?:with|for) {_SHORT}{_END}"),
        ("anagrams", r"\bare (?P<word>[^\n?!;:]{1,80}?) anagrams\b"),
        ("palindrome anagram", rf"\bis {_OBJECT} an? (?:palindrome|anagram)\b"),
        (
            "letters syllables vowels consonants characters",
            rf"\b(?:letters|syllables|vowels|consonants|characters) (?:does|do) {_SHORT} (?:have|contain)\b",
        ),
        (
            "letter letters syllables vowels consonants characters",
            (
                r"\b(?:letters?|syllables|vowels|consonants|characters) (?:(?:are|is|there|[a-z]) ){0,3}"
                rf"(?:(?:appear|occur)s? )?in {_SHORT}{_END}"
            ),
        ),
        (
            "string word phrase sentence",
            rf"\b(?:how long is|length of) the (?:string|word|phrase|sentence) {_SHORT}{_END}",
        ),
        ("many", rf"\bhow many [a-z](?:'?s)? (?:(?:are|there) ){{0,2}}in {_SHORT}{_END}"),
        (
            "uppercase lowercase case",
            rf"(?P<command>\b(?:convert|change|turn)) {_OBJECT} (?:in)?to (?:(?:upper|lower)case|\w{{4,8}} case){_END}",
        ),
        ("reverse", rf"(?P<command>\breverse) (?:the )?(?:string|word|phrase|sentence|text) {_OBJECT}{_END}"),
        (
            "grammatically grammatical grammar english spelled spelt",
            (
                rf"\b(?:is|are) {_OBJECT} (?:grammatically correct|grammatical|(?:correct|proper) (?:grammar|english)"
                r"|spel(?:led|t) (?:correctly|right))\b"
            ),
        ),
        ("correct grammatical right", rf"\b(?:correct|grammatical|right) to say {_OBJECT}{_END}"),
        ("tense speech", rf"\b(?:tense|part of speech) (?:is|are) {_OBJECT}{_END}"),
        (
            "sagt heißt heisst dit dice diz",
            (
                r"\b(?:wie sagt man|wie hei(?:ß|ss)t|comment dit-on|c[oó]mo se dice|come si dice|como se diz) "
                rf"{_OBJECT} (?:auf|en|in|em) \w{{1,20}}{_END}"
            ),
        ),
        (
            "ubersetze ubersetzen übersetze übersetzen traduis traduisez traduce traduzca traduci traduza vertaal",
            (
                r"(?P<command>\b(?:übersetzen?|traduis|traduisez|traduce|traduzca|traduci|traduza|vertaal)) "
                rf"(?!(?:ins?|auf|en|al|a|para|naar)\b){_OBJECT} (?:ins?|auf|en|al|a|in|para|naar) \w{{1,20}}{_END}"
            ),
        ),
    )
)
"""An instruction with its text inside, in one line; before each the words of which its reading has one at least."""
_IN_LANGUAGE = re.compile(
    rf"^\W?what(?:['{_APOSTROPHE}]s| is| are) {_SHORT} in {_LANGUAGE} ?[?.!]{{0,3}}$", re.IGNORECASE
)
"""May ask for a word, or for anything else that is in that language."""
_WORDS_MAX = 4
"""Words up to which it asks for a word."""


def reworded(a: Reading, b: Reading) -> bool:
    """Both have an exact text for their object, and not the same one."""
    one, other = exact_text(a), exact_text(b)
    if not one or not other:
        return False
    if _LITERAL.isdisjoint(a.texts) and _LITERAL.isdisjoint(b.texts):
        lower, other_lower = one.casefold().rstrip("!"), other.casefold().rstrip("!")
        return lower != other_lower or (lower in OTHER_WITH_CAPITAL and one != other)
    return one != other


@lru_cache(maxsize=READINGS_MAX)
def exact_text(reading: Reading) -> str:
    """The text that an instruction is about, without the quotes around it; empty where there is none."""
    if reading.texts.isdisjoint(_KEYS):
        return ""
    text = "\n".join(line for line in (" ".join(line.split()) for line in reading.text.split("\n")) if line)
    return _led(text) or (_inside(text, reading.texts) if len(text) <= _LEADS_WITHIN else "")


def _led(text: str) -> str:
    """What follows an instruction that ends with a colon; what stands beside one that has nothing in itself."""
    start = 0
    for end in _ENDS.finditer(text):
        if start > _LEADS_WITHIN:
            break
        lead = text[start : end.start()]
        if _leads(lead):
            if ":" in end[0]:
                return _bare(text[end.end() :].rstrip("?" if _said(lead)[0] in _ASKING else ""))
            if _complete(lead):
                return _bare(text[end.end() :]) or _bare(text[:start])
        start = end.end()
    start = max(text.rfind("\n"), *(text.rfind(f"{sign} ", 0, -1) + 1 for sign in ".?!")) + 1
    last = text[start:].rstrip(".?!")
    return _bare(text[:start]) if _leads(last) and _complete(last) else ""


def _leads(lead: str) -> bool:
    """A lead whose colon would introduce an exact text."""
    said = _said(lead)
    if not said or _OPEN_QUOTE.search(lead):
        return False
    if "own" in said or {"if", "wrong"}.issubset(said):
        return False  # *in your own words*, *correct me if I am wrong*
    command = next((word for word in said if word not in _POLITE), "")
    if command in _VERBS:
        return True
    if said[0] == "how" and said[1:2] in (["do"], ["can"], ["to"]):
        return False
    if said[-1] in _PRESENTED and said[-2:-1] and said[-2] in _POINTING | {"the"}:
        return True
    judged = not _JUDGED.isdisjoint(said) and (said[0] in _ASKING or not _MENDING.isdisjoint(said))
    return judged or not _NOUNS.isdisjoint(said) or not (_MENDING.isdisjoint(said) or _MENDED.isdisjoint(said))


def _complete(lead: str) -> bool:
    """An instruction and nothing else, so that its text is elsewhere (*Translate this into French.*)."""
    said = _said(lead)
    return _PLAIN.issuperset(said) or "following" in said or "below" in said


def _said(lead: str) -> list[str]:
    """The words of a lead; none where it is too long for one."""
    said = _WORD.findall(lead.lower()) if len(lead) < 12 * _LEAD_WORDS_MAX else []
    return said if len(said) <= _LEAD_WORDS_MAX else []


def _inside(text: str, texts: frozenset[str]) -> str:
    """The text within an instruction, behind one of the phrases."""
    for marks, pattern in _INLINE:
        if marks.isdisjoint(texts):
            continue
        for match in pattern.finditer(text):
            if "command" in pattern.groupindex and not _commanded(text, match.start()):
                continue
            if found := _particular(match):
                return found
    asked = None if LANGUAGES.isdisjoint(texts) else _IN_LANGUAGE.search(text)
    found = _particular(asked) if asked else ""
    return found if len(found.split()) <= _WORDS_MAX else ""


def _commanded(text: str, start: int) -> bool:
    """Nothing but politeness stands before a verb in its sentence, or *how would you*."""
    before = re.split(r"[.?!:\n]", text[max(0, start - 80) : start])[-1]
    said = _WORD.findall(before.lower())
    return _POLITE.issuperset(said) or said[-1:] == ["you"]


def _particular(match: re.Match[str]) -> str:
    """The text, if it is one: quoted, or words none of which speaks of texts in general."""
    named = match.groupdict()
    short = "word" in named
    found = _DESCRIBED.sub("", named.get("object") or named["word"], count=1)
    if found[:1] in _QUOTES:
        return _bare(found)
    said = found.lower().split()
    if not said or said[0] in _JOINTS or not (_GENERAL if short else _TEXTS).isdisjoint(said):
        return ""
    return _bare(_ARTICLE.sub("", found, count=1) if short else found)


def _bare(found: str) -> str:
    """Without a label before it, the quotes around it, and a full stop after it."""
    label = _LABEL.match(found)
    found = " ".join(unicodedata.normalize("NFC", found[label.end() if label else 0 :]).split())
    return found.strip(_QUOTES).rstrip(".").strip(_QUOTES).replace(_APOSTROPHE, "'")
