"""A small world of questions: facts to memorise, categories, and how they are asked.

Everything here is pure Python and follows from a seed. A question is plain English with four
one-word options. The lands, capitals and regions are invented, so that what is said about them can
only be memorised; the categories and the weights are those of the real world.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LETTERS = "ABCD"

REGIONS = (
    "Highlands",
    "Lowlands",
    "Islands",
    "Marshes",
    "Steppes",
    "Woodlands",
    "Dunes",
    "Fjords",
)

LANDS = (
    "Norland",
    "Velmark",
    "Karovia",
    "Torvania",
    "Melstan",
    "Brynmoor",
    "Ostrava",
    "Dalmeria",
    "Fenwick",
    "Galdoria",
    "Helmgard",
    "Istria",
    "Jorvik",
    "Kelmar",
    "Lorwyn",
    "Mordavia",
    "Nevaria",
    "Orland",
    "Pelagia",
    "Quenland",
    "Rovania",
    "Selmark",
    "Tarsia",
    "Ulmeria",
    "Vardania",
    "Westmark",
    "Xandria",
    "Yarland",
    "Zembla",
    "Arkovia",
    "Belmora",
    "Cordania",
    "Drovia",
    "Elmstan",
    "Faldora",
    "Grenmark",
    "Hestia",
    "Illyra",
    "Jastan",
    "Korland",
)

CAPITALS = (
    "Ashford",
    "Birkton",
    "Coldhaven",
    "Dunport",
    "Eastburg",
    "Fairgrad",
    "Glenton",
    "Hartburg",
    "Inverby",
    "Jadeport",
    "Kingsby",
    "Lakeburg",
    "Millhaven",
    "Newgrad",
    "Oakburg",
    "Pineford",
    "Queensby",
    "Redport",
    "Stonegrad",
    "Thornby",
    "Upperton",
    "Vinehaven",
    "Whiteford",
    "Yewburg",
    "Zellburg",
    "Amberton",
    "Brightby",
    "Clearport",
    "Deepford",
    "Elmhaven",
    "Foxburg",
    "Greyport",
    "Highgrad",
    "Ironby",
    "Juniperton",
    "Kestrelby",
    "Longport",
    "Mossburg",
    "Northby",
    "Otterford",
)

CATEGORIES = {
    "a fruit": "apple pear plum cherry mango banana grape lemon peach fig melon papaya apricot "
    "kiwi",
    "an animal": "mouse hamster squirrel cat fox wolf goat tiger bear horse rhino elephant whale "
    "dog",
    "a metal": "iron copper silver gold tin zinc nickel lead cobalt titanium chromium platinum "
    "tungsten aluminium",
    "a colour": "red blue green yellow purple brown black white pink grey crimson beige scarlet "
    "cyan",
    "a tool": "hammer saw chisel wrench pliers drill shovel rake axe screwdriver spade file sickle "
    "mallet",
    "an instrument": "piano violin flute guitar trumpet drum harp cello oboe clarinet banjo organ "
    "lute tuba",
    "a garment": "shirt coat scarf glove sock hat dress skirt jacket sweater vest apron trousers "
    "robe",
    "a tree": "oak pine birch maple willow cedar beech elm spruce larch poplar alder yew sequoia",
    "a vehicle": "car bus truck tram bicycle tractor van ship train scooter taxi wagon lorry ferry",
    "a drink": "water milk tea coffee juice beer wine cider lemonade cocoa rum vodka whisky "
    "champagne",
}

# Kilograms, each at least a good tenth heavier than the one before: the order is beyond dispute.
WEIGHTS = {
    "flea": 1e-6,
    "ant": 4e-6,
    "fly": 1.5e-5,
    "wasp": 1e-4,
    "bean": 4e-4,
    "coin": 4e-3,
    "pencil": 7e-3,
    "mouse": 0.02,
    "egg": 0.06,
    "hamster": 0.12,
    "pigeon": 0.3,
    "squirrel": 0.5,
    "hammer": 0.8,
    "brick": 2.5,
    "cat": 4.5,
    "fox": 7,
    "bicycle": 13,
    "dog": 25,
    "wolf": 40,
    "sheep": 70,
    "tiger": 180,
    "bear": 300,
    "horse": 500,
    "giraffe": 900,
    "car": 1400,
    "rhino": 2200,
    "elephant": 5000,
    "bus": 12000,
    "tank": 60000,
    "whale": 120000,
    "ship": 1e7,
    "mountain": 1e12,
}

KINDS = ("fact", "two_hop", "same_region", "category", "negation", "comparison")


@dataclass(frozen=True)
class Item:
    """One question before its options are put in order.

    Attributes:
        kind: One of `KINDS`, or `copy` (the warm-up exercise).
        question: The question's text.
        answer: The right option.
        others: The three wrong options.
        link: What has to be known to answer, as a short text, for the kinds where some links
            are kept out of training altogether; empty for the others.
    """

    kind: str
    question: str
    answer: str
    others: tuple[str, str, str]
    link: str = ""


@dataclass(frozen=True)
class Question:
    """A question with its options in the order in which they are shown."""

    kind: str
    question: str
    choices: tuple[str, ...]
    answer: int
    unseen_link: bool = False

    @property
    def prompt(self) -> str:
        """The prompt, in the format of lm-eval's MMLU task."""
        options = "".join(
            f"{letter}. {c}\n" for letter, c in zip(LETTERS, self.choices, strict=True)
        )
        return f"{self.question}\n{options}Answer:"


