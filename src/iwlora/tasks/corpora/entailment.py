"""``builtin/entailment``: sentence pairs from a grammar, labeled by inference over meanings.

Every sentence is generated together with its meaning, and a label is what
:func:`iwlora.tasks.corpora.entailment_inference.entails` says of two meanings. Pairs come in
crossed quadruples: two premises, each of which entails one of two hypotheses and not the other. So
neither sentence alone gives the label away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from random import Random

from iwlora.errors import IwloraError
from iwlora.tasks.corpora.corpus import Corpus
from iwlora.tasks.corpora.entailment_grammar import (
    DEEPEST,
    PHENOMENA,
    Scene,
    Sentence,
    nested_clauses,
)
from iwlora.tasks.corpora.entailment_inference import Quantified, entails
from iwlora.tasks.splits import dataset_from_rows
from iwlora.tasks.task import Task

LABELS = ("entailment", "not_entailment")
# Whether these pairs are entailments depends on whether "every" presupposes that there are any, so
# they are never generated.
CONTESTED = {("every", "some"), ("no", "not every")}
# After this many draws in a row without a new pair the grammar counts as exhausted.
MAX_FRUITLESS_DRAWS = 5000


@dataclass(frozen=True, kw_only=True)
class EntailmentCorpus(Corpus):
    """A task that is generated: it needs no files and no network."""

    grammar_seed: int = 0
    grammar_depth: int = 1

    def load(self, name: str, data_dir: str | None) -> Task:
        """The task with seed and depth of this corpus and the default sizes of :func:`generate`."""
        splits = {}
        for split, rows in generate(self.grammar_seed, depth=self.grammar_depth).items():
            values = [(r["premise"], r["hypothesis"], LABELS.index(r["label"])) for r in rows]
            splits[split] = dataset_from_rows(self.text, values)
        return Task(name, self.text, self.labels, self.metrics, splits=splits)


TASKS: Mapping[str, EntailmentCorpus] = {
    "builtin/entailment": EntailmentCorpus(
        summary="does the first sentence entail the second? generated from a grammar, no download",
        text=("premise", "hypothesis"),
        labels=LABELS,
        splits=("train", "validation", "test"),
    )
}


def generate(
    seed: int = 0, train: int = 3900, validation: int = 532, test: int = 1330, depth: int = 1
) -> dict[str, list[dict[str, str]]]:
    """Generate the rows of the three splits; the same rows for the same seed and sizes.

    In every split each phenomenon has its share, and in each phenomenon both labels have equally
    many rows (to within one row where the size does not divide). A combination of nouns and verbs
    occurs in one split only.

    Args:
        seed: Seeds the draws.
        train: Rows of the training split.
        validation: Rows of the validation split.
        test: Rows of the test split.
        depth: How many relative clauses are in one another in the pairs of that phenomenon.

    Returns:
        ``{split: [{"premise", "hypothesis", "label", "phenomenon"}, ...]}``

    Raises:
        IwloraError: A size is negative, there is no such depth, or the grammar has fewer different
            pairs.

    Example:
        >>> generate(train=12, validation=0, test=0)["train"][0]["label"] in LABELS
        True
    """
    sizes = {"train": train, "validation": validation, "test": test}
    negative = [f"{name}={size}" for name, size in sizes.items() if size < 0]
    if negative:
        raise IwloraError(f"a split cannot have fewer than 0 rows: {', '.join(negative)}")
    if not 1 <= depth <= DEEPEST:
        raise IwloraError(f"depth={depth} was given; accepted: 1 to {DEEPEST}")
    scenes = {phenomenon: scene for phenomenon, (_, _, scene) in PHENOMENA.items()}
    if depth > 1:
        scenes["relative clause"] = nested_clauses(depth)
    try:
        return _splits(seed, sizes, scenes, [*sizes.values()])
    except _Exhausted:
        # A tiny split beside a large one may have got no nouns and verbs: all get equally many.
        return _splits(seed, sizes, scenes, [int(size > 0) for size in sizes.values()])


class _Exhausted(IwloraError):
    """The nouns and verbs of a split make too few pairs."""


def _splits(
    seed: int,
    sizes: Mapping[str, int],
    scenes: Mapping[str, Callable[[Random], Scene]],
    weights: Sequence[int],
) -> dict[str, list[dict[str, str]]]:
    """The rows of all splits, where a split gets nouns and verbs in proportion to its weight."""
    rng = Random(seed)
    rows: dict[str, list[dict[str, str]]] = {name: [] for name in sizes}
    split_of_lexicon: dict[frozenset[str], str] = {}
    seen: set[tuple[str, str]] = set()
    for number, (phenomenon, scene) in enumerate(scenes.items()):
        missing: dict[tuple[str, str], int] = {}
        for split, size in sizes.items():
            shares = [row[0] if split == "train" else row[1] for row in PHENOMENA.values()]
            counts = _apportion(_apportion(size, shares)[number], [1, 1])
            missing |= {(split, label): n for label, n in zip(LABELS, counts, strict=True)}
        fruitless_draws = 0
        while any(missing.values()):
            fruitless_draws += 1
            if fruitless_draws > MAX_FRUITLESS_DRAWS:
                raise _Exhausted(
                    f"the grammar has too few {phenomenon!r} pairs: {sum(missing.values())} more "
                    "were requested; lower train, validation or test"
                )
            lexicon, premises, hypotheses = scene(rng)
            if lexicon not in split_of_lexicon:
                (split,) = rng.choices(list(sizes), weights=weights)
                split_of_lexicon[lexicon] = split
            split = split_of_lexicon[lexicon]
            for premise, hypothesis in _quadruple(rng, premises, hypotheses):
                label = LABELS[not entails(premise.meaning, hypothesis.meaning)]
                pair = (premise.text, hypothesis.text)
                if missing[split, label] and pair not in seen:
                    fruitless_draws = 0
                    seen.add(pair)
                    missing[split, label] -= 1
                    texts = {"premise": premise.text, "hypothesis": hypothesis.text}
                    rows[split].append({**texts, "label": label, "phenomenon": phenomenon})
    for split_rows in rows.values():
        rng.shuffle(split_rows)
    return rows


def _quadruple(
    rng: Random, premises: Sequence[Sentence], hypotheses: Sequence[Sentence]
) -> list[tuple[Sentence, Sentence]]:
    """Two drawn premises crossed with two hypotheses; empty where no hypotheses fit them."""
    first, second = rng.sample(premises, 2)

    def entailed_only_by(premise: Sentence, other: Sentence) -> list[Sentence]:
        return [
            h
            for h in hypotheses
            if entails(premise.meaning, h.meaning)
            and not entails(other.meaning, h.meaning)
            and h.text != premise.text
            and not (_is_contested(premise, h) or _is_contested(other, h))
        ]

    of_first, of_second = entailed_only_by(first, second), entailed_only_by(second, first)
    if not of_first or not of_second:
        return []
    return list(product((first, second), (rng.choice(of_first), rng.choice(of_second))))


def _is_contested(premise: Sentence, hypothesis: Sentence) -> bool:
    return any(
        isinstance(p, Quantified)
        and isinstance(h, Quantified)
        and (p.quantifier, h.quantifier) in CONTESTED
        for p in premise.meaning
        for h in hypothesis.meaning
    )


def _apportion(total: int, shares: Sequence[int]) -> list[int]:
    """``total`` in parts in proportion to ``shares``, to within one.

    >>> _apportion(7, [2, 1])
    [5, 2]
    """
    bounds = [-(-total * part // sum(shares)) for part in accumulate([0, *shares])]
    return [high - low for low, high in pairwise(bounds)]
