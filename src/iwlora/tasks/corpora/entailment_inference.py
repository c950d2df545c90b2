"""Meanings of sentences and inference over them, for ``builtin/entailment``."""

from __future__ import annotations

from dataclasses import dataclass

# (monotonicity in the restrictor, in the scope) of each quantifier: "up" where the set may grow.
MONOTONE = {
    "every": ("down", "up"),
    "some": ("up", "up"),
    "no": ("down", "down"),
    "not every": ("up", "down"),
}


@dataclass(frozen=True)
class Fact:
    """Whether ``agent`` did ``verb`` (to ``patient``; empty for an intransitive verb)."""

    verb: str
    agent: str
    patient: str = ""
    holds: bool = True


@dataclass(frozen=True)
class Quantified:
    """``quantifier`` of those with all properties in ``restrictor`` have all in ``scope``."""

    quantifier: str
    restrictor: frozenset[str]
    scope: frozenset[str]


# A frozenset of facts is their disjunction.
Claim = frozenset[Fact] | Quantified
Meaning = frozenset[Claim]


def entails(premise: Meaning, hypothesis: Meaning) -> bool:
    """Whether every claim of ``hypothesis`` follows from some claim of ``premise``.

    A disjunction follows from a subset of itself. A quantified claim follows from one with the
    same quantifier by monotonicity in restrictor and scope. This is complete for the grammar, which
    never affirms and denies the same fact in one premise.

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
        return _monotone(restrictor, known.restrictor, claim.restrictor) and _monotone(
            scope, known.scope, claim.scope
        )
    return not isinstance(known, Quantified) and known <= claim


def _monotone(direction: str, old: frozenset[str], new: frozenset[str]) -> bool:
    """Fewer properties describe a larger set: "up" drops properties, "down" adds them."""
    return new <= old if direction == "up" else old <= new
