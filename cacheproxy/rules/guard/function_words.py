"""Closed classes of English: the words that carry the shape of a question, not its subject.

Data only. Words stand in lower case, as they are after contractions were spelled out (`can't` is `can not`).
"""

from __future__ import annotations

from cacheproxy.rules.guard.lists import words

ARTICLES = words("a an the")

FUNCTION_WORDS = ARTICLES | words(
    """i me my mine myself you your yours yourself u ur we us our ours ourselves it its itself they them their theirs
    themselves he him his himself she her hers herself this that these those there here one ones someone somebody
    anyone anybody everyone everybody people person am is are was were be been being do does did done doing have has
    had having will would shall should can could may might must of in on at to for from by with as into onto about
    than then and or but if so because while during over under through via within upon toward towards against per
    off out up down what which who whom whose when where why how whether not no nor any some all each every both
    either neither such same also too very much many more most less least few only just even still yet already ever
    never always often sometimes again once s t else etc vs versus between among across along around without before
    after above below since until till unless though although however therefore hence thus other another others own"""
)
"""Words whose presence or absence alone never changes what is asked; the guards for scope, tense, negation and
direction look at those of them that can."""

LIGHT_WORDS = words(
    """please pls kindly thanks thank thx hello hi hey dear sir madam sorry tell show give share provide let know want
    wanna wish need like love wonder curious question answer help explain describe define definition mean meaning
    concept term way method approach step tip idea suggestion advice thing stuff kind type sort example instance
    actually really basically exactly simply truly literally currently seriously honestly now nowadays presently
    today's quite pretty rather maybe perhaps possible possibly able proper properly correct correctly right good
    great nice best better top well get got go going take make use using come put keep try start work happen feel
    look see seem say think believe consider suppose find list name various different certain particular main major
    basic effective effectively ideal suitable recommend suggest available exist anyway okay ok so-called go-to lot
    lots plenty bit piece part"""
)
"""Filler, politeness and verbs so general that a rewording adds or drops them freely. They still count where one of
them is swapped for its opposite (`best`, `worst`)."""

QUESTION_WORDS = words("what which who whom whose when where why how")

PASSIVE_BE = words("is are was were be been being got get gets")
"""Helping verbs of the passive."""
NEGATORS = words(
    """not no never without nor neither none nobody nothing nowhere cannot hardly barely unless
    pas jamais aucun aucune nicht kein keine keinen nie niet geen nao"""
)
"""Of English, and the commonest of French, German, Polish, Dutch and Portuguese that mean nothing in English."""

DEGREE = words("more less fewer most least")
WEIGHED = DEGREE | words(
    """before after above below up down on off in into out minimum maximum many few over under with without same other
    another both either own each"""
)
"""Function words whose opposites mean opposition wherever they stand."""

DIRECTIONAL = words(
    """from to into onto than by over against toward towards before after above below under behind via through upon
    without until"""
)
"""Prepositions that give what follows them a role: moved to the other thing, they turn the question round."""

PREPOSITIONS = DIRECTIONAL | words("of in on at for with about as per between among within during across")

SYMMETRIC = words(
    """vs versus between differ differs difference differences different compare compared comparing comparison similar
    similarity similarities identical equivalent marry married marriage engaged dating friends related sibling siblings
    cousin cousins twins roommates neighbours neighbors border adjacent distance compatible collaborate collaborating
    meet met mix mixed combine combined alike correlation divorced colleagues classmates contrast distinguish
    distinction"""
)
"""Words for what does not care which of its two sides is named first; as written, since a *date* is no *dating*."""

GENDERED = {"he": "he", "him": "he", "his": "he", "himself": "he", "she": "she", "her": "she", "hers": "she"}
GENDERED["herself"] = "she"

CONTRACTIONS = {
    "can't": "can not", "cant": "can not", "cannot": "can not", "won't": "will not", "wont": "will not",
    "shan't": "shall not", "ain't": "is not", "dont": "do not", "doesnt": "does not", "didnt": "did not",
    "isnt": "is not", "arent": "are not", "wasnt": "was not", "werent": "were not", "couldnt": "could not",
    "shouldnt": "should not", "wouldnt": "would not", "hasnt": "has not", "havent": "have not", "let's": "let us",
    "i'm": "i am", "im": "i am", "whats": "what is", "gonna": "going to", "wanna": "want to", "gotta": "must",
    "'til": "until", "y'all": "you all", "ive": "i have", "hows": "how is", "wheres": "where is",
}  # fmt: skip

ENDINGS = {"'re": "are", "'ll": "will", "'ve": "have", "'d": "would", "'m": "am"}

