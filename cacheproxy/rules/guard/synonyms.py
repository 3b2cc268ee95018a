"""Words that may replace each other in a question without changing its answer. Data, and the table made of it.

A word stands in one group only, and a group is kept narrow: what is missing here costs a hit, what is wrong here
costs a wrong answer.
"""

from __future__ import annotations

from cacheproxy.rules.guard.lists import groups
from cacheproxy.rules.guard.stems import base_form, stem

_GROUPS = """
make produce create generate; write compose draft author; build construct; fix repair resolve solve;
buy purchase acquire; remove delete erase eliminate clear uninstall; cancel terminate; begin start commence;
quit stop cease halt; end finish conclude; increase raise boost gain; decrease reduce lower lessen diminish;
improve enhance better ameliorate; change alter modify switch; find locate situated; seek search;
choose pick select choice; prevent avoid; show display; fetch retrieve; obtain receive; enable activate allow permit;
disable deactivate; use utilize employ; need require necessitate; help assist aid; reply respond; inquire ask;
discover detect identify; compute calculate measure; reverse invert; join merge combine; rename relabel; verify check;
examine inspect; study learn; teach instruct; die decease; hurt injure harm; occur happen; appear emerge;
purpose goal objective aim motive; earn make-money; win prevail; defeat beat; launch release; download get-file;
reset restore; recover regain; lock block; photo picture image photograph pic snapshot; movie film; tv television;
car automobile auto; bike bicycle; phone cellphone smartphone mobile; house home; apartment flat; doctor physician;
lawyer attorney; kid child youngster; mom mother mum; dad father; baby infant; job occupation profession career;
company firm corporation business enterprise; boss supervisor; employee worker staff; salary wage; pay payment;
cost price expense; money cash; tax levy; shop store; customer client; website site webpage; internet web;
computer pc; laptop notebook; program software app application; bug defect; error mistake; problem issue trouble;
password passcode; function method func; folder directory dir; picture-frame frame; country nation; street road;
world globe earth; population inhabitants; war warfare; law legislation statute; president potus; food meal;
dinner supper; soda pop; autumn fall; rubbish garbage trash; sickness illness disease; medicine medication drug;
pain ache; belly stomach tummy; symptom sign; cure remedy; weight mass; height tall; age old;
speed fast quick rapid swift; length long duration; distance far; width wide; depth deep;
size big large huge enormous gigantic; tiny small little; smart intelligent clever bright;
happy joyful glad cheerful joyous; sad unhappy sorrowful; angry furious mad;
scared frightened afraid fearful terrified; brave courageous; famous renowned celebrated well-known popular;
rich wealthy affluent; poor impoverished; beautiful pretty gorgeous; ugly hideous; tired exhausted; humble modest;
grateful thankful; spiritual religious; vocal outspoken; organized organised orderly; polite courteous; rude impolite;
strange weird odd; funny humorous hilarious; boring dull; quiet silent; loud noisy; fat overweight obese;
thin slim skinny; strong powerful; difficult hard tough; easy simple effortless straightforward;
important significant crucial vital; dangerous hazardous unsafe risky; safe secure harmless;
true correct accurate right; wrong incorrect false; whole entire complete; enough sufficient; typical usual;
common frequent; rare uncommon; new recent latest newest; ancient antique; quick-fix workaround;
main primary principal chief; final ultimate; extra additional; difference distinction differ different;
similarity likeness; advantage benefit pro upside; disadvantage drawback con downside; reason cause why;
result outcome consequence; effect impact; influence affect; meaning significance; importance significance-of;
idea notion; plan scheme; method technique procedure; tool utility; guide tutorial; recipe preparation;
picture-show cinema; trip journey travel; vacation holiday; flight flights; luggage baggage; ticket fare;
hotel lodging; map chart; rock stone; woods forest; mount mountain; woman lady female; man guy male; boy lad;
girl lass; wife spouse husband-or-wife; friend buddy pal; enemy foe; hero champion; author writer; painter paint;
inventor invent; founder found establish; singer vocalist; actor performer; movie-star film-star; leader head;
ceo chief-executive; capital capital-city; currency coinage; language tongue; gift present; party celebration;
birthday bday; wedding marriage; exam examination test; school academy; teacher instructor; student pupil;
homework assignment; essay composition; book novel; clothes clothing wear gear outfit apparel attire; chapter section;
article piece; poem verse; song track tune; music tunes; band group; instrument instruments; game match; prize award;
hobby pastime; exercise workout; gym fitness-center; diet regimen; cat feline; dog canine; pet pets; plant vegetation;
begin-with initial; account profile; email mail e-mail; message text sms msg; notification alert;
setting preference option configuration config; settings configure; setup install; backup back-up;
login signin; logout signout; register signup enroll; subscribe subscription; order purchase-order;
refund reimbursement; return giveback; deliver ship delivery shipment shipping; parcel package pkg; bank-card card;
charge fee; transfer wire; decline reject refuse; approve accept; verify-identity authenticate; freeze suspend;
lost missing; stolen theft; broken damaged; arrive come; javascript js; typescript ts; python py; kubernetes k8s;
postgresql postgres; database db; repository repo; environment env; variable var; parameter param; argument arg;
authentication auth; administrator admin; information info; document doc; specification spec; maximum max;
minimum min; approximate approx roughly about; television-set telly; refrigerator fridge; advertisement ad advert;
laboratory lab; mathematics math maths; gymnasium gym-hall; influenza flu; veterinarian vet; temperature temp;
kilometre kilometer; colour color; centre center; favourite favorite fav; organise organize; analyse analyze; grey gray;
fibre fiber; defence defense; offence offense; catalogue catalog; dialogue dialog; mould mold; plough plow;
pyjamas pajamas; jewellery jewelry; yoghurt yogurt; doughnut donut;
theatre theater; licence license; programme program-show; behaviour behavior; usa us america american; france french;
spain spanish; china chinese; netherlands dutch holland; greece greek; switzerland swiss; denmark danish dane;
sweden swedish swede; norway norwegian; finland finnish; poland polish; turkey turkish; ireland irish; wales welsh;
scotland scottish; portugal portuguese; thailand thai; japan japanese; peru peruvian; israel israeli;
pakistan pakistani; iraq iraqi; afghanistan afghan; philippines filipino; uk british britain england-and-wales;
eu european; nyc new-york; ai artificial-intelligence; ml machine-learning; os operating-system; vs versus;
seo search-engine-optimization; hr human-resources; faq questions-and-answers; diy do-it-yourself; asap soon;
percent percentage; afraid-of fear; opinion think; reliable dependable trustworthy; honest truthful sincere;
lazy idle; selfish egoistic; generous giving; kind caring compassionate; confident self-assured assured;
ambitious driven; successful accomplished; attractive good-looking handsome; healthy fit well; productive efficient;
creative imaginative inventive; calm composed serene; patient forbearing; mature grown-up; optimistic hopeful;
pessimistic negative; careful cautious wary; curious inquisitive; friendly amiable; funny witty;
social sociable outgoing; disciplined self-disciplined; flexible adaptable; attentive mindful; active energetic;
passionate enthusiastic; logical rational; stubborn obstinate; jealous envious; nervous anxious;
nearest closest; colleague coworker; crypto cryptocurrency; leave leaves depart; run execute; restart reboot;
gather collect; live reside; notify inform; postpone defer; duplicate copy; eat consume; attempt try; hire recruit;
forbid prohibit ban; illegal unlawful; legal lawful; mandatory compulsory obligatory; faulty defective;
cheap inexpensive affordable; expensive pricey; slow sluggish; annual yearly; daily everyday; complex complicated;
tasty delicious yummy; shy timid; stupid dumb; crazy insane; fake counterfeit; genuine authentic; annoying irritating;
terrible awful horrible dreadful; wonderful amazing fantastic awesome; damp moist; filthy dirty; tidy neat;
beginner newbie novice; applicant candidate; schedule timetable; headquarters hq; coupon voucher; credential creds;
library lib; production prod; nodejs node.js; react reactjs react.js; vue vuejs vue.js; nextjs next.js; mongodb mongo;
perms permission; zipcode postcode; atm cashpoint; pingpong tabletennis; acetaminophen paracetamol;
adrenaline epinephrine; albuterol salbutamol; vaccine jab; vaccinate immunize; pee urinate; sick ill unwell;
defrost thaw; eggplant aubergine; zucchini courgette; chickpea garbanzo; barbecue bbq barbeque; takeaway takeout;
taxi cab; lorry truck; gasoline petrol; abroad overseas; layover stopover; teen teenager; grandma grandmother granny;
grandpa grandfather granddad; husband hubby; cop policeman; firefighter fireman; mailman postman; couch sofa;
curtain drape; toilet loo; basement cellar; attic loft; trousers pants; sweater pullover; purchaser buyer;
lenient permissive; puzzled confused baffled; hate detest loathe; vomit puke; glasses eyeglasses; drowsy sleepy;
hungry famished; thirsty parched; staircase stairs stairway; sunscreen sunblock; diaper nappy; stroller pram pushchair;
pacifier binky;
dictionary dict; integer int; boolean bool; loop iterate;
synchronize sync; virtualenv venv; department dept; government govt; management mgmt; vegetable veggie; video vid;
dormitory dorm; condominium condo; quantity qty; professor prof; university uni; rhinoceros rhino;
hippopotamus hippo
"""

ROOTS: dict[str, str] = {}
for _group in groups(_GROUPS):
    for _word in _group:
        ROOTS.setdefault(stem(_word), stem(_group[0]))
"""Stem to the stem that stands for its group; the first group that names a word keeps it."""


def root(word: str) -> str:
    """What stands for a stem's group of synonyms; the stem itself when it has none. *Biggest* goes with *largest*."""
    if word in ROOTS:
        return ROOTS[word]
    ending = next((ending for ending in ("est", "er") if word.endswith(ending)), "")
    group = ROOTS.get(base_form(word), "") if ending else ""
    return f"{group} {ending}" if group else word