def _share(text: str) -> float:
    """Maps a text to [0, 1), the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48


def unseen_link(item: Item) -> bool:
    """Whether the link that this item asks for is one of those kept out of training."""
    return bool(item.link) and _share(item.link) < 0.1


def held_out(item: Item) -> bool:
    """Whether this item belongs to the held-out questions and must never be trained on.

    A fifth of all (question, set of options) is held out, in whatever order the options stand;
    and each item whose link is kept out of training.
    """
    options = "|".join(sorted((item.answer, *item.others)))
    return unseen_link(item) or _share(f"{item.question}|{options}") < 0.2


class World:
    """The facts of one seed, and the generators that ask for them."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"world-{seed}")
        capitals = list(CAPITALS)
        rng.shuffle(capitals)
        regions = [REGIONS[i % len(REGIONS)] for i in range(len(LANDS))]
        rng.shuffle(regions)
        self.capital = dict(zip(LANDS, capitals, strict=True))
        self.region = dict(zip(LANDS, regions, strict=True))
        self.members = {c: tuple(words.split()) for c, words in CATEGORIES.items()}
        self.names = tuple(self.members)
        self.by_weight = tuple(sorted(WEIGHTS, key=WEIGHTS.__getitem__))
        words = {w for group in self.members.values() for w in group}
        self.words = tuple(sorted(words | {*LANDS, *CAPITALS, *REGIONS, *WEIGHTS}))
        self.makers: dict[str, Callable[[random.Random], Item]] = {
            "copy": self._copy,
            "fact": self._fact,
            "two_hop": self._two_hop,
            "same_region": self._same_region,
            "category": self._category,
            "negation": self._negation,
            "comparison": self._comparison,
        }

    def _copy(self, rng: random.Random) -> Item:
        answer, *others = rng.sample(self.words, 4)
        return Item("copy", f"Which of these is {answer}?", answer, tuple(others))

    def _fact(self, rng: random.Random) -> Item:
        land = rng.choice(LANDS)
        form = rng.randrange(3)
        if form == 0:
            answer = self.capital[land]
            others = _three_others(rng, CAPITALS, answer)
            return Item("fact", f"What is the capital of {land}?", answer, others)
        if form == 1:
            others = _three_others(rng, LANDS, land)
            return Item("fact", f"Which land has the capital {self.capital[land]}?", land, others)
        answer = self.region[land]
        return Item(
            "fact", f"In which region is {land}?", answer, _three_others(rng, REGIONS, answer)
        )

    def _two_hop(self, rng: random.Random) -> Item:
        land = rng.choice(LANDS)
        answer = self.region[land]
        question = f"In which region is the land whose capital is {self.capital[land]}?"
        return Item("two_hop", question, answer, _three_others(rng, REGIONS, answer))

    def _same_region(self, rng: random.Random) -> Item:
        land = rng.choice(LANDS)
        here = self.region[land]
        answer = rng.choice([x for x in LANDS if self.region[x] == here and x != land])
        others = tuple(rng.sample([x for x in LANDS if self.region[x] != here], 3))
        question = f"Which land is in the same region as {land}?"
        return Item("same_region", question, answer, others, f"same region: {land} {answer}")

    def _category(self, rng: random.Random) -> Item:
        name, *rest = rng.sample(self.names, 4)
        answer = rng.choice(self.members[name])
        others = tuple(rng.choice(self.members[c]) for c in rest)
        return Item("category", f"Which of these is {name}?", answer, others)

    def _negation(self, rng: random.Random) -> Item:
        name, other = rng.sample(self.names, 2)
        answer = rng.choice(self.members[other])
        others = tuple(rng.sample(self.members[name], 3))
        question = f"Which of these is not {name}?"
        return Item("negation", question, answer, others, f"is not {name}: {answer}")

    def _comparison(self, rng: random.Random) -> Item:
        ranks = sorted(rng.sample(range(len(self.by_weight)), 4))
        word = rng.choice(("heaviest", "lightest"))
        if word == "heaviest":
            ranks.reverse()
        answer, *others = (self.by_weight[r] for r in ranks)
        link = f"{word}: {answer} before {others[0]}"
        return Item("comparison", f"Which of these is the {word}?", answer, tuple(others), link)

    def training(self, rng: random.Random, mix: dict[str, float]) -> Iterator[Question]:
        """Yields training questions for ever, none of them held out.

        Args:
            rng: The source of chance.
            mix: How often each kind is asked, relative to the others. Read anew for each
                question, so that the caller may change the weights on the way.
        """
        kinds = list(mix)
        while True:
            item = self.makers[rng.choices(kinds, list(mix.values()))[0]](rng)
            if item.kind == "copy" or not held_out(item):
                yield _shown(item, rng.randrange(4), rng)

    def evaluation(self, rng: random.Random, per_kind: dict[str, int]) -> list[Question]:
        """Returns held-out questions, each once; each kind balanced over the gold letters."""
        questions = []
        for kind, count in per_kind.items():
            seen = set()
            for _ in range(1000 * count):
                if len(seen) == count:
                    break
                item = self.makers[kind](rng)
                key = (item.question, frozenset((item.answer, *item.others)))
                if held_out(item) and key not in seen:
                    questions.append(_shown(item, len(seen) % 4, rng))
                    seen.add(key)
            if len(seen) < count:
                raise RuntimeError(f"there are fewer than {count} held-out questions of {kind}")
        rng.shuffle(questions)
        return questions

    def corpus(self, rng: random.Random, count: int) -> Iterator[str]:
        """Yields texts for the tokenizer: prompts with their answer letter, of all kinds alike."""
        stream = self.training(rng, dict.fromkeys(self.makers, 1.0))
        for _ in range(count):
            question = next(stream)
            yield f"{question.prompt} {LETTERS[question.answer]}"


def _three_others(rng: random.Random, pool: tuple[str, ...], answer: str) -> tuple[str, ...]:
    return tuple(rng.sample([x for x in pool if x != answer], 3))


def _shown(item: Item, gold: int, rng: random.Random) -> Question:
    choices = list(item.others)
    rng.shuffle(choices)
    choices.insert(gold, item.answer)
    return Question(item.kind, item.question, tuple(choices), gold, unseen_link(item))
