"""``builtin/sentiment``: opinions from a grammar, whose scored words never occur in training.

A sentence is generated together with its opinion. The words that carry the opinion are divided
among the splits, and each form of sentence is as often positive as negative. So a bag of words
learns nothing that helps on other words, and a pretrained model does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from random import Random

from iwlora.errors import raise_all
from iwlora.tasks.corpora.corpus import Corpus
from iwlora.tasks.splits import dataset_from_rows
from iwlora.tasks.task import Task

LABELS = ("negative", "positive")
THINGS = (
    "film book hotel meal concert lecture play garden song party trip museum story game show "
    "painting hike dinner exhibition breakfast speech novel course view"
).split()
# The first 32 words of each list are for training, the next 12 for validation, the rest for test.
NEGATIVE = (
    "bad terrible dreadful boring disappointing ugly disgusting atrocious lousy mediocre annoying "
    "pathetic shoddy depressing horrid revolting dire worthless frustrating dreary shabby "
    "offensive ghastly lame monotonous infuriating laughable unimpressive woeful gloomy "
    "unsatisfying lamentable "
    "awful dull nasty abysmal tedious pointless dismal unbearable clumsy tiresome vile sloppy "
    "horrible poor unpleasant appalling miserable irritating tasteless hideous insipid inferior "
    "painful bland embarrassing repulsive lifeless disastrous"
).split()
POSITIVE = (
    "good excellent superb delightful pleasant amazing marvellous terrific impressive beautiful "
    "magnificent fabulous refreshing thrilling satisfying fine incredible stunning fascinating "
    "uplifting flawless exceptional rewarding elegant agreeable dazzling masterful admirable "
    "gripping charming splendid heavenly "
    "great brilliant lovely outstanding perfect exquisite inspiring nice glorious engaging "
    "sublime appealing "
    "wonderful fantastic enjoyable remarkable captivating memorable gorgeous entertaining joyful "
    "touching breathtaking adorable first-rate spectacular enchanting likeable"
).split()
WORDS_OF = {"train": slice(0, 32), "validation": slice(32, 44), "test": slice(44, 60)}

# {kind of sentence: (its forms, whether "word" turns into the opposite opinion)}. "other" is a word
# of the opposite opinion.
FORMS: dict[str, tuple[tuple[str, ...], bool]] = {
    "plain": (
        (
            "The {thing} was {word}.",
            "I found the {thing} {word}.",
            "We all thought that the {thing} was really {word}.",
            "What a {word} {thing} that was!",
        ),
        False,
    ),
    "negation": (
        (
            "The {thing} was not {word}.",
            "I did not find the {thing} {word}.",
            "Nobody thought that the {thing} was {word}.",
            "The {thing} was anything but {word}.",
        ),
        True,
    ),
    "contrast": (
        (
            "I expected the {thing} to be {other}, but it was {word}.",
            "They had called the {thing} {other}, and yet it was {word}.",
            "The {thing} looked {other} at first and turned out to be {word}.",
            "Far from being {other}, the {thing} was {word}.",
        ),
        False,
    ),
}


@dataclass(frozen=True, kw_only=True)
class SentimentCorpus(Corpus):
    """A task that is generated: it needs no files and no network."""

    grammar_seed: int = 0

    def load(self, name: str, data_dir: str | None) -> Task:
        """The task with the seed of this corpus and the default sizes of :func:`generate`."""
        splits = {}
        for split, rows in generate(self.grammar_seed).items():
            values = [(row["text"], LABELS.index(row["label"])) for row in rows]
            splits[split] = dataset_from_rows(self.text, values)
        return Task(name, self.text, self.labels, self.metrics, splits=splits)


TASKS: Mapping[str, SentimentCorpus] = {
    "builtin/sentiment": SentimentCorpus(
        summary="is an opinion positive? generated from a grammar, no download",
        text=("text",),
        labels=LABELS,
        splits=("train", "validation", "test"),
    )
}


def generate(
    seed: int = 0, train: int = 960, validation: int = 240, test: int = 480
) -> dict[str, list[dict[str, str]]]:
    """Generate the rows of the three splits; the same rows for the same seed and sizes.

    In every split each kind of sentence has a third of the rows, and both labels half of those (to
    within one row where the size does not divide). No opinion word occurs in two splits.

    Args:
        seed: Seeds the draws.
        train: Rows of the training split.
        validation: Rows of the validation split.
        test: Rows of the test split.

    Returns:
        ``{split: [{"text", "label", "kind"}, ...]}``

    Raises:
        IwloraError: A size is negative, or more than the grammar is for.

    Example:
        >>> generate(train=6, validation=0, test=0)["train"][0]["label"] in LABELS
        True
    """
    sizes = {"train": train, "validation": validation, "test": test}
    # A quarter of the sentences of the smallest kind, so that new ones are drawn quickly.
    largest = {
        split: len(THINGS) * len(POSITIVE[words]) * len(FORMS) * len(LABELS)
        for split, words in WORDS_OF.items()
    }
    raise_all(
        [
            f"{split}={size}: accepted are 0 to {largest[split]:,} rows"
            for split, size in sizes.items()
            if not 0 <= size <= largest[split]
        ]
    )
    rng = Random(seed)
    cells = list(product(FORMS, LABELS))
    rows: dict[str, list[dict[str, str]]] = {}
    for split, size in sizes.items():
        drawn: dict[str, dict[str, str]] = {}
        while len(drawn) < size:
            kind, label = cells[len(drawn) % len(cells)]
            text = _sentence(rng, kind, label, WORDS_OF[split])
            drawn.setdefault(text, {"text": text, "label": label, "kind": kind})
        rows[split] = list(drawn.values())
        rng.shuffle(rows[split])
    return rows


def _sentence(rng: Random, kind: str, label: str, words: slice) -> str:
    forms, turns = FORMS[kind]
    lists = {"negative": NEGATIVE[words], "positive": POSITIVE[words]}
    same, opposite = lists[label], lists[LABELS[1 - LABELS.index(label)]]
    if turns:
        same, opposite = opposite, same
    return rng.choice(forms).format(
        thing=rng.choice(THINGS), word=rng.choice(same), other=rng.choice(opposite)
    )
