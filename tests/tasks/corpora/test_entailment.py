"""The task's labels against an independent reading: parse the English, try every small world."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, combinations, product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iwlora.errors import IwloraError
from iwlora.tasks.corpora import entailment
from iwlora.tasks.corpora.entailment import PHENOMENA, generate

# --- an oracle that shares nothing with the generator: patterns of English and finite worlds

Formula = tuple[object, ...]


def said(verb: str, subject: str, target: str = "") -> Formula:
    return ("atom", (stem(verb), subject, target))


def stem(verb: str) -> str:
    """One form for "hired" and "hire", without a table of verbs."""
    return re.sub(r"(ed|e)$", "", verb)


def both(*parts: Formula) -> Formula:
    return ("and", *parts)


def either(*parts: Formula) -> Formula:
    return ("or", *parts)


def no(part: Formula) -> Formula:
    return ("not", part)


def nested(*facts: tuple[str, ...]) -> Formula:
    return both(*(said(*fact) for fact in facts))


# Sentences without full stop, in lower case and with "the W" written W: exactly one pattern
# may match.
PATTERNS: list[tuple[str, Callable[..., Formula]]] = [
    ("it was N who V N", lambda a, v, b: said(v, a, b)),
    ("it was N that N V", lambda b, a, v: said(v, a, b)),
    ("N was the one who V N", lambda a, v, b: said(v, a, b)),
    ("the one N V was N", lambda a, v, b: said(v, a, b)),
    ("what N did was V N", lambda a, v, b: said(v, a, b)),
    ("N was V by N", lambda b, v, a: said(v, a, b)),
    ("it was N who was V by N", lambda b, v, a: said(v, a, b)),
    ("N was the one who was V by N", lambda b, v, a: said(v, a, b)),
    ("the one N was V by was N", lambda b, v, a: said(v, a, b)),
    ("N who V N V", lambda a, v, b, i: both(said(v, a, b), said(i, a))),
    ("N who V V N", lambda a, i, v, b: both(said(v, a, b), said(i, a))),
    ("N whom N V V", lambda b, a, v, i: both(said(v, a, b), said(i, b))),
    ("N V N who V", lambda a, v, b, i: both(said(v, a, b), said(i, b))),
    ("N who V N who V N V", lambda a, v, b, w, c, i: nested((v, a, b), (w, b, c), (i, a))),
    ("N who V N whom N V V", lambda a, v, b, c, w, i: nested((v, a, b), (w, c, b), (i, a))),
    ("N whom N who V N V V", lambda a, b, w, c, v, i: nested((v, b, a), (w, b, c), (i, a))),
    ("N whom N whom N V V V", lambda a, b, c, w, v, i: nested((v, b, a), (w, c, b), (i, a))),
    ("N and N V N", lambda a, b, v, c: both(said(v, a, c), said(v, b, c))),
    ("N or N V N", lambda a, b, v, c: either(said(v, a, c), said(v, b, c))),
    ("N V N and N", lambda a, v, b, c: both(said(v, a, b), said(v, a, c))),
    ("N V N or N", lambda a, v, b, c: either(said(v, a, b), said(v, a, c))),
    ("N but not N V N", lambda a, b, v, c: both(said(v, a, c), no(said(v, b, c)))),
    ("N V N but not N", lambda a, v, b, c: both(said(v, a, b), no(said(v, a, c)))),
    ("neither N nor N V N", lambda a, b, v, c: no(either(said(v, a, c), said(v, b, c)))),
    ("N V neither N nor N", lambda a, v, b, c: no(either(said(v, a, b), said(v, a, c)))),
    ("N did not V N", lambda a, v, b: no(said(v, a, b))),
    ("N V N", lambda a, v, b: said(v, a, b)),
    ("N V", lambda a, i: said(i, a)),
]
QUANTIFIED = re.compile(
    r"(every|some|no|not every) (?:(young|tall|famous|clever) )?(\w+)"
    r" (\w+ the \w+)(?: (today|twice|outside))?"
)


def parse(sentence: str) -> Formula:
    assert sentence.endswith("."), sentence
    assert sentence[0].isupper(), sentence
    text = sentence[:-1].lower()
    if match := QUANTIFIED.fullmatch(text):
        quantifier, adjective, noun, action, adverb = match.groups()
        return (
            quantifier,
            frozenset({noun, adjective} - {None}),
            frozenset({action, adverb} - {None}),
        )
    readings = [
        read(*match.groups())
        for pattern, read in PATTERNS
        if (match := re.fullmatch(pattern.replace("N", r"the (\w+)").replace("V", r"(\w+)"), text))
    ]
    assert len(readings) == 1, (sentence, readings)
    return readings[0]


def atoms(formula: Formula) -> set[object]:
    if formula[0] == "atom":
        return {formula[1]}
    return set(chain.from_iterable(atoms(part) for part in formula[1:]))


def holds(formula: Formula, true: set[object]) -> bool:
    kind, *parts = formula
    if kind == "atom":
        return parts[0] in true
    truths = [holds(part, true) for part in parts]
    return {"and": all(truths), "or": any(truths), "not": not truths[0]}[kind]


def subsets(things: Iterable[object]) -> list[frozenset[object]]:
    items = sorted(things)
    return [frozenset(c) for n in range(len(items) + 1) for c in combinations(items, n)]


def quantified_holds(formula: Formula, world: Iterable[frozenset[object]]) -> bool:
    quantifier, restrictor, scope = formula
    inside = [scope <= individual for individual in world if restrictor <= individual]
    return {
        "every": all(inside),
        "some": any(inside),
        "no": not any(inside),
        "not every": not all(inside),
    }[quantifier]


def oracle(premise: str, hypothesis: str) -> str:
    """The label by brute force: does the hypothesis hold in every world where the premise does?

    Facts: every truth assignment to the facts that either sentence names. Quantifiers: every
    way for two individuals to have the properties named; two are enough, since one sentence
    of this fragment needs at most one individual to be true or false.
    """
    p, h = parse(premise), parse(hypothesis)
    if isinstance(p[1], frozenset):
        individuals = subsets(p[1] | p[2] | h[1] | h[2])
        worlds = product(individuals, repeat=2)
        fails = any(quantified_holds(p, w) and not quantified_holds(h, w) for w in worlds)
    else:
        worlds = subsets(atoms(p) | atoms(h))
        fails = any(holds(p, w) and not holds(h, w) for w in worlds)
    return "not_entailment" if fails else "entailment"


def wrong(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in rows if oracle(row["premise"], row["hypothesis"]) != row["label"]]


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, str]]]:
    return generate(seed=0)


def content(row: dict[str, str]) -> frozenset[str]:
    """The nouns and verbs of a pair: all words but those of the grammar, in one form each."""
    grammar = {
        *"it was who that the one what did by whom and or but not neither nor".split(),
        *"every some no young tall famous clever today twice outside".split(),
    }
    words = re.findall(r"\w+", f"{row['premise']} {row['hypothesis']}".lower())
    return frozenset(stem(word) for word in words if word not in grammar)


@pytest.mark.parametrize(
    ("premise", "hypothesis", "label"),
    [
        ("The king was praised by the nurse.", "The nurse praised the king.", "entailment"),
        ("The king was praised by the nurse.", "The king praised the nurse.", "not_entailment"),
        ("The king whom the nurse helped slept.", "The nurse slept.", "not_entailment"),
        ("The king or the nurse called the pilot.", "The king called the pilot.", "not_entailment"),
        (
            "Neither the king nor the nurse called the pilot.",
            "The nurse did not call the pilot.",
            "entailment",
        ),
        ("No king called the pilot.", "No tall king called the pilot today.", "entailment"),
        ("No tall king called the pilot.", "No king called the pilot.", "not_entailment"),
        ("Not every tall king called the pilot.", "Not every king called the pilot.", "entailment"),
        ("Every king called the pilot.", "Some king called the pilot.", "not_entailment"),
    ],
)
def test_the_oracle_reads_the_classic_traps(premise: str, hypothesis: str, label: str) -> None:
    assert oracle(premise, hypothesis) == label


def test_every_label_agrees_with_the_oracle(splits: dict[str, list[dict[str, str]]]) -> None:
    for rows in splits.values():
        assert wrong(rows) == []


def test_labels_of_nested_clauses_agree_with_the_oracle() -> None:
    nested = generate(depth=2)
    for split, rows in nested.items():
        assert wrong(rows) == []
        forms = {re.sub(r"the \w+", "N", row["premise"].lower()) for row in clauses(rows)}
        assert {re.sub(r"\w+ed|slept", "V", form) for form in forms} == {
            "N who V N who V N V.",
            "N who V N whom N V V.",
            "N whom N who V N V V.",
            "N whom N whom N V V V.",
        }, split
        labels = Counter(row["label"] for row in clauses(rows))
        assert max(labels.values()) - min(labels.values()) <= 1


def clauses(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in rows if row["phenomenon"] == "relative clause"]


def test_deeper_clauses_leave_the_other_pairs_as_they_are() -> None:
    """Those before them are drawn alike; the default depth is the grammar as it always was."""
    assert generate(depth=1) == generate()
    shallow, deep = (
        [row for row in generate(depth=depth)["train"] if row["phenomenon"] == "passive"]
        for depth in (1, 2)
    )
    assert sorted(map(repr, shallow)) == sorted(map(repr, deep))
    assert {row["premise"].count("who") for row in clauses(generate(depth=3)["test"])} == {3}
    with pytest.raises(IwloraError, match="depth=4 was given; accepted: 1 to 3"):
        generate(depth=4)


def test_the_oracle_catches_every_flipped_label(splits: dict[str, list[dict[str, str]]]) -> None:
    other = {"entailment": "not_entailment", "not_entailment": "entailment"}
    flipped = [row | {"label": other[row["label"]]} for row in splits["test"]]
    assert wrong(flipped) == flipped


BINDING = {"word order": 5, "passive": 5, "relative clause": 5}
SHARES = {  # of the phenomena, and their sum: in train, and in the other splits
    True: (dict.fromkeys(PHENOMENA, 1), 6),
    False: ({**BINDING, "conjunction": 2, "negation": 1, "quantifier": 1}, 19),
}


def test_labels_and_phenomena_are_balanced(splits: dict[str, list[dict[str, str]]]) -> None:
    for name, rows in splits.items():
        counts = Counter((row["phenomenon"], row["label"]) for row in rows)
        assert set(counts) == set(product(PHENOMENA, ("entailment", "not_entailment")))
        shares, parts = SHARES[name == "train"]
        assert {(key, count) for key, count in counts.items()} == {
            ((kind, label), len(rows) * shares[kind] / parts / 2) for kind, label in counts
        }


def test_splits_share_no_pair_no_premise_and_no_lexicon(
    splits: dict[str, list[dict[str, str]]],
) -> None:
    for one, other in combinations(splits.values(), 2):
        assert not {row["premise"] for row in one} & {row["premise"] for row in other}
        assert not set(map(content, one)) & set(map(content, other))
    pairs = [(row["premise"], row["hypothesis"]) for rows in splits.values() for row in rows]
    assert len(pairs) == len(set(pairs))
    assert all(premise != hypothesis for premise, hypothesis in pairs)


def test_every_word_of_test_occurs_in_train(splits: dict[str, list[dict[str, str]]]) -> None:
    words = {
        name: set(re.findall(r"\w+", " ".join(f"{r['premise']} {r['hypothesis']}" for r in rows)))
        for name, rows in splits.items()
    }
    assert words["test"] <= words["train"]


@settings(max_examples=15, deadline=None)
@example(seed=0, sizes=(3, 1, 55))
@given(
    seed=st.integers(0, 2**32),
    sizes=st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)),
)
def test_any_seed_and_size(seed: int, sizes: tuple[int, int, int]) -> None:
    splits = generate(seed, *sizes)
    assert tuple(map(len, splits.values())) == sizes
    assert list(splits) == ["train", "validation", "test"]
    for name, rows in splits.items():
        assert wrong(rows) == []
        counts = Counter((row["phenomenon"], row["label"]) for row in rows)
        shares, parts = SHARES[name == "train"]
        for kind, share in shares.items():
            yes, no = counts[kind, "entailment"], counts[kind, "not_entailment"]
            assert abs(yes + no - len(rows) * share / parts) <= 1
            assert abs(yes - no) <= 1


def test_seeds_differ_and_repeat() -> None:
    assert generate(1, 60, 12, 12) == generate(1, 60, 12, 12)
    assert generate(1, 60, 12, 12) != generate(2, 60, 12, 12)


def test_rows_do_not_depend_on_the_hash_seed() -> None:
    code = "from iwlora.tasks.corpora.entailment import generate; print(generate(3, 48, 12, 12))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": value},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for value in ("0", "1")
    }
    assert outputs == {f"{generate(3, 48, 12, 12)}\n"}


def test_bad_sizes_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entailment, "MAX_FRUITLESS_DRAWS", 100)
    with pytest.raises(IwloraError, match="train=-1, test=-2"):
        generate(train=-1, test=-2)
    with pytest.raises(IwloraError, match="too few 'word order' pairs"):
        generate(train=10**6)
