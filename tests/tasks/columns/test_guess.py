"""Columns are guessed from names as people write them, and from contents where names say nothing.

The headers are those of data sets in use; the rows are made for the test.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from iwlora.tasks.columns.guess import Guess, guess_columns
from iwlora.tasks.columns.names import EXACT, SUBJECTS, USUAL, WEAK_TEXTS, plain

pytestmark = pytest.mark.quick

ROWS = 40
SENTENCES = [f"{n} people waited in the rain for a bus that never came" for n in range(ROWS)]
SHORT = [f"wait {n}" for n in range(ROWS)]
NUMBERS = list(range(1000, 1000 + ROWS))
CLASSES = [("red", "green", "blue")[n % 3] for n in range(ROWS)]
STARS = [1 + n % 5 for n in range(ROWS)]
BITS = [n % 2 for n in range(ROWS)]
DATES = [f"Mon Apr 06 22:19:{n} PDT 2009" for n in range(10, 10 + ROWS)]
LISTS = [[f"claim {n}", n] for n in range(ROWS)]
CELLS: dict[str, Any] = {
    "d": DATES,
    "l": LISTS,
    "T": SENTENCES,
    "s": SHORT,
    "n": NUMBERS,
    "c": CLASSES,
    "r": STARS,
    "b": BITS,
}
"""Contents by a letter: texts, short texts, distinct numbers, classes, ratings, 0 and 1, ..."""


def guess(header: str, given: Guess | None = None) -> Guess:
    """The guess for a header such as ``id:n, text:T``: each column with its contents."""
    columns = dict(part.strip().rsplit(":", 1) for part in header.split(","))
    cells: dict[str, Any] = {name: CELLS[letter] for name, letter in columns.items()}
    return guess_columns(list(columns), cells, given or Guess(None, (), ()))


CLASSIFIED = [
    ("review:T, sentiment:c", "review", "sentiment"),
    ("Id:n, Review_Text:T, Rating:r", "Review_Text", "Rating"),
    ("reviewText:T, overall:r, asin:s", "reviewText", "overall"),
    ("ID:n, TEXT:T, LABEL:c", "TEXT", "LABEL"),
    ("Class Index:r, Title:T, Description:T", "Description", "Class Index"),
    ("category:c, Message:T", "Message", "category"),
    ("v1:c, v2:T", "v2", "v1"),
    ("id:n, comment_text:T, toxic:b", "comment_text", "toxic"),
    ("tweet_id:n, airline_sentiment:c, name:s, text:T", "text", "airline_sentiment"),
    ("utterance:s, intent:c", "utterance", "intent"),
    ("headline:T, is_sarcastic:b, article_link:s", "headline", "is_sarcastic"),
    ("title:s, genre:c", "title", "genre"),
    ("title:s, what happens:T, genre:c", "what happens", "genre"),
    ("Unnamed: 0:n, clean_comment:T, category:c", "clean_comment", "category"),
    ("stars:r, text:T, useful:s, business_id:s", "text", "stars"),
    ("Text:T, Emotion:c", "Text", "Emotion"),
    ("body:T, topic:c, uuid:s", "body", "topic"),
    ("data.review:T, data.stars:r", "data.review", "data.stars"),
    ("index:n, frase:T, clase:c", "frase", "clase"),
    ("sentence_A:T, sentence_B:T, entailment_label:c, pair_ID:n", "sentence_A + sentence_B", "ent"),
    ("Quality:b, #1 ID:n, #2 ID:n, #1 String:T, #2 String:T", "#1 String + #2 String", "Quality"),
    ("qid1:n, qid2:n, question1:T, question2:T, is_duplicate:b", "question1 + question2", "is_d"),
    ("gold_label:c, sentence1:T, sentence2:T", "sentence1 + sentence2", "gold_label"),
    ("Headline:T, Body:T, Stance:c", "Headline + Body", "Stance"),
    ("Utterance 1:T, Utterance 2:T, label:b", "Utterance 1 + Utterance 2", "label"),
    ("id:n, verifiable:c, label:c, claim:T, evidence:l", "claim", "label"),
    ("question:T, title:s, answer:b, passage:T", "question + passage", "answer"),
    ("column 1:b, column 2:n, column 3:d, column 4:T", "column 4", "column 1"),
    ("statement:T, status:c", "statement", "status"),
    ("qid:n, question_text:T, target:b", "question_text", "target"),
    ("Text_A:T, Text_B:T, Score:r", "Text_A + Text_B", "Score"),
]


@pytest.mark.parametrize(("header", "text", "label"), CLASSIFIED)
def test_texts_and_classes(header: str, text: str, label: str) -> None:
    found = guess(header)
    assert (found.kind, found.unclear) == (None, None)
    assert " + ".join(found.text) == text
    assert found.label[0].startswith(label)
    assert len(found.label) == 1


GENERATED = [
    ("id:n, Dialogue:T, Summary:T", "seq2seq", "Dialogue", "Summary"),
    ("article:T, highlights:T, id:s", "seq2seq", "article", "highlights"),
    ("text:T, headline:T", "seq2seq", "text", "headline"),
    ("Article:T, Abstract:T", "seq2seq", "Article", "Abstract"),
    ("Source:T, Target:T", "seq2seq", "Source", "Target"),
    ("en:T, de:T", "seq2seq", "en", "de"),
    ("id:n, translation.de:T, translation.en:T", "seq2seq", "translation.de", "translation.en"),
    ("Prompt:T, Response:T", "instruction", "Prompt", "Response"),
    ("Instruction:T, Input:T, Output:T", "instruction", "Instruction + Input", "Output"),
    (
        "Instruction:T, Context:T, Response:T, Category:c",
        "instruction",
        "Instruction + Context",
        "Response",
    ),
    ("question:T, answer:T", "instruction", "question", "answer"),
    ("Problem:T, Level:c, Solution:T", "instruction", "Problem", "Solution"),
    ("English:T, French:T", "seq2seq", "English", "French"),
    ("id:n, dialogue:T, summary:T, topic:s", "seq2seq", "dialogue", "summary"),
    ("Question:T, Context:T, Answers:T", "question-answering", "Question + Context", "Answers"),
    ("Tokens:T, NER_Tags:T, POS_Tags:T", "token-labels", "Tokens", "NER_Tags"),
]


@pytest.mark.parametrize(("header", "kind", "text", "label"), GENERATED)
def test_other_kinds(header: str, kind: str, text: str, label: str) -> None:
    found = guess(header)
    assert (found.kind, " + ".join(found.text), found.label) == (kind, text, (label,))


UNCLEAR = [
    ("comment:T, intent:c, emotion:c", "label", [("intent",), ("emotion",)]),
    ("first:T, second:T, label:c", "text", [("first",), ("second",)]),
    ("note:T, a:c, b:r", "label", [("a",), ("b",)]),
    (
        "comment_text:T, toxic:b, obscene:b, threat:b",
        "label",
        [("toxic", "obscene", "threat"), ("toxic",), ("obscene",), ("threat",)],
    ),
    ("Text:T, Summary:T, Score:r", "label", [("Summary",), ("Score",)]),
    ("note:T, code:n", "label", []),
    ("text:T, id:b, name:s", "label", []),
    ("text:s", "label", []),
    ("id:T, label:c", "text", []),
    ("number:n, label:c", "text", []),
    ("text:T, Rating:n", "label", []),
]


@pytest.mark.parametrize(("header", "field", "choices"), UNCLEAR)
def test_columns_with_an_equal_right_are_no_guess(
    header: str, field: str, choices: list[tuple[str, ...]]
) -> None:
    found = guess(header)
    assert found.unclear == field
    assert list(found.other_texts if field == "text" else found.other_labels) == choices


@pytest.mark.parametrize("header", ["text:T", "id:n, Body:T", "file:s, text:T", "whatever:T"])
def test_texts_alone_are_learned(header: str) -> None:
    found = guess(header)
    text = header.rpartition(":")[0].rpartition(" ")[2]
    assert (found.kind, found.text, found.label) == ("language-modeling", (text,), ())
    assert (found.unclear, found.label_in_text) == (None, True)


def test_texts_are_learned_alone_where_the_kind_says_so() -> None:
    given = Guess("language-modeling", (), ())
    found = guess("text:T, title:s, label:c", given)
    assert (found.text, found.label, found.other_texts) == (("text",), (), (("title",),))
    unclear = guess("first:T, second:T", given)
    assert (unclear.unclear, unclear.other_texts) == ("text", (("first",), ("second",)))
    assert guess("first:T, second:T", Guess(given.kind, ("second",), ())).text == ("second",)


def test_a_guess_has_its_alternatives() -> None:
    found = guess("review:T, title:s, stars:r, product:c")
    assert (found.text, found.label) == (("review",), ("stars",))
    assert found.other_texts == (("title",),)
    assert found.other_labels == (("product",),)
    assert guess("text:T, label:b, label_text:c").other_texts == ()
    assert guess("en:T, de:T").other_texts == (("de",),)
    assert guess("Tokens:T, NER_Tags:T, POS_Tags:T").other_labels == (("POS_Tags",),)


@pytest.mark.parametrize(
    ("header", "given", "text", "label"),
    [
        ("en:T, de:T", Guess(None, ("de",), ()), "de", "en"),
        ("en:T, de:T", Guess(None, (), ("en",)), "de", "en"),
        ("review:T, title:s, stars:r", Guess(None, ("title",), ()), "title", "stars"),
        ("Text:T, Summary:T, Score:r", Guess(None, (), ("Score",)), "Text", "Score"),
        ("Text:T, Summary:T, Score:r", Guess(None, (), ("Summary",)), "Text", "Summary"),
        ("Text:T, Summary:T, Score:r", Guess("seq2seq", (), ()), "Text", "Summary"),
        ("first:T, second:T, label:c", Guess(None, ("second",), ()), "second", "label"),
    ],
)
def test_one_assignment_mends_a_wrong_guess(
    header: str, given: Guess, text: str, label: str
) -> None:
    found = guess(header, given)
    assert (found.text, found.label) == ((text,), (label,))


def by_the_former_rules(columns: list[str]) -> tuple[str | None, tuple[str, ...], str] | None:
    """What versions before the names of ``USUAL`` inferred from names alone, written anew."""
    present = set(columns)
    for kind, texts, labels in EXACT.kinds:
        named = [name for name in labels if name in present]
        if set(texts) <= present and named:
            return kind, texts, named[0]
    pairs = [pair for pair in EXACT.pairs if set(pair) <= present]
    singles = [(name,) for name in EXACT.texts if name in present]
    for text in [*pairs, *singles][:1]:
        for label in EXACT.labels:
            if label in present and label not in text:
                return None, text, label
    return None


def test_files_that_could_be_read_are_read_as_before() -> None:
    usual = [name for _, texts, labels in USUAL.kinds for name in (*texts, *labels)]
    usual += [name for pair in USUAL.pairs for name in pair]
    usual += [*USUAL.texts, *USUAL.labels, *SUBJECTS, *WEAK_TEXTS]
    names = list(dict.fromkeys(usual))
    names = [name for name in names if name not in ("messages", "conversations")]
    read = 0
    for start in range(len(names)):
        for step in range(1, len(names), 7):
            columns = [names[(start + step * n) % len(names)] for n in range(4)]
            columns = list(dict.fromkeys(columns))
            former = by_the_former_rules(columns)
            if former:
                found = guess_columns(columns, {}, Guess(None, (), ()))
                assert (found.kind, found.text, found.label) == (*former[:2], (former[2],))
                read += 1
    assert read > 100


def test_names_are_listed_once() -> None:
    for names in (USUAL.texts, USUAL.labels, SUBJECTS, WEAK_TEXTS):
        assert len(set(map(plain, names))) == len(names)


def test_each_choice_settles_its_column() -> None:
    """Headers and contents drawn at random: no column is text and label, and choices are taken."""
    usual = [name for _, texts, labels in USUAL.kinds for name in (*texts, *labels)]
    names = [*usual, *USUAL.texts, *USUAL.labels, *SUBJECTS, "id", "", "x", "a b", "en", "de"]
    draw, unclear = random.Random(0), 0
    for _ in range(300):
        header = list(dict.fromkeys(draw.choice(names).title() for _ in range(4)))
        cells = {name: CELLS[draw.choice(list(CELLS))] for name in header}
        found = guess_columns(header, cells, Guess(None, (), ()))
        assert not set(found.text) & set(found.label)
        if found.unclear:
            unclear += 1
            in_text = found.unclear == "text"
            for choice in found.other_texts if in_text else found.other_labels:
                given = Guess(None, choice if in_text else (), () if in_text else choice)
                settled = guess_columns(header, cells, given)
                assert (settled.text if in_text else settled.label) == choice
    assert 100 < unclear < 290
