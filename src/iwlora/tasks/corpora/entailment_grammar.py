"""The grammar of ``builtin/entailment``: sentences with their meanings, by phenomenon."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, pairwise, permutations, product
from random import Random

from iwlora.tasks.corpora.entailment_inference import MONOTONE, Claim, Fact, Meaning, Quantified

NOUNS = ("king", "nurse", "pilot", "chef", "thief", "child", "robot", "lawyer", "farmer", "ghost")
ADJECTIVES = ("young", "tall", "famous", "clever")
ADVERBS = ("today", "twice", "outside")
# Past tense, which is also the passive participle -> base form.
VERBS = {
    "praised": "praise", "helped": "help", "called": "call",
    "followed": "follow", "visited": "visit", "watched": "watch",
}  # fmt: skip
INTRANSITIVES = ("laughed", "slept", "danced", "waited")


@dataclass(frozen=True)
class Sentence:
    """An English sentence, and its meaning: the claims that all hold."""

    text: str
    meaning: Meaning


def _say(text: str, *claims: Claim) -> Sentence:
    return Sentence(f"{text[0].upper()}{text[1:]}.", frozenset(claims))


def _claim(verb: str, agent: str, patient: str = "", holds: bool = True) -> Claim:
    return frozenset({Fact(verb, agent, patient, holds)})


def _active(verb: str, agent: str, patient: str) -> Sentence:
    return _say(f"the {agent} {verb} the {patient}", _claim(verb, agent, patient))


def _passive(verb: str, agent: str, patient: str) -> Sentence:
    return _say(f"the {patient} was {verb} by the {agent}", _claim(verb, agent, patient))


def _negated(verb: str, agent: str, patient: str) -> Sentence:
    negation = _claim(verb, agent, patient, holds=False)
    return _say(f"the {agent} did not {VERBS[verb]} the {patient}", negation)


# A scene draws a lexicon (nouns and verbs), and lists the premises that use all of it and the
# hypotheses that it allows. A sentence that is listed twice is drawn twice as often.
Scene = tuple[frozenset[str], list[Sentence], list[Sentence]]
Sentences = tuple[list[Sentence], list[Sentence]]  # premises and hypotheses


def _scene(
    describe: Callable[..., Sentences], nouns: int, *word_lists: Iterable[str]
) -> Callable[[Random], Scene]:
    """What ``describe`` says with the first two of the drawn nouns in both orders."""

    def draw(rng: Random) -> Scene:
        first, second, *others = drawn = rng.sample(NOUNS, nouns)
        words = [rng.choice(list(word_list)) for word_list in word_lists]
        pairs = permutations((first, second))
        sentences = [describe(*words, *pair, *others) for pair in pairs]
        premises, hypotheses = (list(chain(*parts)) for parts in zip(*sentences, strict=True))
        return frozenset([*drawn, *words]), premises, hypotheses

    return draw


def _word_order(verb: str, a: str, b: str) -> Sentences:
    fact = _claim(verb, a, b)
    premises = [
        _say(f"it was the {a} who {verb} the {b}", fact),
        _say(f"it was the {b} that the {a} {verb}", fact),
        _say(f"the {a} was the one who {verb} the {b}", fact),
        _say(f"the one the {a} {verb} was the {b}", fact),
        _say(f"what the {a} did was {VERBS[verb]} the {b}", fact),
    ]
    return premises, [_active(verb, a, b)]


def _passives(verb: str, a: str, b: str) -> Sentences:
    fact = _claim(verb, a, b)
    premises = [
        _passive(verb, a, b),
        _say(f"it was the {b} who was {verb} by the {a}", fact),
        _say(f"the {b} was the one who was {verb} by the {a}", fact),
        _say(f"the one the {b} was {verb} by was the {a}", fact),
    ]
    return premises, [_active(verb, a, b), *[_passive(verb, a, b)] * 3]


def _relative_clauses(verb: str, does: str, a: str, b: str) -> Sentences:
    fact, a_does, b_does = _claim(verb, a, b), _claim(does, a), _claim(does, b)
    premises = [
        _say(f"the {a} who {verb} the {b} {does}", fact, a_does),
        _say(f"the {a} who {does} {verb} the {b}", fact, a_does),
        _say(f"the {b} whom the {a} {verb} {does}", fact, b_does),
        _say(f"the {a} {verb} the {b} who {does}", fact, b_does),
    ]
    return premises, [_say(f"the {a} {does}", a_does), _active(verb, a, b)]


def _nested_clauses(*words_and_nouns: str) -> Sentences:
    """Clauses in clauses: words are the verbs of the clauses and ``does``, then come the nouns.

    With one clause more, "the king who helped the nurse slept" is "the king who helped the nurse
    whom the pilot called slept": each noun but the last has a clause, in which it acts or is acted
    on, so there are two forms for each clause.
    """
    depth = len(words_and_nouns) // 2 - 1
    verbs, nouns = words_and_nouns[:depth], words_and_nouns[depth + 1 :]
    does, links = words_and_nouns[depth], list(zip(verbs, pairwise(nouns), strict=True))
    premises: list[Sentence] = []
    hypotheses = [_say(f"the {noun} {does}", _claim(does, noun)) for noun in nouns[:2]]
    for acts in product((True, False), repeat=depth):
        phrase, claims = f"the {nouns[-1]}", [_claim(does, nouns[0])]
        for (verb, (noun, other)), acting in reversed([*zip(links, acts, strict=True)]):
            clause = f"who {verb} {phrase}" if acting else f"whom {phrase} {verb}"
            phrase = f"the {noun} {clause}"
            claims.append(_claim(verb, *((noun, other) if acting else (other, noun))))
        premises.append(_say(f"{phrase} {does}", *claims))
    for verb, (noun, other) in links:
        hypotheses += [_active(verb, noun, other), _active(verb, other, noun)]
    return premises, hypotheses


def _conjunction(verb: str, p: str, q: str, c: str) -> Sentences:
    to_c = Fact(verb, p, c), Fact(verb, q, c)
    by_c = Fact(verb, c, p), Fact(verb, c, q)
    either = [
        _say(f"the {p} or the {q} {verb} the {c}", frozenset(to_c)),
        _say(f"the {c} {verb} the {p} or the {q}", frozenset(by_c)),
    ]
    both = [
        _say(f"the {p} and the {q} {verb} the {c}", *[frozenset({f}) for f in to_c]),
        _say(f"the {c} {verb} the {p} and the {q}", *[frozenset({f}) for f in by_c]),
    ]
    premises = [*either, *both, *both]
    return premises, [*either, *[_active(verb, p, c), _active(verb, c, p)] * 2]


def _negation(verb: str, p: str, q: str, c: str) -> Sentences:
    p_c, not_p_c = (_claim(verb, p, c, holds) for holds in (True, False))
    q_c, not_q_c = (_claim(verb, q, c, holds) for holds in (True, False))
    c_p, not_c_p = (_claim(verb, c, p, holds) for holds in (True, False))
    c_q, not_c_q = (_claim(verb, c, q, holds) for holds in (True, False))
    same_for_both = [
        _say(f"the {p} and the {q} {verb} the {c}", p_c, q_c),
        _say(f"neither the {p} nor the {q} {verb} the {c}", not_p_c, not_q_c),
        _say(f"the {c} {verb} the {p} and the {q}", c_p, c_q),
        _say(f"the {c} {verb} neither the {p} nor the {q}", not_c_p, not_c_q),
    ]
    premises = [
        _say(f"the {p} but not the {q} {verb} the {c}", p_c, not_q_c),
        _say(f"the {c} {verb} the {p} but not the {q}", c_p, not_c_q),
        *same_for_both,
        *same_for_both,
    ]
    hypotheses = [say(verb, *pair) for say in (_active, _negated) for pair in ((p, c), (c, p))]
    return premises, hypotheses


def _quantifiers(rng: Random) -> Scene:
    (noun, patient), verb = rng.sample(NOUNS, 2), rng.choice(list(VERBS))
    adjectives = ["", *rng.sample(ADJECTIVES, 2)]
    adverbs = ["", rng.choice(ADVERBS)]
    action = f"{verb} the {patient}"
    sentences = []
    for quantifier, adjective, adverb in product(MONOTONE, adjectives, adverbs):
        restrictor = frozenset(filter(None, [noun, adjective]))
        scope = frozenset(filter(None, [action, adverb]))
        text = " ".join(filter(None, [quantifier, adjective, noun, action, adverb]))
        sentences.append(_say(text, Quantified(quantifier, restrictor, scope)))
    return frozenset([noun, patient, verb]), sentences, sentences


DEEPEST = 3
"""The largest depth, beyond which people do not follow."""


def nested_clauses(depth: int) -> Callable[[Random], Scene]:
    """The scene of relative clauses, ``depth`` of them in one another, for a depth of 2 or 3."""
    return _scene(_nested_clauses, depth + 1, *[VERBS] * depth, INTRANSITIVES)


# (share in train, share in validation and test, scene) of each phenomenon. Who did what to whom is
# what a linear probe does worst, so it has the largest share of the scored rows.
PHENOMENA: dict[str, tuple[int, int, Callable[[Random], Scene]]] = {
    "word order": (1, 5, _scene(_word_order, 2, VERBS)),
    "passive": (1, 5, _scene(_passives, 2, VERBS)),
    "relative clause": (1, 5, _scene(_relative_clauses, 2, VERBS, INTRANSITIVES)),
    "conjunction": (1, 2, _scene(_conjunction, 3, VERBS)),
    "negation": (1, 1, _scene(_negation, 3, VERBS)),
    "quantifier": (1, 1, _quantifiers),
}
