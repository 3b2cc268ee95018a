"""How German, French and Spanish address whom they ask, and count: *kannst du mir* is *können Sie mir*.

An assistant gives one answer to *du* and *Sie*, to *tu* and *vous*. Only openings that can mean nobody else are known,
politeness that says nothing, and number words that are no words of another language. Works on pieces, so without
accents; called while a text is read.
"""

from __future__ import annotations

from collections.abc import Sequence

from cacheproxy.rules.guard.cutting import Piece
from cacheproxy.rules.guard.lists import groups, rewrites, words

_OPENINGS = rewrites(
    """
    konnen sie = kannst du
    konnten sie = kannst du
    konntest du = kannst du
    koennen sie = kannst du
    koennten sie = kannst du
    koenntest du = kannst du
    pouvez vous = peux tu
    pourriez vous = peux tu
    pourrais tu = peux tu
    tu peux = peux tu
    vous pouvez = peux tu
    est ce que tu peux = peux tu
    est ce que vous pouvez = peux tu
    """
)
_FOR_ME = words("mir uns bitte me nous")
"""What follows where the assistant is asked: *können sie fliegen* asks of others."""
_REWRITTEN = rewrites(
    """
    wie viel uhr = wie spat
    wie kann man = wie kann ich
    il est quelle heure = quel heure est il
    comment est ce que je peux = comment
    comment je peux = comment
    comment puis je = comment
    comment faire pour = comment
    como puedo = como
    como se puede = como
    cuanto vale = cuanto cuesta
    donde queda = donde esta
    donde se encuentra = donde esta
    ou se trouve = ou est
    wo befindet sich = wo ist
    wo liegt = wo ist
    von wem wurde = wer hat
    von wem wurden = wer hat
    par qui a ete = qui a
    par qui ont ete = qui a
    quelle = quel
    quels = quel
    quelles = quel
    """
)
"""Openings that are one whoever is asked."""
_COMMANDS = {
    word: group[0]
    for group in groups(
        """schreib schreibe; nenn nenne; erklar erklare erklaren; zeig zeige; gib; empfiehl; ecris ecrivez;
        donne donnez; explique expliquez; dis dites; montre montrez; propose proposez; suggere suggerez; resume resumez;
        traduis traduisez; escribe escribeme; explica explicame; recomienda recomiendame; cuenta cuentame;
        muestra muestrame; traduce traduceme; busca buscame"""
    )
    for word in group
}
"""Commands to an assistant, which are for the one who gives them with *mir*, *moi* and *me* or without."""
_FOR_ONESELF = words("mir moi me")
_SWITCHING = words("mach mache machen schalt schalten")
_ABLE = words("puedes puede podrias podria")
_POLITE = (("sil", "te", "plait"), ("sil", "vous", "plait"), ("por", "favor"), ("bitte",))
_MARKS = words(
    """ich mir mich uns du sie der das den dem ein eine einen einer im und wie zu fur le la les un une du des je tu vous
    peux pouvez pour moi el los las una de que mi con puedes puede como para mas"""
)
"""Words of which a text in these languages has one, and English none."""
_NUMBERS = {
    word: str(value)
    for value, group in {
        2: "zwei deux", 3: "drei trois", 4: "vier quatre cuatro", 5: "funf cinq cinco", 6: "sechs seis",
        7: "sieben siete", 8: "huit ocho", 9: "neun nueve", 10: "zehn diez", 12: "zwolf douze doce",
        15: "funfzehn quinze", 20: "zwanzig vingt veinte", 30: "dreissig trente treinta",
    }.items()
    for word in group.split()
}  # fmt: skip
"""Without *elf*, *sept*, *dix*, *once*, *dos* and *tres*, which are other words elsewhere (*très* is *very*)."""
_OPENING_WORDS = (
    frozenset(phrase[0] for phrase in (*_OPENINGS, *_REWRITTEN)) | _ABLE | _COMMANDS.keys() | {"me", "cest"}
)
_OPENING_MAX = max(map(len, (*_OPENINGS, *_REWRITTEN)))
_POLITE_STARTS = frozenset(phrase[0] for phrase in _POLITE)


