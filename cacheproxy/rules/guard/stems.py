"""One form for the inflections of a word: `baking`, `bakes` and `baked` are `bak`.

Small on purpose: it joins plurals, tenses and adverbs and nothing else; what it joins wrongly would hide a difference
between two questions, so derivation (`bake`, `baker`) is left to `rules/guard/words.py`, which sees both words.
"""

from __future__ import annotations

from functools import lru_cache

IRREGULAR = {
    form: base
    for base, forms in {
        "be": "am is are was were been being", "do": "does did done doing", "have": "has had having",
        "go": "goes went gone", "get": "gets got gotten getting", "make": "made making", "take": "took taken",
        "buy": "bought", "sell": "sold", "write": "wrote written writing", "eat": "ate eaten", "see": "saw seen",
        "give": "gave given", "find": "found", "think": "thought", "bring": "brought", "teach": "taught",
        "catch": "caught", "fight": "fought", "win": "won", "lose": "lost losing", "beat": "beaten", "run": "ran",
        "come": "came", "become": "became", "begin": "began begun", "drink": "drank drunk", "drive": "drove driven",
        "speak": "spoke spoken", "break": "broke broken", "choose": "chose chosen", "know": "knew known",
        "grow": "grew grown", "throw": "threw thrown", "fly": "flew flown", "draw": "drew drawn", "wear": "wore worn",
        "say": "said", "tell": "told", "pay": "paid", "send": "sent", "spend": "spent", "build": "built",
        "lend": "lent", "feel": "felt", "keep": "kept", "sleep": "slept", "meet": "met", "lead": "led",
        "hold": "held", "stand": "stood", "understand": "understood", "hear": "heard", "sing": "sang sung",
        "swim": "swam swum", "steal": "stole stolen", "hide": "hid hidden", "ride": "rode ridden", "rise": "rose risen",
        "fall": "fell fallen", "shoot": "shot", "sit": "sat", "wake": "woke woken", "die": "died dying dies",
        "lie": "lied lying", "tie": "tied tying", "child": "children kids kid", "man": "men", "woman": "women",
        "foot": "feet", "tooth": "teeth", "mouse": "mice", "goose": "geese", "person": "persons", "life": "lives",
        "wife": "wives", "knife": "knives", "leaf": "leaves", "wolf": "wolves", "half": "halves", "shelf": "shelves",
        "criterion": "criteria", "phenomenon": "phenomena", "analysis": "analyses", "crisis": "crises",
        "index": "indices indexes", "matrix": "matrices", "datum": "data", "forbid": "forbade forbidden",
        "freeze": "froze frozen", "forget": "forgot forgotten", "bite": "bit bitten", "blow": "blew blown",
        "hang": "hung", "shake": "shook shaken", "show": "shown showed", "swear": "swore sworn", "tear": "tore torn",
        "bind": "bound", "feed": "fed", "seek": "sought", "mean": "meant", "deal": "dealt", "dream": "dreamt",
        "learn": "learnt", "burn": "burnt", "spell": "spelt", "good": "", "dangerous": "", "always": "", "gas": "gases",
        "bus": "buses", "news": "", "physics": "", "series": "", "species": "", "less": "", "yes": "", "his": "",
    }.items()
    for form in (base, *forms.split())
}  # fmt: skip

_SPELLINGS = {
    "isation": "ization", "ising": "izing", "ise": "ize", "ised": "ized", "ises": "izes", "our": "or", "ours": "ors",
}  # fmt: skip
_BEGINNINGS = {
    "sulph": "sulf", "haem": "hem", "anaem": "anem", "oestr": "estr", "oesoph": "esoph", "paed": "ped", "foet": "fet",
    "diarrhoe": "diarrhe", "alumini": "alumin", "caesi": "cesi", "aeropl": "airpl", "sceptic": "skeptic",
}  # fmt: skip
"""British beginnings of words, and the American ones."""
_VOWELS = frozenset("aeiouy")
_KEPT_DOUBLE = frozenset("lsz")


def stems(text: str) -> frozenset[str]:
    """The stems of a list of words."""
    return frozenset(stem(word) for word in text.split())


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """The stem of a lower-case word. A text that is not ASCII letters comes back as it is."""
    if not word.isascii() or not word.isalpha():
        return word
    word = _american(word)
    if word in IRREGULAR:
        return _without_e(IRREGULAR[word])
    if len(word) > 3:
        word = _without_plural(word)
    for ending in ("ing", "ed"):
        if word.endswith(ending) and not word.endswith("eed"):
            bare = word[: -len(ending)]
            if len(bare) >= 3 and not _VOWELS.isdisjoint(bare):
                return _without_e(_without_double(bare))
    if word.endswith("ly") and len(word) > 5:
        word = word[:-1] if word.endswith("aly") else word[:-2]  # finaly
    return _without_e(word)


def base_form(word: str) -> str:
    """A stem without the ending of a comparative or superlative: `biggest` is `big`, `happier` is `happy`."""
    for ending in ("est", "er"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            bare = word[: -len(ending)]
            if bare[-1] == bare[-2] and bare[-1] not in "ls":
                bare = bare[:-1]
            return bare[:-1] + "y" if bare.endswith("i") else bare
    return word


def _american(word: str) -> str:
    for british, american in _BEGINNINGS.items():
        if word.startswith(british):
            word = american + word[len(british) :]
    for british, american in _SPELLINGS.items():
        if word.endswith(british) and len(word) > len(british) + 2:
            return word[: -len(british)] + american
    return word


def _without_plural(word: str) -> str:
    if word.endswith(("ies", "ie")) and len(word) > 4:
        return word[: word.rindex("ie")] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    if word.endswith("ied") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _without_double(word: str) -> str:
    return word[:-1] if word[-1] == word[-2] and word[-1] not in _KEPT_DOUBLE else word


def _without_e(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("e") else word
