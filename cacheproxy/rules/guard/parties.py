"""Who does it and to whom, where one of the two is a pronoun: *can I sue my boss* is not *can my boss sue me*.

English marks the roles of *I* and *me* by their form, so a verb with *I* before it and the same verb with *me* after
it are different deeds. What helps the caller (*tell me how I …*), the passive (*was I charged*) and verbs that say
little (*get me*) prove nothing. A pronoun against a noun is weighed only where the verb has an object in both texts:
*my car won't start* and *I can't start my car* are one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

from cacheproxy.rules.guard.doers import participle
from cacheproxy.rules.guard.function_words import ARTICLES, PREPOSITIONS, QUESTION_WORDS
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import Change, Pair
from cacheproxy.rules.guard.reading import READINGS_MAX, Kind, Reading, Token
from cacheproxy.rules.guard.stems import stems

_SUBJECTS = {"i": "i", "we": "we", "he": "he", "she": "she", "they": "they"}
"""Forms of the one who acts, by person."""
_OBJECTS = {"me": "i", "us": "we", "him": "he", "her": "she", "them": "they"}
"""Forms of the one to whom it is done. *You* has one form for both."""
_PERSONS = _SUBJECTS | _OBJECTS
_OWNERS = words("my our your his her their its")
_DETERMINERS = ARTICLES | _OWNERS | words("this that these those")
_BETWEEN = _DETERMINERS | words("to in at on")
"""What may stand between a verb and a preposition with its object (`speak to the bank for me`)."""
_BE = words("is are am was were be been being")
_GET = words("get gets got getting gotten")
_HELPERS = _BE | words(
    """do does did have has had having will would shall should can could may might must not never ever always often
    still just even only also already again formerly really actually currently"""
)
"""What may stand between a subject and its verb."""
_MODALS = words("will would shall should can could may might must do does did")
_CAUSING = words("let lets help helps helped make makes made see saw hear heard watch watched")
"""Verbs after which the object does what follows (`help me sue`)."""
_SAYING_LITTLE = stems("wake get make take find cost need mean happen come go be do have like")
"""Verbs of which either side may be the subject (`where do I get`, `who gets me`)."""
_BESIDE = words("with without than like between beside near")
"""Prepositions that give no role: *he travels with me* is *I travel with him*."""
_WITH_ROLE = stems("share angry mad upset annoyed furious disappointed unhappy cheat flirt")
"""Words after which *with* names the one to whom it is done."""
_TOWARDS = words("for to of")
"""Prepositions after which a verb or adjective has its object (`liable for`, `pay for`)."""
_ROUND = words("with on in at through via using from by for of into onto inside within per during")
"""Prepositions after which a noun may be what the verb's deed is done by (`I print it with my printer`)."""
_CLAUSES = QUESTION_WORDS | words("if that because while and or but so than until before after since although")
_ADDRESSED = words("you please kindly and then so just")
_CALLERS = words("i we")
_FIRST = words("my our me us")
PARTIES = stems(
    """airline bank landlord landlady tenant lodger owner employer employee boss manager supervisor company firm store
    shop seller buyer customer client vendor supplier contractor hotel host guest police officer court judge lawyer
    attorney doctor dentist nurse surgeon hospital school teacher professor student pupil university college wife
    husband spouse partner girlfriend boyfriend friend mother father mom mum dad parent son daughter child kid brother
    sister uncle aunt cousin neighbour neighbor roommate flatmate colleague coworker government state council city
    insurer insurance agency agent broker lender borrower creditor debtor hacker thief driver passenger carrier courier
    postman dealer provider recruiter union ex dog cat actor actress director singer waiter waitress king queen man
    woman boy girl captain coach player detective collector reseller intern trainee volunteer"""
)
"""Nouns for those who act of their own will."""
_REACH_MAX = 8
"""Tokens over which a verb is joined to a pronoun or its object."""


@dataclass(frozen=True, slots=True)
class _Act:
    """A pronoun beside a verb."""

    person: str
    verb: int
    """Place of the verb."""
    passive: bool = False


@dataclass(frozen=True, slots=True)
class _Roles:
    """What a text says of its pronouns."""

    acting: tuple[_Act, ...]
    suffering: tuple[_Act, ...]


def parties_exchanged(pair: Pair) -> bool:
    """A pronoun and another party changed places round a verb, or one who acts took the place of *I*."""
    for one, other in ((pair.a, pair.b), (pair.b, pair.a)):
        if _done_to_doer(one, other) or _other_doer(one, other):
            return True
    if _doers_crossed(pair.a, pair.b):
        return True
    if not pair.framed or _CALLERS.isdisjoint(pair.a.texts | pair.b.texts):
        return False
    return any(_in_place_of_caller(change, pair) for change in pair.changes)


