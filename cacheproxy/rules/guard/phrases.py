"""Several words that act as one: *sign up* is *register*, *zip code* and *postal code* are one thing. Data only.

Words stand as they are after contractions were spelled out. A verb with a particle is found also where they stand apart
(`particles.py`).
"""

from __future__ import annotations

from cacheproxy.rules.guard.lists import rewrites, words

PHRASES: dict[tuple[str, ...], str] = {
    said: " ".join(read)
    for said, read in rewrites(
        """
    sign up = register
    set up = setup
    web site = website
    web sites = websites
    web page = webpage
    shut down = shutdown
    back up = backup
    get rid of = remove
    deal with = handle
    deals with = handle
    dealing with = handle
    cope with = handle
    too much = excessive
    too many = excessive
    too little = insufficient
    too few = insufficient
    how come = why
    no longer = not
    no more than = maximum
    no less than = minimum
    no fewer than = minimum
    not less than = minimum
    not fewer than = minimum
    not more than = maximum
    at least = minimum
    at most = maximum
    more than = above
    greater than = above
    less than = below
    fewer than = below
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
    call off = cancel
    called off = cancel
    hand in = submit
    handed in = submit
    throw up = vomit
    throws up = vomit
    threw up = vomit
    throwing up = vomit
    pass away = die
    passes away = die
    passed away = die
    take care of = tend
    takes care of = tend
    taking care of = tend
    look after = tend
    looks after = tend
    looking after = tend
    take place = occur
    takes place = occur
    took place = occur
    taken place = occur
    taking place = occur
    close to = near
    without stopping = nonstop
    without a break = nonstop
    non stop = nonstop
    per annum = annual
    carry out = perform
    look for = seek
    put on = wear
    take off = remove
    took off = remove
    taking off = remove
    regular expression = regex
    regular expressions = regex
    co worker = coworker
    co workers = coworker
    mobile phone = phone
    mobile phones = phone
    cell phone = phone
    cell phones = phone
    smart phone = phone
    smart phones = phone
    text message = sms
    text messages = sms
    hard disk = harddisk
    hard disks = harddisk
    hard drive = harddisk
    hard drives = harddisk
    usb stick = usbstick
    usb sticks = usbstick
    usb drive = usbstick
    usb drives = usbstick
    flash drive = usbstick
    flash drives = usbstick
    thumb drive = usbstick
    pen drive = usbstick
    zip code = zipcode
    zip codes = zipcode
    postal code = zipcode
    postal codes = zipcode
    last name = surname
    last names = surname
    family name = surname
    family names = surname
    first name = forename
    first names = forename
    given name = forename
    given names = forename
    due date = deadline
    head office = headquarters
    entrance fee = entryfee
    entry fee = entryfee
    admission fee = entryfee
    virtual environment = virtualenv
    virtual environments = virtualenv
    city center = downtown
    city centre = downtown
    town center = downtown
    town centre = downtown
    customer service = customerservice
    customer support = customerservice
    customer care = customerservice
    annual leave = vacation
    paid time off = pto
    police officer = policeman
    police officers = policeman
    association football = soccer
    table tennis = pingpong
    ping pong = pingpong
    train station = trainstation
    railway station = trainstation
    gas station = gasstation
    petrol station = gasstation
    cash machine = atm
    high blood pressure = hypertension
    low blood pressure = hypotension
    heart attack = heartattack
    myocardial infarction = heartattack
    common cold = cold
    common colds = cold
    pain reliever = painkiller
    pain relievers = painkiller
    pain killer = painkiller
    baking soda = bakingsoda
    bicarbonate of soda = bakingsoda
    sodium bicarbonate = bakingsoda
    powdered sugar = icingsugar
    icing sugar = icingsugar
    confectioners sugar = icingsugar
    all purpose flour = plainflour
    plain flour = plainflour
    ground beef = mincedbeef
    minced beef = mincedbeef
    bell pepper = capsicum
    bell peppers = capsicum
    spring onion = scallion
    spring onions = scallion
    green onion = scallion
    green onions = scallion
    frying pan = skillet
    frying pans = skillet
    degrees celsius = celsius
    degree celsius = celsius
    degrees fahrenheit = fahrenheit
    degree fahrenheit = fahrenheit
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
    """
    ).items()
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
log logs logged logging: in login, on login, out logout, off logout
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
    through again ik"""
)
"""Words with which something new begins: what stands before them is all there is of a verb's object.
Dutch *ik* among them, as *log ik in* is no English."""

PHRASE_STARTS = frozenset(phrase[0] for phrase in PHRASES)
