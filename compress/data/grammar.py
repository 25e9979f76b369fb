"""The closed grammar of the synthetic speech: what is said, before anybody says it.

Sentences are lower case, letters and apostrophe only, over 250 to 400 distinct words that contain
all 35 words of speech_commands. A template is a string with {slots}; a slot is filled by one
alternative of SLOTS (which may hold slots again) or by a number function of NUMBERS.
docs/grammar.md lists the kinds and their shares.

Example: "set a timer for {duration}" -> "set a timer for twenty five minutes".
"""

from __future__ import annotations

import random
import re

from compress.data.spelling import DIGITS, NUMBERS, ORDINALS, TEENS, TENS

# ruff: noqa: SIM905  (word lists read as text)
COMMAND_WORDS = (
    "backward bed bird cat dog down eight five follow forward four go happy house learn left "
    "marvin nine no off on one right seven sheila six stop three tree two up visual wow yes zero"
).split()
EXTRA_WORDS = (
    "hello goodbye thanks okay cancel continue pause resume repeat again louder quieter brighter "
    "darker warmer cooler faster slower open close start help next back play skip record save "
    "delete answer"
).split()

# A slot is all lines "name: a | b" of its name; repeating an alternative makes it more likely.
_SLOT_LINES = """
light: light | lights | lamp
device: fan | heater | television | radio | music | oven | kettle | {light} | {light}
device: alarm | camera | speaker
opening: door | window | blinds | curtains | gate
room: kitchen | bedroom | bathroom | living room | office | hall | garden | garage | house
colour: red | green | blue | yellow | white | orange | purple
person: marvin | sheila | anna | david | emma | peter | mom | dad | my brother | my sister
onoff: on | off
open: open | close | lock
day: monday | tuesday | wednesday | thursday | friday | saturday | sunday | today | tomorrow
part: morning | afternoon | evening
month: january | february | march | april | may | june | july
month: august | september | october | november | december
item: coffee | tea | water | milk | bread | butter
item: cheese | eggs | apples | rice | sugar | salt | fish
city: london | paris | berlin | tokyo | rome | boston
animal: cat | dog | bird
way: left | right | forward | backward | up | down
steps: steps | meters
music: jazz | the news | some music | my favorite song | the radio | the next song
please: please | now |
event: meeting | dinner | doctor | birthday | train | party
when: {day} | {day} {part} | {day} at {clock} | the {ordinal} of {month}
"""
SLOTS: dict[str, list[str]] = {}
for _line in _SLOT_LINES.strip().splitlines():
    _name, _choices = _line.split(":", 1)
    SLOTS.setdefault(_name, []).extend(choice.strip() for choice in _choices.split("|"))

SENTENCES = """
turn {onoff} the {device} in the {room} {please}
turn the {device} {onoff} {please}
turn the {device} in the {room} {onoff}
switch {onoff} the {light} in the {room}
please switch the {room} {light} {onoff}
make the {light} {colour} {please}
set the {room} {light} to {percent} percent
set the {room} {light} to {colour}
dim the {light} in the {room}
set the temperature in the {room} to {degrees} degrees
make the {room} warmer by {small} degrees
{open} the {opening} in the {room} {please}
{open} the {room} {opening}
is the {opening} in the {room} open
did i lock the {opening}
turn the volume {way} {please}
set the volume to {percent} percent
play {music} in the {room}
play {music} on the speaker
stop the {device} in the {room}
call {person} {please}
send a message to {person}
tell {person} i will be home at {clock}
tell {person} that dinner is ready
remind me to call {person} at {clock}
remind me to buy {item} {when}
add {item} and {item} to the shopping list
buy {small} {item} at the store
put {item} on the list {please}
is there any {item} left
wake me up at {clock} {when}
set an alarm for {clock}
set an alarm for {clock} in the {part}
set a timer for {duration}
start a {item} timer for {duration}
cancel the timer for the {item}
how much time is left on the timer
what time is it in {city}
what time is it
what day is it today
what is the weather in {city} {when}
will it rain in {city} {when}
is it cold in {city} today
how far is it from {city} to {city}
when is the next train to {city}
what is {number} plus {number}
what is {number} minus {small}
what is {small} times {small}
how many {item} are on the list
how old is {person}
where is my {animal}
where is {person} now
who is at the door
what is the news today
go {way} {small} {steps}
go {way} and stop at the {opening}
turn {way} and go {small} {steps} {way}
follow the {animal} to the {room}
follow me to the {room}
the {animal} is in the {room}
the {animal} is on the bed
the {animal} is in the tree
there is a {animal} in the house
show me the {room} camera
yes turn it {onoff} {please}
no leave it {onoff} {please}
wow the {animal} is very happy
happy birthday {person}
i want to learn {small} new words
learn the {way} command {please}
start the visual alarm in the {room}
good {part} {person}
make {small} cups of {item} {please}
when does the {event} start {when}
move the {event} to {when}
my {event} is on the {ordinal} of {month}
add the {event} to the calendar for {when}
can you hear me {person}
""".strip().splitlines()

