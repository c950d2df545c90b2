"""The task's labels against an independent reading: parse the English, try every small world."""

from __future__ import annotations

import re
from collections.abc import Callable

# --- an oracle that shares nothing with the generator: patterns of English and finite worlds

W = r"(\w+)"

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


# The first pattern that matches a whole sentence (without its full stop) reads it.
PATTERNS: list[tuple[str, Callable[..., Formula]]] = [
    (f"It was {W} who {W} {W}", lambda a, v, b: said(v, a, b)),
    (f"It was {W} that {W} {W}", lambda b, a, v: said(v, a, b)),
    (f"The one {W} {W} was {W}", lambda a, v, b: said(v, a, b)),
    (f"Neither {W} nor {W} {W} {W}", lambda a, b, v, c: both(no(said(v, a, c)), no(said(v, b, c)))),
    (f"{W} was {W} by {W}", lambda b, v, a: said(v, a, b)),
    (f"{W}, who {W} {W}, {W}", lambda a, v, b, i: both(said(v, a, b), said(i, a))),
    (f"{W}, whom {W} {W}, {W}", lambda b, a, v, i: both(said(v, a, b), said(i, b))),
    (f"{W} {W} {W}, who {W}", lambda a, v, b, i: both(said(v, a, b), said(i, b))),
    (f"{W} and {W} {W} {W}", lambda a, b, v, c: both(said(v, a, c), said(v, b, c))),
    (f"{W} or {W} {W} {W}", lambda a, b, v, c: either(said(v, a, c), said(v, b, c))),
    (f"{W} {W} {W} and {W}", lambda a, v, b, c: both(said(v, a, b), said(v, a, c))),
    (f"{W} {W} {W} or {W}", lambda a, v, b, c: either(said(v, a, b), said(v, a, c))),
    (f"{W} {W} {W} but not {W}", lambda a, v, b, c: both(said(v, a, b), no(said(v, a, c)))),
    (f"{W} but not {W} {W} {W}", lambda a, b, v, c: both(said(v, a, c), no(said(v, b, c)))),
    (
        f"{W} did not {W} {W} but {W}",
        lambda a, v, b, c: both(no(said(v, a, b)), said(v, a, c)),
    ),
    (f"{W} did not {W} {W}", lambda a, v, b: no(said(v, a, b))),
    (f"{W} {W} {W}", lambda a, v, b: said(v, a, b)),
    (f"{W} {W}", lambda a, i: said(i, a)),
]
QUANTIFIED = re.compile(r"(Every|Some|No|Not every) ((?:\w+ )?)(\w+) (\w+ed [A-Z]\w+)((?: \w+)?)")


def parse(sentence: str) -> Formula:
    assert sentence.endswith("."), sentence
    sentence = sentence[:-1]
    if match := QUANTIFIED.fullmatch(sentence):
        quantifier, adjective, noun, action, adverb = (part.strip() for part in match.groups())
        return (
            quantifier,
            frozenset(filter(None, [noun, adjective])),
            frozenset(filter(None, [action, adverb])),
        )
    for pattern, read in PATTERNS:
        if match := re.fullmatch(pattern, sentence):
            return read(*match.groups())
    raise AssertionError(f"no reading of {sentence!r}")


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
        "Every": all(inside),
        "Some": any(inside),
        "No": not any(inside),
        "Not every": not all(inside),
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
    """The names, nouns and verbs of a pair: what is left of its own grammar's words."""
    grammar = {
        *"it was who that the one by whom and or but not did neither nor".split(),
        *"every some no young tall famous rich today loudly outside".split(),
    }
    words = re.findall(r"\w+", f"{row['premise']} {row['hypothesis']}".lower())
    return frozenset(stem(word) for word in words if word not in grammar)


def test_the_oracle_reads_the_classic_traps() -> None:
    assert oracle("Tom was praised by Anna.", "Anna praised Tom.") == "entailment"
    assert oracle("Tom was praised by Anna.", "Tom praised Anna.") == "not_entailment"
    assert oracle("Anna or Tom praised Paul.", "Anna praised Paul.") == "not_entailment"
    assert oracle("No judge hired Tom.", "No tall judge hired Tom today.") == "entailment"
    assert oracle("No tall judge hired Tom.", "No judge hired Tom.") == "not_entailment"
    assert oracle("Every judge hired Tom.", "Some judge hired Tom.") == "not_entailment"


def test_every_label_agrees_with_the_oracle(splits: dict[str, list[dict[str, str]]]) -> None:
    for rows in splits.values():
        assert wrong(rows) == []


def test_the_oracle_catches_every_flipped_label(splits: dict[str, list[dict[str, str]]]) -> None:
    other = {"entailment": "not_entailment", "not_entailment": "entailment"}
    flipped = [row | {"label": other[row["label"]]} for row in splits["test"]]
    assert wrong(flipped) == flipped


def test_labels_and_phenomena_are_balanced(splits: dict[str, list[dict[str, str]]]) -> None:
    for rows in splits.values():
        counts = Counter((row["phenomenon"], row["label"]) for row in rows)
        assert set(counts) == set(product(PHENOMENA, ("entailment", "not_entailment")))
        assert len(set(counts.values())) == 1


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
@given(
    seed=st.integers(0, 2**32),
    sizes=st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)),
)
def test_any_seed_and_size(seed: int, sizes: tuple[int, int, int]) -> None:
    splits = generate(seed, *sizes)
    assert tuple(map(len, splits.values())) == sizes
    assert list(splits) == ["train", "validation", "test"]
    for rows in splits.values():
        assert wrong(rows) == []
        counts = Counter({key: 0 for key in product(PHENOMENA, ("entailment", "not_entailment"))})
        counts.update((row["phenomenon"], row["label"]) for row in rows)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_seeds_differ_and_repeat() -> None:
    assert generate(1, 60, 12, 12) == generate(1, 60, 12, 12)
    assert generate(1, 60, 12, 12) != generate(2, 60, 12, 12)


def test_rows_do_not_depend_on_the_hash_seed() -> None:
    code = "from iwlora.tasks.entailment import generate; print(generate(3, 120, 24, 24))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": value},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for value in ("0", "1", "2")
    }
    assert outputs == {f"{generate(3, 120, 24, 24)}\n"}


def test_bad_sizes_are_told_together() -> None:
    with pytest.raises(IwloraError, match="train=-1, test=-2"):
        generate(train=-1, test=-2)
    with pytest.raises(IwloraError, match="too few 'word order' pairs"):
        generate(train=10**6)
