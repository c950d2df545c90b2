"""The bag of words against scikit-learn's own pipeline, without our limits."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from iwlora.tasks.floors.bag_of_words import MOST_WORDS, bounded_rows, word_features
from iwlora.tasks.floors.linear import linear_class_sets, linear_classes, linear_numbers

pytestmark = pytest.mark.quick

WORDS = "good bad old new film book dull fine slow fast".split()


def texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=6)) for _ in range(count)]


TRAIN, SCORED = texts(120, 0), texts(40, 1)


def test_words_give_what_a_pipeline_of_scikit_learn_gives() -> None:
    labels = [text.count("good") - text.count("bad") > 0 for text in TRAIN]
    features, scored = word_features([TRAIN], [SCORED])
    classes = linear_classes(features, [int(label) for label in labels], scored)
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
    assert classes == pipeline.fit(TRAIN, labels).predict(SCORED).astype(int).tolist()
    numbers = [float(3 + 7 * text.count("dull")) for text in TRAIN]
    spread = np.std(numbers)
    ridge = make_pipeline(TfidfVectorizer(), Ridge()).fit(TRAIN, np.array(numbers) / spread)
    predicted = linear_numbers(features, numbers, scored)
    assert predicted == pytest.approx(ridge.predict(SCORED) * spread, rel=1e-6)


def test_each_class_of_a_set_is_a_model_of_its_own() -> None:
    sets = [[k for k in range(3) if WORDS[k] in text] for text in TRAIN]
    features, scored = word_features([TRAIN], [SCORED])
    predicted = linear_class_sets(features, sets, scored, classes=5)
    for k in range(3):
        one = linear_classes(features, [int(k in row) for row in sets], scored)
        assert [int(k in row) for row in predicted] == one
    assert not any({3, 4} & set(row) for row in predicted)  # classes that no training row has
    assert linear_class_sets(features, [[0]] * 120, scored, classes=1) == [[0]] * 40


def test_each_text_column_has_its_own_words() -> None:
    """Otherwise a word of the hypothesis could not count otherwise than one of the premise."""
    first, second = ["good", "bad"] * 20, ["bad", "good"] * 20
    features, scored = word_features([first, second], [["good"], ["bad"]])
    assert features.shape == (40, 4)
    assert linear_classes(features, [1, 0] * 20, scored) == [1]


def test_texts_without_words_and_a_single_class_are_no_error() -> None:
    features, scored = word_features([["?!", "..."]], [["good"]])
    assert (features.shape, scored.shape) == ((2, 1), (1, 1))
    assert linear_classes(features, [0, 1], scored) in ([0], [1])
    assert linear_classes(features, [1, 1], scored) == [1]


def test_scripts_without_spaces_have_words() -> None:
    features, _ = word_features([["好的电影", "坏的电影"]], [["好"]])
    assert features.shape[1] == 5


def test_the_limits_hold() -> None:
    assert list(bounded_rows([["a"] * 7])) == list(range(7))
    assert list(bounded_rows([["a"] * 7], most_rows=3)) == [0, 3, 6]
    long = ["x" * 1_000_000] * 12
    assert len(bounded_rows([long])) == 4  # of 3 columns in 12 the 5 million characters allow 4
    many = [f"w{number}" for number in range(MOST_WORDS + 50)]
    assert word_features([[" ".join(many)]], [["w1"]])[0].shape[1] == MOST_WORDS