def as_to_anyone(pieces: list[Piece]) -> list[Piece]:
    """The pieces with one form of address, without politeness, and with digits for number words."""
    texts = {piece.text for piece in pieces}
    if pieces:
        pieces = _switched(_opened(pieces))
    if _MARKS.isdisjoint(texts):
        return pieces
    if not _POLITE_STARTS.isdisjoint(texts):
        pieces = _without_politeness(pieces)
    return pieces if _NUMBERS.keys().isdisjoint(texts) else [_digits(piece) for piece in pieces]


def _opened(pieces: list[Piece]) -> list[Piece]:
    texts = tuple(piece.text for piece in pieces[:_OPENING_MAX])
    if texts[0] not in _OPENING_WORDS and texts[1:2] != ("sie",):
        return pieces
    for length in range(min(_OPENING_MAX, len(pieces) - 1), 0, -1):
        opening, asked = texts[:length], pieces[length]
        instead = _REWRITTEN.get(opening)
        if opening in _OPENINGS and (asked.text in _FOR_ME or _elided(asked, "m")):
            instead = _OPENINGS[opening]
        if opening == ("cest", "quoi") and (asked.text in ("le", "la") or _elided(asked, "l")):
            instead = ("quel", "est")
        if instead:
            return [*_pieces(instead), *pieces[length:]]
    if texts[0] == "me" or texts[0] in _ABLE:
        return _clitic(pieces)
    return _commanded(_without_sie(pieces))


def _commanded(pieces: list[Piece]) -> list[Piece]:
    """*Écris-moi* is *écris*, and *écrivez*."""
    command = _COMMANDS.get(pieces[0].text)
    if not command:
        return pieces
    rest = pieces[1:]
    return [*_pieces((command,)), *(rest[1:] if rest and rest[0].text in _FOR_ONESELF else rest)]


def _without_sie(pieces: list[Piece]) -> list[Piece]:
    """*Erklären Sie mir* is *erkläre mir*."""
    texts = [piece.text for piece in pieces[:3]]
    formal = texts[1:2] == ["sie"] and texts[2:] and texts[2] in _FOR_ME and texts[0].endswith("en")
    return [pieces[0], *pieces[2:]] if formal else pieces


def _clitic(pieces: list[Piece]) -> list[Piece]:
    """*Me puedes explicar* is *puedes explicarme*, and so is *puede explicarme*."""
    texts = [piece.text for piece in pieces[:3]]
    if texts[0] == "me" and len(texts) > 2 and texts[1] in _ABLE and texts[2].endswith("r"):
        return [*_pieces(("puedes", f"{texts[2]}me")), *pieces[3:]]
    if texts[0] in _ABLE and texts[1:] and texts[1].endswith("rme"):
        return [*_pieces(("puedes",)), *pieces[1:]]
    return pieces


def _switched(pieces: list[Piece]) -> list[Piece]:
    """*Mach das Licht aus* is *schalte das Licht aus*; *mach die Tür auf* is not."""
    switching = pieces[0].text in _SWITCHING and len(pieces) > 2 and pieces[-1].text in ("an", "aus")
    return [*_pieces(("schalte",)), *pieces[1:]] if switching else pieces


def _elided(piece: Piece, word: str) -> bool:
    """*m'expliquer*, *l'adresse*."""
    return piece.raw[:2].lower() in (f"{word}'", f"{word}\N{RIGHT SINGLE QUOTATION MARK}")


def _without_politeness(pieces: list[Piece]) -> list[Piece]:
    kept: list[Piece] = []
    index = 0
    while index < len(pieces):
        said = next((phrase for phrase in _POLITE if _stands(phrase, pieces, index)), ())
        if said:
            index += len(said)
            continue
        kept.append(pieces[index])
        index += 1
    return kept or pieces


def _stands(phrase: tuple[str, ...], pieces: Sequence[Piece], index: int) -> bool:
    return pieces[index].text == phrase[0] and tuple(p.text for p in pieces[index : index + len(phrase)]) == phrase


def _digits(piece: Piece) -> Piece:
    value = _NUMBERS.get(piece.text)
    return Piece(value, piece.raw, word=False) if value and not piece.proper else piece


def _pieces(texts: Sequence[str]) -> list[Piece]:
    return [Piece(text, text) for text in texts]
