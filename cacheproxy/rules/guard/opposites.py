"""Pairs of words that turn a question into another one when one replaces the other. Data, and the table made of it.

`ORDERING` holds comparisons, extremes, sides and times; `CONTRARY` holds states and actions. In `GRADED` stand the
contrary adjectives for which *more* of one is *less* of the other, so that two opposites cancel out.
"""

from __future__ import annotations

from functools import lru_cache

from cacheproxy.rules.guard.lists import groups
from cacheproxy.rules.guard.stems import base_form, stem

_ORDERING = """
more less; more fewer; most least; most fewest; best worst; better worse; good bad; good poor; great terrible;
highest lowest; high low; higher lower; largest smallest; large small; big small; big little; biggest smallest;
larger smaller; longest shortest; long short; tallest shortest; tall short; oldest youngest; oldest newest; old young;
old new; fastest slowest; fast slow; quick slow; early late; earliest latest; first last; next previous; next last;
upper lower; up down; top bottom; above below; over under; before after; minimum maximum; min max; minimal maximal;
lower-bound upper-bound; inside outside; in out; into out; front back; north south; east west; northern southern;
eastern western; northeast southwest; northwest southeast; left right; near far; nearest farthest; nearest furthest;
closest farthest; closest furthest; strong weak; strongest weakest; heavy light; heaviest lightest; hot cold;
hottest coldest; warm cool; wide narrow; widest narrowest; thick thin; deep shallow; deepest shallowest; rich poor;
richest poorest; cheap expensive; cheapest priciest; hard easy; difficult easy; difficult simple; hard soft;
easy tough; increase decrease; increase reduce; increase lower; raise lower; grow shrink; rise fall; gain lose;
ascend descend; ascending descending; ancestor descendant; majority minority; superior inferior; senior junior;
plus minus; add subtract; multiply divide; double halve; positive negative; begin end; start end; beginning end;
forward backward; forwards backwards; horizontal vertical; row column; ahead behind; prefix suffix; past future;
ancient modern; import export; upload download; upgrade downgrade; push pull; send receive; buy sell; lend borrow;
borrow loan; give receive; give take; win lose; earn spend; deposit withdraw; credit debit; arrive depart;
arrival departure; enter leave; enter exit; input output; inbound outbound; incoming outgoing; encode decode;
encrypt decrypt; compress decompress; zip unzip; serialize deserialize; read write; teach learn; employer employee;
teacher student; parent child; buyer seller; landlord tenant; lender borrower; sender receiver; client server;
host guest; predator prey; doctor patient; mother father; brother sister; son daughter; husband wife; male female;
man woman; boy girl; men women; uncle aunt; king queen; niece nephew; actor actress; boyfriend girlfriend;
frequently rarely; often rarely; often seldom; always never; always sometimes; indoors outdoors; indoor outdoor;
internal external; domestic foreign; domestic international; local remote; local global; urban rural; weekday weekend;
day night; morning evening; am pm; sunrise sunset; summer winter; spring autumn; spring fall; yesterday tomorrow;
today tomorrow; today yesterday; singular plural; uppercase lowercase; numerator denominator; profit loss;
supply demand; wholesale retail; gross net; macro micro; prior subsequent; overtake undertake; overweight underweight;
lengthen shorten; widen narrow; expand shrink; expand contract; inflate deflate; accelerate decelerate; speed slow;
attach detach; mount unmount; load unload; pack unpack; connect disconnect; wrap unwrap; fold unfold; outer inner;
login logout; exterior interior; odd even; bull bear; bullish bearish; long-term short-term;
forename surname; hypertension hypotension; affordable expensive; pricey cheap; pricey affordable;
pricey inexpensive; great awful; great horrible; great dreadful; good terrible; good awful; good horrible;
same other; same another; both either; exactly minimum; exactly maximum; exactly above; exactly below; above maximum;
below minimum; higher below; lower above
"""

