"""``builtin/sentiment``: labels by another reading, and splits without common opinion words."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from iwlora.errors import IwloraError
from iwlora.tasks.corpora.sentiment import NEGATIVE, POSITIVE, THINGS, generate
from iwlora.tasks.loading import load
from iwlora.tasks.spec import TaskSpec

ROWS = generate()


def opinions(text: str) -> list[str]:
    """The opinion words of a sentence, in order."""
    return [word for word in re.findall(r"[\w-]+", text) if word in {*NEGATIVE, *POSITIVE}]


def reading(text: str) -> str:
    """The last opinion counts, and the other one where it is denied."""
    is_positive = opinions(text)[-1] in POSITIVE
    denied = re.search(r"\bnot\b|^Nobody|anything but", text) is not None
    return "positive" if is_positive != denied else "negative"


def misread(rows: list[dict[str, str]]) -> int:
    return sum(reading(row["text"]) != row["label"] for row in rows)


@pytest.mark.quick
def test_another_reading_gives_the_same_labels() -> None:
    assert all(misread(rows) == 0 for rows in ROWS.values())
    turned = [{**row, "label": "positive"} for row in ROWS["test"]]
    assert misread(turned) == len(turned) / 2


def test_no_opinion_word_is_in_two_splits_or_has_two_opinions() -> None:
    words = {
        split: {w for row in rows for w in opinions(row["text"])} for split, rows in ROWS.items()
    }
    assert sum(map(len, words.values())) == len(set().union(*words.values())) == 120
    assert not {*NEGATIVE} & {*POSITIVE}
    assert len(THINGS) == len({*THINGS})


def test_every_kind_is_as_often_positive_as_negative_and_no_row_comes_twice() -> None:
    for rows in ROWS.values():
        cells = Counter((row["kind"], row["label"]) for row in rows)
        assert set(cells.values()) == {len(rows) // 6}
        assert len({row["text"] for row in rows}) == len(rows)
    assert max(len(row["text"].split()) for rows in ROWS.values() for row in rows) <= 12


def test_a_bag_of_words_learns_nothing_that_helps() -> None:
    train, test = (
        ([row["text"] for row in ROWS[split]], [row["label"] for row in ROWS[split]])
        for split in ("train", "test")
    )
    words = make_pipeline(CountVectorizer(ngram_range=(1, 2)), LogisticRegression())
    score = words.fit(*train).score(*test)
    assert abs(score - 0.5) < 0.05
    assert words.score(*train) > 0.9  # it learns its own words


def test_the_task_has_these_rows_and_the_same_ones_every_time() -> None:
    task = load(TaskSpec(name="builtin/sentiment"), seed=3)
    assert task.labels == ("negative", "positive")
    for split, rows in generate().items():
        assert task.splits[split]["text"][:] == [row["text"] for row in rows]
    assert generate(seed=1) != generate(seed=2)


def test_sizes_are_checked() -> None:
    with pytest.raises(IwloraError, match=r"train=-1: accepted .*\ntest=100000: accepted are 0 to"):
        generate(train=-1, test=100_000)
