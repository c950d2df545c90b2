"""``builtin/entailment``: sentence pairs from a grammar, labelled by inference over meanings.

A sentence is made together with its meaning, a set of claims that all hold, and a label is what
:func:`entails` says of two meanings. Pairs come in crossed quadruples (two premises, each of
which entails one of two hypotheses and not the other), so neither sentence alone gives a label
away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from random import Random

from iwlora.errors import IwloraError

LABELS = ("entailment", "not_entailment")

NAMES = ("Anna", "Tom", "Maria", "Paul", "Laura", "Peter", "Emma", "David", "Sarah", "Simon")
NOUNS = ("lawyer", "doctor", "actor", "judge", "artist", "banker", "student", "farmer")
ADJECTIVES = ("young", "tall", "famous", "rich")
ADVERBS = ("today", "loudly", "outside")
# Past tense, which is also the passive participle -> base form.
VERBS = {
    "praised": "praise", "thanked": "thank", "called": "call", "helped": "help",
    "followed": "follow", "blamed": "blame", "hired": "hire", "visited": "visit",
}  # fmt: skip
INTRANSITIVES = ("laughed", "slept", "danced", "waited", "sang")

# Whether a quantifier lets its restrictor and its scope grow ("up") or shrink ("down").
MONOTONE = {
    "every": ("down", "up"),
    "some": ("up", "up"),
    "no": ("down", "down"),
    "not every": ("up", "down"),
}
# Whether these follow depends on whether "every" says that there are any: never asked.
CONTESTED = {("every", "some"), ("no", "not every")}
# Draws in a row without a new pair after which the grammar counts as exhausted.
PATIENCE = 5000


@dataclass(frozen=True)
class Fact:
    """Whether ``agent`` did ``verb`` (to ``patient``; empty for an intransitive verb)."""

    verb: str
    agent: str
    patient: str = ""
    holds: bool = True


@dataclass(frozen=True)
class Quantified:
    """``quantifier`` of what has every property in ``restrictor`` has every one in ``scope``."""

    quantifier: str
    restrictor: frozenset[str]
    scope: frozenset[str]


# A frozenset of facts is their disjunction.
Claim = frozenset[Fact] | Quantified
Meaning = frozenset[Claim]


@dataclass(frozen=True)
class Sentence:
    """English text and what it means: every claim in ``meaning``."""

    text: str
    meaning: Meaning


def entails(premise: Meaning, hypothesis: Meaning) -> bool:
    """Whether every claim of ``hypothesis`` follows from some claim of ``premise``.

    A disjunction follows from a subset of itself. A quantified claim follows from one with the
    same quantifier whose restrictor and scope it grows or shrinks as the quantifier allows.
    (Complete here: the grammar affirms and denies no fact in one premise.)

    >>> slept, danced = Fact("slept", "judge"), Fact("danced", "judge")
    >>> entails(frozenset({frozenset({slept})}), frozenset({frozenset({slept, danced})}))
    True
    >>> entails(frozenset({frozenset({slept, danced})}), frozenset({frozenset({slept})}))
    False
    """
    return all(any(_follows(claim, known) for known in premise) for claim in hypothesis)


def _follows(claim: Claim, known: Claim) -> bool:
    if isinstance(claim, Quantified):
        if not isinstance(known, Quantified) or claim.quantifier != known.quantifier:
            return False
        restrictor, scope = MONOTONE[claim.quantifier]
        return _moves(restrictor, known.restrictor, claim.restrictor) and _moves(
            scope, known.scope, claim.scope
        )
    return not isinstance(known, Quantified) and known <= claim


def _moves(direction: str, old: frozenset[str], new: frozenset[str]) -> bool:
    """Fewer properties make a larger set, so "up" drops properties and "down" adds them."""
    return new <= old if direction == "up" else old <= new


def _say(text: str, *claims: Claim) -> Sentence:
    return Sentence(f"{text[0].upper()}{text[1:]}.", frozenset(claims))


def _one(verb: str, agent: str, patient: str = "", holds: bool = True) -> Claim:
    return frozenset({Fact(verb, agent, patient, holds)})


def _active(verb: str, agent: str, patient: str) -> Sentence:
    return _say(f"{agent} {verb} {patient}", _one(verb, agent, patient))


def _passive(verb: str, agent: str, patient: str) -> Sentence:
    return _say(f"{patient} was {verb} by {agent}", _one(verb, agent, patient))


# Each phenomenon draws a lexicon and lists the premises (which use all its nouns and verbs) and
# the hypotheses that the lexicon allows.
Scene = tuple[frozenset[str], list[Sentence], list[Sentence]]


def _word_order(rng: Random) -> Scene:
    names, verb = rng.sample(NAMES, 2), rng.choice(list(VERBS))
    premises, hypotheses = [], []
    for a, b in permutations(names):
        fact = _one(verb, a, b)
        premises += [
            _say(f"it was {a} who {verb} {b}", fact),
            _say(f"it was {b} that {a} {verb}", fact),
            _say(f"the one {a} {verb} was {b}", fact),
        ]
        hypotheses.append(_active(verb, a, b))
    return frozenset([*names, verb]), premises, hypotheses


def _passives(rng: Random) -> Scene:
    names, verb = rng.sample(NAMES, 2), rng.choice(list(VERBS))
    voices = [_active, _passive]
    rng.shuffle(voices)
    premises, hypotheses = ([voice(verb, a, b) for a, b in permutations(names)] for voice in voices)
    return frozenset([*names, verb]), premises, hypotheses


def _relative_clauses(rng: Random) -> Scene:
    names, verb, does = rng.sample(NAMES, 2), rng.choice(list(VERBS)), rng.choice(INTRANSITIVES)
    premises, hypotheses = [], []
    for a, b in permutations(names):
        fact, a_does, b_does = _one(verb, a, b), _one(does, a), _one(does, b)
        premises += [
            _say(f"{a}, who {verb} {b}, {does}", fact, a_does),
            _say(f"{b}, whom {a} {verb}, {does}", fact, b_does),
            _say(f"{a} {verb} {b}, who {does}", fact, b_does),
        ]
        hypotheses += [_say(f"{a} {does}", a_does), _active(verb, a, b)]
    return frozenset([*names, verb, does]), premises, hypotheses


def _conjunction(rng: Random) -> Scene:
    names, verb = rng.sample(NAMES, 3), rng.choice(list(VERBS))
    premises, hypotheses = [], []
    for a, b, c in permutations(names):
        ac, bc, ab = Fact(verb, a, c), Fact(verb, b, c), Fact(verb, a, b)
        either_agent = _say(f"{a} or {b} {verb} {c}", frozenset({ac, bc}))
        either_patient = _say(f"{a} {verb} {b} or {c}", frozenset({ab, ac}))
        premises += [
            _say(f"{a} and {b} {verb} {c}", frozenset({ac}), frozenset({bc})),
            _say(f"{a} {verb} {b} and {c}", frozenset({ab}), frozenset({ac})),
            either_agent,
            either_patient,
        ]
        hypotheses += [_active(verb, a, b), either_agent, either_patient]
    return frozenset([*names, verb]), premises, hypotheses


def _negation(rng: Random) -> Scene:
    names, verb = rng.sample(NAMES, 3), rng.choice(list(VERBS))
    base = VERBS[verb]
    premises, hypotheses = [], []
    for a, b, c in permutations(names):
        ab, not_ab = _one(verb, a, b), _one(verb, a, b, holds=False)
        ac, not_ac = _one(verb, a, c), _one(verb, a, c, holds=False)
        not_bc = _one(verb, b, c, holds=False)
        premises += [
            _say(f"{a} {verb} {b} but not {c}", ab, not_ac),
            _say(f"{a} did not {base} {b} but {c}", not_ab, ac),
            _say(f"{a} but not {b} {verb} {c}", ac, not_bc),
            _say(f"neither {a} nor {b} {verb} {c}", not_ac, not_bc),
        ]
        hypotheses += [_active(verb, a, b), _say(f"{a} did not {base} {b}", not_ab)]
    return frozenset([*names, verb]), premises, hypotheses


def _quantifiers(rng: Random) -> Scene:
    noun, verb, patient = rng.choice(NOUNS), rng.choice(list(VERBS)), rng.choice(NAMES)
    adjectives = ["", *rng.sample(ADJECTIVES, 2)]
    adverbs = ["", rng.choice(ADVERBS)]
    action = f"{verb} {patient}"
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


PHENOMENA: dict[str, Callable[[Random], Scene]] = {
    "word order": _word_order,
    "passive": _passives,
    "relative clause": _relative_clauses,
    "conjunction": _conjunction,
    "negation": _negation,
    "quantifier": _quantifiers,
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
    seed: int = 0, train: int = 2400, validation: int = 480, test: int = 1200
) -> dict[str, list[dict[str, str]]]:
    """Rows ``{premise, hypothesis, label, phenomenon}`` of the three splits; the same for a seed.

    In every split each phenomenon has as many rows as another and each label as many as the
    other (to within one row where the size does not divide). A combination of nouns and verbs
    belongs to one split alone. Raises ``IwloraError`` for a negative size or one beyond what the
    grammar can say.

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
    for turn, (phenomenon, scene) in enumerate(PHENOMENA.items()):
        wanted = {
            (name, label): _share(_share(size, len(PHENOMENA), turn), len(LABELS), half)
            for name, size in sizes.items()
            for half, label in enumerate(LABELS)
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


def _share(total: int, parts: int, part: int) -> int:
    """How many of ``total`` fall to ``part`` when they are dealt out in turn."""
    return (total + parts - 1 - part) // parts
