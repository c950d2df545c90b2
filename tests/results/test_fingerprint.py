"""Differences between fingerprints: named, counted, and never overlooked."""

from __future__ import annotations

from pathlib import Path

import pytest

from iwlora.results.fingerprint import Fingerprint, RowDigests, differences, other_versions


def made(rows: RowDigests, **parts: str) -> Fingerprint:
    return Fingerprint(parts={**rows.parts, **parts}, sources={"train": "a.csv"})


def rows_of(texts: list[int], labels: list[int]) -> RowDigests:
    columns = [[str(cell).encode() for cell in cells] for cells in (texts, labels)]
    return RowDigests.of_splits({"train": (columns[0], columns[1])})


BEFORE = rows_of([1, 2, 3], [7, 8, 7])
CASES = [
    (rows_of([1, 2, 3], [7, 7, 7]), "the labels of 1 row of a.csv (train) changed"),
    (rows_of([1, 5, 3], [7, 9, 7]), "the texts and the labels of 1 row of a.csv (train) changed"),
    (rows_of([4, 5, 3], [7, 8, 7]), "the texts of 2 rows of a.csv (train) changed"),
    (rows_of([2, 1, 3], [8, 7, 7]), "the rows of a.csv (train) are in another order"),
    (rows_of([1, 2], [7, 8]), "a.csv (train) has 2 rows, and it had 3"),
    (rows_of([], []), "a.csv (train) has 0 rows, and it had 3"),
]


@pytest.mark.quick
@pytest.mark.parametrize(("now", "clause"), CASES)
def test_changes_of_rows_are_counted(now: RowDigests, clause: str, tmp_path: Path) -> None:
    BEFORE.save(tmp_path / "rows.json")
    stored = RowDigests.load(tmp_path / "rows.json")
    assert differences(made(BEFORE), made(now), stored, now) == [clause]
    assert differences(made(BEFORE), made(BEFORE), stored, BEFORE) == []
    assert len(differences(made(BEFORE), made(now))) == 1, "without the rows it is named too"


def test_rows_that_only_sha256_tells_apart_are_another_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight bytes of a row may be those of another row; the digest of the split decides."""

    class Colliding:
        def __init__(self, *_: object, **__: object) -> None: ...

        def digest(self) -> bytes:
            return bytes(8)

    monkeypatch.setattr("iwlora.results.fingerprint.hashlib.blake2b", Colliding)
    before, now = rows_of([1, 2], [7, 7]), rows_of([1, 3], [7, 7])
    rows = [each.of(made(each), "train")["texts"].tolist() for each in (before, now)]
    assert rows[0] == rows[1]
    assert differences(made(before), made(now)) == ["the texts of a.csv (train) changed"]


def test_rows_of_a_very_long_split_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwlora.results.fingerprint.COUNTED_ROWS", 2)
    before, now = rows_of([1, 2, 3], [7, 8, 7]), CASES[1][0]
    assert before.rows == {}
    clauses = differences(made(before), made(now), before, now)
    assert clauses == ["the texts and the labels of a.csv (train) changed"]


def test_digests_of_rows_that_are_damaged_or_of_another_run_count_nothing(tmp_path: Path) -> None:
    now = CASES[0][0]
    (tmp_path / "rows.json").write_text("{")
    for rows in (*(RowDigests.load_if_intact(tmp_path / n) for n in ("rows.json", "none")), now):
        clauses = differences(made(BEFORE), made(now), rows, now)
        assert clauses == ["the labels of a.csv (train) changed"]


@pytest.mark.parametrize("part", ["class names", "tokenizer", "model weights", "seed", "numerics"])
def test_each_part_is_named(part: str) -> None:
    before, now = (made(BEFORE, **{part: value}) for value in "01")
    (clause,) = differences(before, now)
    assert part in clause or part == "numerics"


def test_recipes_of_different_formats_are_not_compared_by_digest() -> None:
    before, now, same = (made(BEFORE, recipe=value) for value in ("3:a", "4:b", "3:b"))
    assert differences(before, now) == []
    assert differences(before, same) == ["the recipe is another one"]


def test_splits_that_come_and_go_are_named() -> None:
    now = RowDigests.of_splits(
        {"train": ([b"1", b"2", b"3"], [b"7", b"8", b"7"]), "test": ([], [])}
    )
    assert differences(made(BEFORE), made(now)) == ["the rows of the data (test) are new"]
    assert differences(made(now), made(BEFORE)) == ["the rows of the data (test) are not there"]


def test_versions_are_named() -> None:
    before, now = (Fingerprint(parts={}, versions={"torch": v}) for v in ("2.1", "2.2"))
    assert other_versions(before, now) == ["torch 2.2, and it was 2.1"]
    assert differences(before, now) == []