_CONTRARY = """
enable disable; activate deactivate; on off; open close; open closed; allow block; allow deny; allow forbid;
allow prevent; allow ban; let prevent; let stop; let forbid; let ban; let block; allow stop; enable prevent;
permit prohibit; permit forbid; permit ban; allow prohibit; legal unlawful; lawful illegal; freeze defrost;
optional compulsory; optional obligatory; accept reject; accept refuse; accept decline; approve reject; approve deny;
grant revoke; include exclude; insert delete; add remove; add delete; create delete; create destroy; make break;
build destroy; install uninstall; install remove; start stop; begin stop; start quit; start finish; become stop;
become quit; keep stop; continue stop; resume pause; play pause; pass fail; succeed fail; success failure;
lock unlock; block unblock; mute unmute; hide show; hide unhide; subscribe unsubscribe; follow unfollow; like dislike;
love hate; agree disagree; appear disappear; join leave; hire fire; attack defend; cause cure; cause prevent;
cause treat; hurt heal; harm help; help hinder; save waste; save spend; save delete; keep discard; remember forget;
freeze melt; freeze thaw; boil freeze; live die; alive dead; birth death; born die; kill save; marry divorce;
arrest release; confirm cancel; confirm deny; true false; correct incorrect; right wrong; valid invalid;
legal illegal; safe unsafe; safe dangerous; safe harmful; healthy unhealthy; healthy sick; edible poisonous;
edible inedible; toxic harmless; beneficial harmful; useful useless; possible impossible; necessary unnecessary;
optional mandatory; optional required; present absent; visible hidden; public private; free paid; guilty innocent;
single married; pregnant barren; wet dry; clean dirty; fresh stale; full empty; raw cooked; sharp blunt; rough smooth;
tight loose; loud quiet; loud silent; bright dark; light dark; black white; online offline; static dynamic;
mutable immutable; synchronous asynchronous; sync async; serial parallel; analog digital; manual automatic;
temporary permanent; virtual physical; theoretical practical; pro con; pros cons; advantage disadvantage;
benefit drawback; benefit risk; benefit harm; strength weakness; advantage drawback; profit loss; asset liability;
ally enemy; friend enemy; hero villain; victim criminal; plaintiff defendant; question answer; problem solution;
bacterial viral; acid base; acidic alkaline; proton electron; anode cathode; vegan carnivore; herbivore carnivore;
reptile mammal; renewable fossil; conductor insulator; soluble insoluble; finite infinite; abstract concrete;
ceiling floor; sweet sour; sweet bitter; introvert extrovert; liberal conservative; left-wing right-wing; war peace;
heaven hell; arrive leave; come leave; reach leave; mine yours; civilian military; amateur professional;
beginner expert; beginner advanced;
novice expert; truth lie; ally rival; wake sleep; sit stand; laugh cry; smile frown; debit credit;
vertical horizontal; authenticate deny; compliment insult; praise criticize; promote demote; reward punish;
reveal conceal; tense relax; ask answer; sink float; rent own; rent buy; invest divest; inhale exhale; lead follow;
strengthen weaken; improve worsen; improve ruin; encourage discourage; build demolish; assemble disassemble;
except only; with without; stain bleach; wear remove;
keep drop; keep delete; keep remove; keep toss; keep sell; keep lose; keep dump; retain discard; retain drop;
clean filthy; love detest; love loathe; like hate; like detest; expert newbie; genuine fake; authentic fake;
genuine counterfeit; authentic counterfeit; voluntary compulsory; voluntary mandatory; voluntary obligatory;
healthy ill; healthy unwell; let prohibit; allow halt; let halt; enable halt; keep halt; share own; share each;
share separate; common separate; joint separate
"""

_GRADED = """
correct incorrect; correct wrong; right wrong; true false; valid invalid; possible impossible; safe unsafe;
safe dangerous; legal illegal; necessary unnecessary; edible inedible; normal abnormal; real fake; open closed;
alive dead; happy sad; happy unhappy; happy miserable; optimistic pessimistic; positive negative; rude polite;
stupid smart; stupid intelligent; smart dumb; active passive; patient impatient; powerful powerless;
visible invisible; fat thin; bad good; cautious brave; hopeful hopeless; secure insecure; humble proud;
humble arrogant; dependent independent; responsible irresponsible; courageous fearful; courageous cowardly;
brave cowardly; brave fearful; defensive offensive; progressive conservative; religious secular; religious atheist;
confident insecure; confident shy; outgoing shy; generous selfish; generous greedy; generous stingy; kind cruel;
kind mean; honest dishonest; honest deceitful; lazy diligent; lazy productive; lazy hardworking;
organized disorganized; organized messy; tidy messy; calm nervous; calm anxious; relaxed stressed; relaxed tense;
friendly hostile; friendly unfriendly; mature immature; mature childish; tolerant intolerant; strong weak; rich poor;
wealthy poor; healthy unhealthy; attractive unattractive; attractive ugly; beautiful ugly; popular unpopular;
famous unknown; interesting boring; interested bored; creative unimaginative; efficient inefficient;
effective ineffective; productive unproductive; careful careless; careful reckless; useful useless; flexible rigid;
strict lenient; serious playful; noisy quiet; talkative quiet; fair unfair; loyal disloyal; successful unsuccessful;
rational irrational; emotional rational; awake asleep; hungry full; sober drunk; passionate indifferent;
trustworthy untrustworthy; moral immoral; angry calm; grateful ungrateful; violent peaceful; liberal conservative;
ambitious unambitious; aggressive gentle; aggressive passive; expensive cheap; difficult easy; fast slow; big small;
tall short; old young; hot cold; dangerous safe; complex simple; complicated simple; modern traditional
"""

NEGATIVE_PREFIXES = ("un", "in", "im", "ir", "il", "dis", "non", "de", "des", "mis", "anti", "dé", "dés", "desa")
"""Prefixes that turn a word into its contrary, the Romance ones included."""


def _pairs(text: str) -> set[frozenset[str]]:
    return {frozenset(stem(word) for word in pair) for pair in groups(text)}


GRADED = _pairs(_GRADED)
ORDERING = _pairs(_ORDERING)
CONTRARY = _pairs(_CONTRARY) | (GRADED - ORDERING)
_ANY = ORDERING | CONTRARY
_HAVE_OPPOSITE = frozenset(word for pair in _ANY for word in pair)


@lru_cache(maxsize=16384)
def opposition(one: str, other: str) -> str:
    """How two stems oppose each other: `ordering`, `contrary`, or empty when they do not."""
    if one == other:
        return ""
    if _negates(one, other) or _negates(other, one):
        return "contrary"
    for left, right in ((one, other), (base_form(one), base_form(other))):
        if left in _HAVE_OPPOSITE and right in _HAVE_OPPOSITE:
            pair = frozenset((left, right))
            if pair in ORDERING:
                return "ordering"
            if pair in CONTRARY:
                return "contrary"
    return ""


def graded(one: str, other: str) -> bool:
    """True for opposite adjectives on one scale (`optimistic`, `pessimistic`)."""
    return frozenset((one, other)) in GRADED or _negates(one, other) or _negates(other, one)


def _negates(word: str, other: str) -> bool:
    if len(word) > len(other) >= 3 and word.endswith(other):
        return word[: len(word) - len(other)].rstrip("-") in NEGATIVE_PREFIXES
    if word.endswith("less") and other.endswith("ful"):
        return word[:-4] == other[:-3]
    return False
