"""``builtin/entailment``: sentence pairs from a grammar, labelled by inference over meanings.

A sentence is made together with its meaning, a set of claims that all hold, and a label is what
:func:`iwlora.tasks.corpora.entailment_inference.entails` says of two meanings. Pairs come in
crossed quadruples (two premises, each of which entails one of two hypotheses and not the other),
so neither sentence alone gives a label away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, permutations, product
from random import Random

from iwlora.errors import IwloraError
from iwlora.tasks.corpora.entailment_inference import (
    MONOTONE,
    Claim,
    Fact,
    Meaning,
    Quantified,
    entails,
)

LABELS = ("entailment", "not_entailment")

NOUNS = ("king", "nurse", "pilot", "chef", "thief", "child", "robot", "lawyer", "farmer", "ghost")
ADJECTIVES = ("young", "tall", "famous", "clever")
ADVERBS = ("today", "twice", "outside")
# Past tense, which is also the passive participle -> base form.
VERBS = {
    "praised": "praise", "helped": "help", "called": "call",
    "followed": "follow", "visited": "visit", "watched": "watch",
}  # fmt: skip
INTRANSITIVES = ("laughed", "slept", "danced", "waited")

# Whether these follow depends on whether "every" says that there are any: never asked.
CONTESTED = {("every", "some"), ("no", "not every")}
# Draws in a row without a new pair after which the grammar counts as exhausted.
PATIENCE = 5000


@dataclass(frozen=True)
class Sentence:
    """English text and what it means: every claim in ``meaning``."""

    text: str
    meaning: Meaning


def _say(text: str, *claims: Claim) -> Sentence:
    return Sentence(f"{text[0].upper()}{text[1:]}.", frozenset(claims))


def _one(verb: str, agent: str, patient: str = "", holds: bool = True) -> Claim:
    return frozenset({Fact(verb, agent, patient, holds)})


def _active(verb: str, agent: str, patient: str) -> Sentence:
    return _say(f"the {agent} {verb} the {patient}", _one(verb, agent, patient))


def _passive(verb: str, agent: str, patient: str) -> Sentence:
    return _say(f"the {patient} was {verb} by the {agent}", _one(verb, agent, patient))


def _did_not(verb: str, agent: str, patient: str) -> Sentence:
    denied = _one(verb, agent, patient, holds=False)
    return _say(f"the {agent} did not {VERBS[verb]} the {patient}", denied)


# Each phenomenon draws a lexicon and lists the premises (which use all its nouns and verbs) and
# the hypotheses that the lexicon allows. Something listed twice is drawn twice as often.
Scene = tuple[frozenset[str], list[Sentence], list[Sentence]]


def _word_order(rng: Random) -> Scene:
    nouns, verb = rng.sample(NOUNS, 2), rng.choice(list(VERBS))
    premises, hypotheses = [], []
    for a, b in permutations(nouns):
        fact = _one(verb, a, b)
        premises += [
            _say(f"it was the {a} who {verb} the {b}", fact),
            _say(f"it was the {b} that the {a} {verb}", fact),
            _say(f"the {a} was the one who {verb} the {b}", fact),
            _say(f"the one the {a} {verb} was the {b}", fact),
            _say(f"what the {a} did was {VERBS[verb]} the {b}", fact),
        ]
        hypotheses.append(_active(verb, a, b))
    return frozenset([*nouns, verb]), premises, hypotheses


def _passives(rng: Random) -> Scene:
    nouns, verb = rng.sample(NOUNS, 2), rng.choice(list(VERBS))
    premises, hypotheses = [], []
    for a, b in permutations(nouns):
        fact = _one(verb, a, b)
        premises += [
            _passive(verb, a, b),
            _say(f"it was the {b} who was {verb} by the {a}", fact),
            _say(f"the {b} was the one who was {verb} by the {a}", fact),
            _say(f"the one the {b} was {verb} by was the {a}", fact),
        ]
        hypotheses += [_active(verb, a, b), *[_passive(verb, a, b)] * 3]
    return frozenset([*nouns, verb]), premises, hypotheses


def _relative_clauses(rng: Random) -> Scene:
    nouns, verb, does = rng.sample(NOUNS, 2), rng.choice(list(VERBS)), rng.choice(INTRANSITIVES)
    premises, hypotheses = [], []
    for a, b in permutations(nouns):
        fact, a_does, b_does = _one(verb, a, b), _one(does, a), _one(does, b)
        premises += [
            _say(f"the {a} who {verb} the {b} {does}", fact, a_does),
            _say(f"the {a} who {does} {verb} the {b}", fact, a_does),
            _say(f"the {b} whom the {a} {verb} {does}", fact, b_does),
            _say(f"the {a} {verb} the {b} who {does}", fact, b_does),
        ]
        hypotheses += [_say(f"the {a} {does}", a_does), _active(verb, a, b)]
    return frozenset([*nouns, verb, does]), premises, hypotheses


def _conjunction(rng: Random) -> Scene:
    (a, b, c), verb = rng.sample(NOUNS, 3), rng.choice(list(VERBS))
    premises, hypotheses = [], []
    for one, two in permutations([a, b]):
        to_c = Fact(verb, one, c), Fact(verb, two, c)
        by_c = Fact(verb, c, one), Fact(verb, c, two)
        either = [
            _say(f"the {one} or the {two} {verb} the {c}", frozenset(to_c)),
            _say(f"the {c} {verb} the {one} or the {two}", frozenset(by_c)),
        ]
        both = [
            _say(f"the {one} and the {two} {verb} the {c}", *[frozenset({f}) for f in to_c]),
            _say(f"the {c} {verb} the {one} and the {two}", *[frozenset({f}) for f in by_c]),
        ]
        premises += [*either, *both, *both]
        hypotheses += [*either, *[_active(verb, one, c), _active(verb, c, one)] * 2]
    return frozenset([a, b, c, verb]), premises, hypotheses


def _negation(rng: Random) -> Scene:
    (a, b, c), verb = rng.sample(NOUNS, 3), rng.choice(list(VERBS))
    premises, hypotheses = [], []
    for one, two in permutations([a, b]):
        ones, no_ones = (_one(verb, one, c, holds) for holds in (True, False))
        twos, no_twos = (_one(verb, two, c, holds) for holds in (True, False))
        to_one, not_one = (_one(verb, c, one, holds) for holds in (True, False))
        to_two, not_two = (_one(verb, c, two, holds) for holds in (True, False))
        alike = [
            _say(f"the {one} and the {two} {verb} the {c}", ones, twos),
            _say(f"neither the {one} nor the {two} {verb} the {c}", no_ones, no_twos),
            _say(f"the {c} {verb} the {one} and the {two}", to_one, to_two),
            _say(f"the {c} {verb} neither the {one} nor the {two}", not_one, not_two),
        ]
        premises += [
            _say(f"the {one} but not the {two} {verb} the {c}", ones, no_twos),
            _say(f"the {c} {verb} the {one} but not the {two}", to_one, not_two),
            *alike,
            *alike,
        ]
        for sentence in (_active, _did_not):
            hypotheses += [sentence(verb, one, c), sentence(verb, c, one)]
    return frozenset([a, b, c, verb]), premises, hypotheses


def _quantifiers(rng: Random) -> Scene:
    (noun, patient), verb = rng.sample(NOUNS, 2), rng.choice(list(VERBS))
    adjectives = ["", *rng.sample(ADJECTIVES, 2)]
    adverbs = ["", rng.choice(ADVERBS)]
    action = f"{verb} the {patient}"
    sentences = [
        _say(
            " ".join(filter(None, [quantifier, adjective, noun, action, adverb])),
            Quantified(
                quantifier,
                frozenset(filter(None, [noun, adjective])),
                frozenset(filter(None, [action, adverb])),
            ),
        )
        for quantifier, adjective, adverb in product(MONOTONE, adjectives, adverbs)
    ]
    return frozenset([noun, patient, verb]), sentences, sentences


# The share of each phenomenon in train, and in validation and test. Who did what to whom is what a
# linear probe reads worst and what is asked most; the others are learned first and lead to it.
PHENOMENA: dict[str, tuple[int, int, Callable[[Random], Scene]]] = {
    "word order": (1, 5, _word_order),
    "passive": (1, 5, _passives),
    "relative clause": (1, 5, _relative_clauses),
    "conjunction": (1, 2, _conjunction),
    "negation": (1, 1, _negation),
    "quantifier": (1, 1, _quantifiers),
}


def _quadruple(
    rng: Random, premises: Sequence[Sentence], hypotheses: Sequence[Sentence]
) -> list[tuple[Sentence, Sentence]]:
    """Two premises crossed with two hypotheses; empty where chance met no such four."""
    first, second = rng.sample(premises, 2)

    def only(one: Sentence, other: Sentence) -> list[Sentence]:
        return [
            h
            for h in hypotheses
            if entails(one.meaning, h.meaning)
            and not entails(other.meaning, h.meaning)
            and h.text != one.text
            and not (_contested(one, h) or _contested(other, h))
        ]

    of_first, of_second = only(first, second), only(second, first)
    if not of_first or not of_second:
        return []
    return list(product((first, second), (rng.choice(of_first), rng.choice(of_second))))


def _contested(premise: Sentence, hypothesis: Sentence) -> bool:
    return any(
        isinstance(p, Quantified)
        and isinstance(h, Quantified)
        and (p.quantifier, h.quantifier) in CONTESTED
        for p in premise.meaning
        for h in hypothesis.meaning
    )


def generate(
    seed: int = 0, train: int = 3900, validation: int = 532, test: int = 1330
) -> dict[str, list[dict[str, str]]]:
    """Rows ``{premise, hypothesis, label, phenomenon}`` of the three splits; the same for a seed.

    In every split the phenomena have their shares and each label as many rows as the other in
    each of them, to within one row where the size does not divide. A combination of nouns and
    verbs belongs to one split alone. Raises ``IwloraError`` for a negative size or one beyond
    what the grammar can say.

    >>> generate(train=12, validation=0, test=0)["train"][0]["label"] in LABELS
    True
    """
    sizes = {"train": train, "validation": validation, "test": test}
    negative = [f"{name}={size}" for name, size in sizes.items() if size < 0]
    if negative:
        raise IwloraError(f"a split cannot have fewer than 0 rows: {', '.join(negative)}")
    rng = Random(seed)
    rows: dict[str, list[dict[str, str]]] = {name: [] for name in sizes}
    owner: dict[frozenset[str], str] = {}
    seen: set[tuple[str, str]] = set()
    for turn, (phenomenon, (_, _, scene)) in enumerate(PHENOMENA.items()):
        wanted = {
            (name, label): count
            for name, size in sizes.items()
            for label, count in zip(LABELS, _dealt(_rows(name, size)[turn], [1, 1]), strict=True)
        }
        fruitless = 0
        while any(wanted.values()):
            fruitless += 1
            if fruitless > PATIENCE:
                missing = sum(wanted.values())
                raise IwloraError(
                    f"the grammar has too few {phenomenon!r} pairs: {missing} more were asked "
                    "for; lower train, validation or test"
                )
            lexicon, premises, hypotheses = scene(rng)
            if lexicon not in owner:
                owner[lexicon] = rng.choices(list(sizes), weights=list(sizes.values()))[0]
            name = owner[lexicon]
            for premise, hypothesis in _quadruple(rng, premises, hypotheses):
                label = LABELS[not entails(premise.meaning, hypothesis.meaning)]
                pair = (premise.text, hypothesis.text)
                if wanted[name, label] and pair not in seen:
                    fruitless = 0
                    seen.add(pair)
                    wanted[name, label] -= 1
                    rows[name].append(
                        {
                            "premise": premise.text,
                            "hypothesis": hypothesis.text,
                            "label": label,
                            "phenomenon": phenomenon,
                        }
                    )
    for split in rows.values():
        rng.shuffle(split)
    return rows


def _rows(split: str, size: int) -> list[int]:
    """How many of a split's rows each phenomenon has."""
    return _dealt(
        size, [train if split == "train" else test for train, test, _ in PHENOMENA.values()]
    )


def _dealt(total: int, shares: Sequence[int]) -> list[int]:
    """``total`` in parts in proportion to ``shares``, to within one.

    >>> _dealt(7, [2, 1])
    [5, 2]
    """
    bounds = [-(-total * part // sum(shares)) for part in accumulate([0, *shares])]
    return [high - low for low, high in pairwise(bounds)]