@lru_cache(maxsize=READINGS_MAX)
def _roles(reading: Reading) -> _Roles:
    tokens = reading.tokens
    acting: list[_Act] = []
    suffering: list[_Act] = []
    for at, token in enumerate(tokens):
        if token.kind is not Kind.FUNCTION:
            continue
        if at > 1 and tokens[at - 1].text == "than" and token.text in _PERSONS:
            suffering.append(_Act(_PERSONS[token.text], at - 2))
        elif token.text in _SUBJECTS:
            acting.extend(_acts(tokens, at, _SUBJECTS[token.text]))
        elif token.text in _OBJECTS and not _owns(tokens, at):
            person = _OBJECTS[token.text]
            if tokens[at - 1].text == "by" and at > 1:
                acting.append(_Act(person, at - 2))
                continue
            suffering.extend(_Act(person, verb) for verb in _verbs_before(tokens, at))
            acting.extend(_Act(person, verb) for verb in _verbs_caused(tokens, at))
    return _Roles(tuple(acting), tuple(suffering))


def _owns(tokens: Sequence[Token], at: int) -> bool:
    """*Her* with a thing after it."""
    return tokens[at].text == "her" and at + 1 < len(tokens) and tokens[at + 1].kind is not Kind.FUNCTION


def _acts(tokens: Sequence[Token], at: int, person: str) -> Iterator[_Act]:
    """The verbs of the subject at a place, with those that follow by *to* (`I want to sue`)."""
    passive = at > 0 and tokens[at - 1].text in _BE
    place = at + 1
    while place < min(at + _REACH_MAX, len(tokens)):
        token = tokens[place]
        following = tokens[place + 1] if place + 1 < len(tokens) else None
        if token.text in _MODALS:
            passive = False
        elif token.text in _HELPERS or (token.text in _GET and following is not None and participle(following)):
            passive = passive or token.text in _BE or token.text in _GET
        elif token.kind is Kind.FUNCTION or token.valued:
            return
        elif not token.text.endswith("ly"):
            yield _Act(person, place, passive and participle(token))
            if following is None or following.text != "to":
                return
            passive, place = False, place + 1
        place += 1


def _verbs_before(tokens: Sequence[Token], at: int) -> Iterator[int]:
    """What stands before an object: its verb, or all that a preposition may join it to (`send the bill to me`)."""
    if at and tokens[at - 1].kind in (Kind.WORD, Kind.LIGHT):
        yield at - 1
    if not at or tokens[at - 1].text not in PREPOSITIONS:
        return
    if tokens[at - 1].text in _BESIDE and (at < 2 or tokens[at - 2].form not in _WITH_ROLE):
        return
    for place in range(at - 2, max(at - _REACH_MAX, -1), -1):
        if tokens[place].kind in (Kind.WORD, Kind.LIGHT):
            yield place
        elif tokens[place].text not in _BETWEEN and not tokens[place].valued:
            return


def _verbs_caused(tokens: Sequence[Token], at: int) -> Iterator[int]:
    """What the one named as an object does itself (`want me to sue`, `help me sue`)."""
    after = [token.text for token in tokens[at + 1 : at + 3]]
    if len(after) == 2 and after[0] == "to":
        yield at + 2
    elif after and at and tokens[at - 1].text in _CAUSING and tokens[at + 1].kind is not Kind.FUNCTION:
        yield at + 1


def _done_to_doer(one: Reading, other: Reading) -> bool:
    """Somebody does in one text what is done to him in the other."""
    doing, done = _deeds(one, acting=True), _deeds(other, acting=True)
    suffering, suffered = _deeds(one, acting=False), _deeds(other, acting=False)
    return any(
        deed[1] not in _SAYING_LITTLE and not (_asked_of_reader(other, *deed) and "you" not in one.texts)
        for deed in doing.keys() & suffered.keys()
        if doing[deed] > done[deed] and suffered[deed] > suffering[deed]
    )


@lru_cache(maxsize=2 * READINGS_MAX)
def _deeds(reading: Reading, *, acting: bool) -> Counter[tuple[str, str]]:
    """How often persons are the subject of verbs, or else the object; the passive counts as that."""
    roles = _roles(reading)
    acts = [act for act in roles.acting if act.passive is not acting]
    acts = acts if acting else [*acts, *roles.suffering]
    return Counter((act.person, reading.tokens[act.verb].form) for act in acts)


def _asked_of_reader(reading: Reading, person: str, verb: str) -> bool:
    """*Show me* and *can you show me*: the one addressed does it, for the caller."""
    return any(
        act.person == person
        and reading.tokens[act.verb].form == verb
        and (not act.verb or reading.tokens[act.verb - 1].text in _ADDRESSED)
        for act in _roles(reading).suffering
    )


def _other_doer(one: Reading, other: Reading) -> bool:
    """A pronoun does it to what belongs to a party that in the other text does it (`I hit my neighbour's car`)."""
    exchanged = _done_by_pronouns(one) & _done_by_nouns(other)
    return bool(exchanged - _done_by_nouns(one) - _done_by_pronouns(other))


@lru_cache(maxsize=READINGS_MAX)
def _done_by_pronouns(reading: Reading) -> frozenset[tuple[str, str, str]]:
    """Verbs of which a pronoun is the subject, each with how its object is joined and every thing in that."""
    tokens = reading.tokens
    return frozenset(
        (tokens[act.verb].form, joint, thing)
        for act in _roles(reading).acting
        if tokens[act.verb].form not in _SAYING_LITTLE
        and (joint := _joint(tokens, act.verb)) is not None
        and not (act.passive and not joint)
        for thing in objects(tokens, act.verb + bool(joint))
    )


