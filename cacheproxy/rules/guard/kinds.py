"""Things of one kind: when one member of a group stands where another stood, something else was asked.

Data, and the table made of it. Kinds matter most in sentences that were rearranged, where position proves nothing;
in an unchanged sentence any two words that are not known to mean the same are different already.
"""

from __future__ import annotations

from collections.abc import Iterable

from cacheproxy.rules.guard.lists import groups, words
from cacheproxy.rules.guard.stems import stem

LANGUAGES = words(
    """english spanish french german italian portuguese dutch russian chinese mandarin cantonese japanese korean arabic
    hindi bengali urdu punjabi turkish polish czech slovak hungarian romanian bulgarian greek hebrew swedish
    norwegian danish finnish icelandic estonian latvian lithuanian ukrainian serbian croatian slovenian bosnian
    albanian catalan basque galician irish welsh scottish latin esperanto persian farsi vietnamese thai indonesian
    malay tagalog filipino swahili zulu afrikaans amharic yoruba hausa tamil telugu marathi gujarati kannada
    malayalam nepali sinhala burmese khmer lao mongolian tibetan kazakh uzbek georgian armenian azerbaijani deutsch
    español français italiano nederlands português polski svenska"""
)

FORMATS = words(
    """json yaml xml csv tsv html markdown latex toml plaintext prose table bullet bulleted numbered paragraph sentence
    haiku poem sonnet limerick essay email tweet outline flowchart diagram pseudocode regex oneliner one-liner emoji
    stepwise brief briefly concise concisely detail detailed details thorough thoroughly elaborate lengthy summary
    summarize summarise tldr bullets simply eli5 formal informal uppercase lowercase verbose comprehensive rhyme
    one-word"""
)
"""Words that ask for a shape of the answer."""

_KINDS = """
cat dog horse cow pig goat sheep rabbit hamster fish bird parrot snake lizard turtle tortoise frog mouse rat guinea
  ferret duck chicken goose lion tiger bear wolf fox elephant monkey whale dolphin shark spider ant bee insect puppy
  kitten cheetah giraffe camel donkey deer eagle owl crocodile;
apple banana orange grape lemon lime mango pineapple strawberry blueberry cherry peach pear plum melon watermelon
  avocado tomato potato carrot onion garlic broccoli spinach cabbage lettuce cucumber pepper corn bean pea rice bread
  pasta cheese butter egg beef pork lamb bacon honey sugar salt chocolate nut almond peanut tofu yogurt chickpea
  lentil oat wheat;
water milk coffee tea juice beer wine vodka whisky cola lemonade;
red blue green yellow orange purple pink brown black white grey gray cyan magenta turquoise beige;
head neck back shoulder arm elbow wrist hand finger thumb chest stomach hip leg knee ankle foot toe eye ear nose mouth
  tooth tongue throat heart lung liver kidney brain skin bone;
monday tuesday wednesday thursday friday saturday sunday;
january february march april june july august september october november december;
second minute hour day week month quarter year annual decade century;
inch foot yard mile centimeter meter metre kilometer millimeter;
ounce pound kilogram gram ton tonne stone;
liter litre milliliter gallon pint quart cup tablespoon teaspoon;
celsius fahrenheit kelvin;
dollar euro pound yen yuan rupee franc ruble peso won lira dirham;
bitcoin ethereum dogecoin litecoin;
mother father sister brother son daughter uncle aunt cousin grandmother grandfather wife husband niece nephew grandson
  girlfriend boyfriend;
football soccer basketball baseball tennis golf hockey rugby cricket volleyball badminton boxing swimming chess;
guitar piano violin drum flute trumpet cello saxophone harp ukulele;
engineer teacher nurse doctor lawyer accountant architect actor actress artist author writer editor journalist
  photographer politician scientist chef pilot plumber electrician carpenter painter musician singer dancer dentist
  pharmacist veterinarian farmer waiter cashier secretary manager consultant analyst programmer developer designer
  economist historian psychologist investigator auditor adviser advisor assistant administrator organizer educator
  academic executive agent attorney banker broker clerk intern professor;
python java javascript typescript ruby rust go golang php perl swift kotlin scala haskell c++ c# matlab julia lua bash
  fortran cobol elixir;
react angular vue svelte django flask fastapi rails spring laravel express;
mysql postgresql sqlite mongodb redis oracle mariadb cassandra elasticsearch;
windows linux macos ubuntu debian fedora android ios;
pytest unittest jest mocha junit;
aws azure gcp heroku;
docker kubernetes podman terraform ansible;
pdf word excel powerpoint docx xlsx png jpg jpeg gif svg mp3 mp4 wav;
stack queue list tuple set dict dictionary array heap tree graph string integer float boolean;
tcp udp http https ftp ssh smtp imap dns dhcp;
hydrogen helium lithium carbon nitrogen oxygen fluorine neon sodium magnesium aluminium silicon phosphorus sulfur
  chlorine argon potassium calcium iron cobalt nickel copper zinc silver tin iodine gold platinum mercury lead uranium
  titanium;
mercury venus earth mars jupiter saturn uranus neptune pluto moon sun;
spring summer autumn winter;
breakfast lunch dinner;
aspirin ibuprofen paracetamol acetaminophen naproxen metformin insulin penicillin amoxicillin;
diabetes cancer asthma pneumonia arthritis malaria measles influenza tuberculosis hepatitis anemia migraine;
google amazon microsoft apple facebook meta netflix tesla ibm intel nvidia samsung sony oracle uber airbnb twitter
  instagram whatsapp snapchat tiktok youtube reddit linkedin quora pinterest;
christian muslim jewish hindu buddhist atheist catholic protestant;
math physics chemistry biology history geography economics philosophy psychology literature;
africa europe asia antarctica australia;
wood plastic metal glass leather cotton wool silk steel concrete paper;
capital population currency flag anthem president area
"""


def _table() -> dict[str, frozenset[int]]:
    table: dict[str, frozenset[int]] = {}
    for number, members in enumerate([*groups(_KINDS), sorted(LANGUAGES)]):
        for member in members:
            table[stem(member)] = table.get(stem(member), frozenset()) | {number}
    return table


_KIND_OF = _table()


def kinds(forms: Iterable[str]) -> set[int]:
    """Numbers of the kinds that any of the stems belongs to."""
    return {kind for form in forms for kind in _KIND_OF.get(form, ())}