IS_AFTER = QUESTION_WORDS | words("it that there here he she this everything something nothing")
"""Words after which `'s` is *is*; after all others it is the genitive and says nothing."""

PHRASES: dict[tuple[str, ...], str] = {
    tuple(line.split("=")[0].split()): line.split("=")[1].strip()
    for line in """
    sign up = register
    set up = setup
    web site = website
    web sites = websites
    web page = webpage
    shut down = shutdown
    back up = backup
    get rid of = remove
    how come = why
    no longer = not
    no more than = maximum
    at least = minimum
    at most = maximum
    more than = above
    greater than = above
    less than = below
    fewer than = below
    higher than = above
    lower than = below
    have to = must
    has to = must
    had to = must
    need to = must
    needs to = must
    able to = can
    allowed to = may
    use to = formerly
    used to be = formerly
    i used to = formerly
    you used to = formerly
    he used to = formerly
    she used to = formerly
    it used to = formerly
    we used to = formerly
    they used to = formerly
    people used to = formerly
    there used to = formerly
    every other = everyother
    every second = everyother
    other than = except
    apart from = except
    aside from = except
    except for = except
    instead of = instead
    rather than = instead
    whether or not = whether
    or not = whether
    as well as = and
    along with = with
    united states of america = usa
    united states = usa
    the us = usa
    in us = usa
    united kingdom = uk
    great britain = uk
    new york city = nyc
    los angeles = la
    european union = eu
    united nations = un
    per cent = percent
    a lot of = many
    due to = because
    because of = because
    give up = quit
    turn into = become
    turned into = become
    turns into = become
    rid myself of = remove
    rid yourself of = remove
    find out = discover
    carry out = perform
    look for = seek
    put on = wear
    take off = remove
    took off = remove
    taking off = remove
    according to = opinion
    in my opinion = opinion
    ok to = may
    in favor of = supporting
    in favour of = supporting
    in support of = supporting
    in opposition to = opposing
    get home = arrive
    gets home = arrive
    getting home = arrive
    got home = arrive
    step by step = stepwise
    layman terms = simply
    laymans terms = simply
    layman language = simply
    simple terms = simply
    simple words = simply
    simple language = simply
    """.strip().splitlines()
}
"""Several words that act as one. Longer phrases win."""

PARTICLES = words("on off in out up down away")
_PARTICLE_VERBS = """
turn turns turned turning: on enable, off disable, up increase, down decrease
switch switches switched switching: on enable, off disable
flip flips flipped flipping: on enable, off disable
power powers powered powering: on enable, off disable
toggle toggles toggled toggling: on enable, off disable
dial dials dialed dialing: up increase, down decrease
log logs logged logging: in login, out logout, off logout
sign signs signed signing: in login, out logout, off logout
zoom zooms zoomed zooming: in magnify, out demagnify
opt opts opted opting: in accept, out decline
breathe breathes breathed breathing: in inhale, out exhale
throw throws threw thrown throwing: away discard, out discard
toss tosses tossed tossing: away discard, out discard
round rounds rounded rounding: up ceil, down floor, off round
pick picks picked picking: up collect
drop drops dropped dropping: off deliver
"""
"""Verbs whose particles make another verb of them, mostly one of two opposites, in all their forms, and what verb and
particle mean together."""
PHRASES |= {
    (verb, particle): meaning
    for verbs, meanings in (line.split(":") for line in _PARTICLE_VERBS.strip().splitlines())
    for particle, meaning in (pair.split() for pair in meanings.split(","))
    for verb in verbs.split()
}
CLAUSE_STARTS = words(
    """in on at for from with to by when if and or but while before after during until so because then without using via
    through again"""
)
"""Words with which something new begins: what stands before them is all there is of a verb's object."""

PHRASE_STARTS = frozenset(phrase[0] for phrase in PHRASES)

LATIN_STOPWORDS = {
    "en": words("the is are was what how do does i my of to in and for with a it you can who why when which"),
    "es": words("el la los las de que cómo como es en un una por para mi con cuál qué dónde se del y está"),
    "fr": words("le la les des de que comment est en un une pour mon ma avec quel quelle où du et je sont dans"),
    "de": words("der die das ist wie ich ein eine und zu mein meine mit was wer wo von für den dem nicht sind"),
    "it": words("il lo la gli le di che come è un una per mio mia con qual dove del e sono nel quali si"),
    "pt": words("o a os as de que como é em um uma por para meu minha com qual onde do da e são não"),
    "nl": words("de het een is hoe ik mijn van en te met wat wie waar voor niet zijn op naar"),
}
"""The commonest words of the Latin-script languages that Ollama's models are mostly asked in."""