@lru_cache(maxsize=READINGS_MAX)
def _done_by_nouns(reading: Reading) -> frozenset[tuple[str, str, str]]:
    """Verbs that have an object, with how it is joined and the noun that is their subject."""
    tokens = reading.tokens
    return frozenset(
        (tokens[verb].form, joint, noun)
        for verb, noun in _noun_subjects(tokens)
        if (joint := _joint(tokens, verb)) is not None
    )


def _joint(tokens: Sequence[Token], verb: int) -> str | None:
    """The preposition that joins an object to its verb, an empty text for none; None where there is no object."""
    if verb + 2 < len(tokens) and tokens[verb + 1].text in _TOWARDS:
        return tokens[verb + 1].text
    return "" if _has_object(tokens, verb) else None


def _noun_subjects(tokens: Sequence[Token]) -> Iterator[tuple[int, str]]:
    """Places where a verb may stand, each with the noun before it."""
    for at in range(1, len(tokens)):
        if tokens[at].kind is Kind.FUNCTION:
            continue
        doer = _skip_helpers(tokens, at - 1)
        helped = any(between.text in _BE for between in tokens[doer + 1 : at])
        passive = helped and participle(tokens[at]) and tokens[at + 1 : at + 2] and tokens[at + 1].text not in _TOWARDS
        if doer >= 0 and tokens[doer].kind is Kind.WORD and not passive and _determined(tokens, doer):
            yield at, tokens[doer].form


def _doers_crossed(one: Reading, other: Reading) -> bool:
    """Each of two does what the other one does in the other text (`do you know that I …`, `do I know that you …`)."""
    here, there = _doers(one), _doers(other)
    successors: dict[str, set[str]] = {}
    for doer, verb in there - here:
        successors.setdefault(verb, set()).add(doer)
    taken = {(doer, successor) for doer, verb in here - there for successor in successors.get(verb, ())}
    return any((other_doer, doer) in taken for doer, other_doer in taken)


@lru_cache(maxsize=READINGS_MAX)
def _doers(reading: Reading) -> frozenset[tuple[str, str]]:
    """Pronouns and nouns with the verbs of which they are the subject; empty for a text without such a pronoun."""
    acting = {(act.person, reading.tokens[act.verb].form) for act in _roles(reading).acting if not act.passive}
    if not acting:
        return frozenset()
    return frozenset(acting.union((noun, reading.tokens[at].form) for at, noun in _noun_subjects(reading.tokens)))


def _skip_helpers(tokens: Sequence[Token], place: int) -> int:
    """The place of the first word before helping verbs, looking back; -1 when none is near."""
    first = max(-1, place - _REACH_MAX)
    while place > first and tokens[place].text in _HELPERS:
        place -= 1
    return place if place > first else -1


def _determined(tokens: Sequence[Token], at: int) -> bool:
    """A noun with an article or an owner before it, or a name."""
    before = [token.text for token in tokens[max(0, at - 2) : at]]
    named = tokens[at].proper and (not at or tokens[at - 1].kind is Kind.FUNCTION)
    return named or not _DETERMINERS.isdisjoint(before)


def _has_object(tokens: Sequence[Token], verb: int) -> bool:
    if verb + 1 >= len(tokens):
        return False
    after = tokens[verb + 1]
    if after.text.endswith("ing"):
        return False  # what is done, not to whom (`stop barking`)
    return after.kind is Kind.WORD or after.valued or after.text in _DETERMINERS or after.text in _OBJECTS


def objects(tokens: Sequence[Token], verb: int) -> set[str]:
    """Words after a verb, in its clause, that are no means or place of the deed."""
    found = set()
    governed = False
    for token in tokens[verb + 1 : verb + 1 + _REACH_MAX]:
        if token.text in _CLAUSES or token.text in _SUBJECTS:
            break
        if token.text in PREPOSITIONS or token.text in _ROUND:
            governed = token.text in _ROUND
        elif token.kind is Kind.WORD and not governed:
            found.add(token.form)
    return found


def _in_place_of_caller(change: Change, pair: Pair) -> bool:
    """*The airline* stands where the other has *I*, before a verb with something of theirs after it."""
    for caller, party, reading in ((change.left, change.right, pair.b), (change.right, change.left, pair.a)):
        if len(caller) != 1 or caller[0].text not in _CALLERS or len(party) < 2:
            continue
        if party[0].text not in _DETERMINERS or party[-1].form not in PARTIES:
            continue
        at = reading.place(party[-1])
        after = [token.text for token in reading.tokens[at + 1 : at + _REACH_MAX]]
        clause = list(takewhile(lambda text: text not in _CLAUSES and text not in _SUBJECTS, after))
        if clause and clause[0] not in _HELPERS and not (_FIRST | _OWNERS).isdisjoint(clause[1:]):
            return True
    return False
