"""Units, months and number words, and what each is called here. Data only."""

from __future__ import annotations

from decimal import Decimal

from cacheproxy.rules.guard.lists import groups, words

_UNITS = """
usd $ dollar dollars buck bucks usd; eur € euro euros eur;  jpy ¥ yen jpy; inr ₹ rupee rupees inr rs;
% percent pct; cny yuan rmb; brl reais; cent cents; lakh-rupee lpa; btc bitcoin bitcoins;
kilometre km kms kilometer kilometers kilometre kilometres; metre m meter meters metre metres;
centimetre cm cms centimeter centimeters centimetre centimetres;
millimetre mm millimeter millimeters millimetre millimetres; micrometre µm micrometer;
nanometre nm nanometer nanometers; mile mi mile miles; inch inch inches; foot ft foot feet; yard yd yard yards;
lightyear lightyear lightyears; kilogram kg kgs kilo kilos kilogram kilograms; gram g gram grams gm gms;
milligram mg milligram milligrams; microgram µg mcg; tonne tonne tonnes; ton tons; pound lb lbs pound pounds £ gbp quid;
ounce oz ounce ounces; stone stones; litre l liter liters litre litres;
millilitre ml milliliter milliliters millilitre; gallon gal gallon gallons; cup cup cups;
tablespoon tbsp tablespoon tablespoons; teaspoon tsp teaspoon teaspoons; pint pint pints;
second sec secs second seconds s; minute min mins minute minutes; hour hr hrs hour hours h; day day days;
week week weeks wk wks; month month months; year year years yr yrs; yearold yo; millisecond ms millisecond milliseconds;
microsecond µs us microsecond; nanosecond ns; byte byte bytes; kilobyte kb kilobyte kilobytes;
megabyte mb megabyte megabytes; gigabyte gb gigabyte gigabytes; terabyte tb terabyte terabytes; kibibyte kib;
mebibyte mib; gibibyte gib; tebibyte tib; bit bit bits; kilobit kbit kbps; megabit mbit mbps; gigabit gbit gbps;
celsius celsius °c centigrade; fahrenheit fahrenheit °f; kelvin kelvin; degree ° degree degrees; watt w watt watts;
kilowatt kw kilowatt kilowatts; kwh; volt v volt volts; ampere amp amps ampere amperes; ohm ohm ohms; hertz hz hertz;
megahertz mhz; gigahertz ghz; joule joule joules; calorie calorie calories cal; kcal kilocalorie kilocalories;
pascal pa pascal; bar bars; psi; mph; kmh kph km/h; horsepower hp; newton newtons; acre acre acres;
hectare ha hectare hectares; word word words; page page pages; sentence sentence sentences;
paragraph paragraph paragraphs; character character characters chars; token token tokens; line line lines;
bulletpoint bullet bullets; px pixel pixels; times x times; degree-f; person people persons
"""

UNIT_OF = {form: group[0] for group in groups(_UNITS) for form in group}
"""Every way to write a unit, to the unit's one name."""
UNITS = frozenset(UNIT_OF.values())
DEGREES_OF = {name: scale for scale in ("celsius", "fahrenheit") for name in (scale, scale[0])}
"""What may follow *degrees*."""
MULTIPLES = {
    unit: (base, Decimal(factor))
    for base, multiples in {
        "gram": "microgram 1e-6 milligram 1e-3 kilogram 1e3 tonne 1e6",
        "litre": "millilitre 1e-3",
        "metre": "nanometre 1e-9 micrometre 1e-6 millimetre 1e-3 centimetre 1e-2 kilometre 1e3",
        "second": "nanosecond 1e-9 microsecond 1e-6 millisecond 1e-3 minute 60 hour 3600",
        "day": "week 7", "month": "year 12", "watt": "kilowatt 1e3", "hertz": "megahertz 1e6 gigahertz 1e9",
    }.items()
    for unit, factor in zip(multiples.split()[::2], multiples.split()[1::2], strict=True)
}  # fmt: skip
"""Units that are so many of another, in which their amounts are compared. Bytes are left out, for some count them in
1024, and days, for 24 hours are not the next day."""
COUNTED_BARE = words("person yearold")
"""Units of amounts that are also given without them (*a recipe for four*, *she is four*)."""
CURRENCIES = words("usd eur jpy inr cny brl btc")
CURRENCY_CODES = words("usd eur gbp jpy inr cny rs rmb btc")
"""Currencies that are also written before the amount (`INR 500`)."""

_AMBIGUOUS = words("m g s h l v w x us rs pa ha bar bars stone stones foot feet inch $ € £ ¥ ₹ min ml mi")
_MEASURING = words(
    """usd eur jpy inr cny kilometre metre centimetre millimetre mile inch foot yard kilogram gram milligram tonne
    pound ounce litre millilitre gallon kilobyte megabyte gigabyte terabyte celsius fahrenheit kelvin watt kilowatt
    btc"""
)
LONE_UNITS = frozenset(form for form, unit in UNIT_OF.items() if unit in _MEASURING and form not in _AMBIGUOUS)
"""Units that say what is asked for even without a number (`how much is that in euros`)."""

_MONTHS = """january jan; february feb; march mar; april apr; may; june jun; july jul; august aug; september sep sept;
october oct; november nov; december dec"""
MONTHS = {name: number for number, names in enumerate(groups(_MONTHS), start=1) for name in names}
MONTHS_AMBIGUOUS = words("may march mar dec sep jan jun")
"""Months that are also other words; they count beside a day or a year, or with a capital after *in* and the like."""
WEEKDAYS = {
    name: names[0]
    for names in groups("monday mon; tuesday tue tues; wednesday wed; thursday thu thurs; friday fri; saturday; sunday")
    for name in names
}
RELATIVE_DAYS = words(
    "today tomorrow yesterday tonight weekday weekdays weekend weekends noon midnight midday bc ad bce"
)
NAMED_TIMES = {"noon": "12:00", "midday": "12:00", "midnight": "0:00"}
PERIODS = words("year month week day weekend night century decade quarter season summer winter time")

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINALS = """third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth
sixteenth seventeenth eighteenth nineteenth"""
_TENTHS = "twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth hundredth"
ONES = {word: value for value, word in enumerate(_ONES.split())}
TENS = {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
SCALES = {
    "hundred": 100, "hundreds": 100, "thousand": 1000, "thousands": 1000, "k": 1000, "lakh": 100_000, "lakhs": 100_000,
    "million": 10**6, "millions": 10**6, "mn": 10**6, "crore": 10**7, "crores": 10**7, "billion": 10**9,
    "billions": 10**9, "bn": 10**9, "trillion": 10**12,
}  # fmt: skip
SCALE_SIGNS = words("k mn bn")
"""Scales that only follow digits."""
NUMBER_WORDS = frozenset(ONES) | frozenset(TENS) | (frozenset(SCALES) - SCALE_SIGNS) | {"dozen"}
ORDINALS = {word: str(value) for value, word in enumerate(_ORDINALS.split(), start=3)}
ORDINALS |= {word: str(10 * value) for value, word in enumerate(_TENTHS.split(), start=2)}
"""*First* and *second* are left out: they stand for order and time as well, and are compared as words."""
ROMAN = {"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8", "ix": "9", "xi": "11", "xii": "12"}