NUMBER_PHRASES = (
    """
{number} | {number} | {large} | {large} | {clock} | {clock} | {duration} | {duration}
{percent} percent | {degrees} degrees
{month} {ordinal} | the {ordinal} of {month} | {day} {month} {ordinal}
{month} {ordinal} {year} | {year} | {number} point {digit}
{day} at {clock} | {clock} in the {part} | timer {duration} | minus {small} degrees
""".strip()
    .replace("\n", " | ")
    .split(" | ")
)

KINDS = {"sentence": 0.55, "digits": 0.20, "words": 0.15, "numbers": 0.10}
_SLOT = re.compile(r"\{(\w+)\}")


def fill_template(template: str, rng: random.Random) -> str:
    """Fill every {slot} of `template`, nested ones too, and close up blanks of empty choices."""

    def choose(match: re.Match[str]) -> str:
        name = match[1]
        if name in NUMBERS:
            return NUMBERS[name](rng)
        return fill_template(rng.choice(SLOTS[name]), rng)

    return " ".join(_SLOT.sub(choose, template).split())


def _sentence(rng: random.Random) -> str:
    while True:
        text = fill_template(rng.choice(SENTENCES), rng)
        if 3 <= len(text.split()) <= 10:
            return text


def _digits(rng: random.Random) -> str:
    return " ".join(rng.choices(DIGITS, k=rng.randint(1, 8)))


def _words(rng: random.Random) -> str:
    pool = COMMAND_WORDS if rng.random() < 0.85 else EXTRA_WORDS
    return " ".join(rng.choices(pool, k=rng.randint(1, 4)))


def _numbers(rng: random.Random) -> str:
    return fill_template(rng.choice(NUMBER_PHRASES), rng)


_WRITERS = {"sentence": _sentence, "digits": _digits, "words": _words, "numbers": _numbers}


def sentences(num: int, seed: int) -> list[str]:
    """Draw `num` sentences; the first n of a longer draw with the same seed are the same n."""
    rng = random.Random(f"grammar {seed}")
    kinds = rng.choices(list(KINDS), weights=list(KINDS.values()), k=num)
    return [_WRITERS[kind](random.Random(f"{seed} {index}")) for index, kind in enumerate(kinds)]


def vocabulary() -> list[str]:
    """All words the grammar can say, sorted."""
    texts = [*SENTENCES, *NUMBER_PHRASES, *(choice for c in SLOTS.values() for choice in c)]
    texts += [*COMMAND_WORDS, *EXTRA_WORDS, *DIGITS, *TEENS, *TENS, *ORDINALS]
    texts.append("twentieth thirtieth hundred thousand half past quarter to o'clock an hour")
    texts.append("second seconds minute minutes hours")
    return sorted({word for text in texts for word in _SLOT.sub(" ", text).split()})
