"""Pools on the disk: what is in them, and which runs fit together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from commands import snapshot
from compose.conftest import write_rows
from iwlora.compose.compose import compose
from iwlora.compose.pool import Pool, verify
from iwlora.compose.predict import predict
from iwlora.errors import IwloraError
from iwlora.results.layout import finished_runs
from runs import as_foreign

pytestmark = pytest.mark.quick


def test_equal_sources_give_equal_bytes(runs: Path, pool: Path, tmp_path: Path) -> None:
    """Whatever their order, and whether a source was there from the beginning."""
    other_order = compose([f"c={runs / 'c'}", runs / "a", runs / "b"], tmp_path / "other")
    assert snapshot(other_order) == snapshot(pool)
    part = compose([runs / "a", runs / "c"], tmp_path / "part")
    grown = compose([part], tmp_path / "grown", add=[runs / "b"])
    assert snapshot(grown) == snapshot(pool)


def test_a_pool_without_a_source_never_had_it(runs: Path, pool: Path, tmp_path: Path) -> None:
    removed = compose([pool], tmp_path / "removed", remove=["b"])
    never = compose([runs / "a", runs / "c"], tmp_path / "never")
    assert snapshot(removed) == snapshot(never)
    of_b = {name: content for name, content in snapshot(pool).items() if "/b/" in name}
    shared = {content for name, content in snapshot(never).items()}
    own = [name for name, content in of_b.items() if content not in shared]
    assert len(own) >= 4, "weights, predictions, recipe and result"
    left = b"".join(snapshot(removed).values())
    assert not [name for name in own if of_b[name] in left]

    rows, without = str(runs / "scored.csv"), tmp_path / "without.csv"
    predict(removed, rows, without)
    used = predict(pool, rows, tmp_path / "used.csv", use=["c", "a"])
    assert used.read_bytes() == without.read_bytes()


def test_a_pool_holds_no_dates_and_is_no_run_of_a_comparison(runs: Path, pool: Path) -> None:
    kept = {path.name for path in (pool / "sources" / "a").iterdir()}
    assert kept == {"adapter", "predictions", "recipe.yaml", "result.json", "tokenizer"}
    found = {run.relative_to(runs).as_posix() for run in finished_runs(runs)}
    assert found == {"a", "b", "c"}


def test_runs_that_do_not_fit_are_named_with_all_that_differs(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "a", tmp_path / "other")
    as_foreign(tmp_path / "other", labels=["no", "yes"], text=["sentence"])
    file = tmp_path / "other" / "recipe.yaml"
    file.write_text(file.read_text().replace("max_length: 32", "max_length: 16"))
    with pytest.raises(IwloraError) as error:
        compose([runs / "a", tmp_path / "other"], tmp_path / "pool")
    message = str(error.value)
    assert "the classes of a and other differ: [neg, pos] and [no, yes]" in message
    assert "the text columns of a and other differ: [text] and [sentence]" in message
    assert "train.max_length of a and other differ: 32 and 16" in message
    as_foreign(tmp_path / "other", kind={"name": "multi-label"}, labels=["pos", "neg"])
    with pytest.raises(IwloraError) as error:
        compose([runs / "a", tmp_path / "other"], tmp_path / "pool")
    message = str(error.value)
    assert "the kinds of task of a and other differ: classification and multi-label" in message
    assert "the classes of a and other differ: [neg, pos] and [pos, neg]" in message
    assert not (tmp_path / "pool").exists()


def test_another_backbone_is_named(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "a", tmp_path / "other")
    stored = Pool.load(compose([runs / "a"], tmp_path / "one")).source("a").result()
    assert stored is not None
    assert stored.fingerprint is not None
    fingerprint = stored.fingerprint.fields()
    for part in ("model weights", "tokenizer"):
        parts = {**fingerprint["parts"], part: "others"}
        as_foreign(tmp_path / "other", fingerprint={**fingerprint, "parts": parts})
        with pytest.raises(IwloraError, match=f"the {part} of a and other differ"):
            compose([runs / "a", tmp_path / "other"], tmp_path / "pool")
    as_foreign(tmp_path / "other", fingerprint=None)
    with pytest.raises(IwloraError, match=r"other .* has no fingerprint"):
        compose([runs / "a", tmp_path / "other"], tmp_path / "pool")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("seq2seq", "texts have no mean"), ("question-answering", "between the windows")],
)
def test_kinds_without_a_mean_say_why(runs: Path, tmp_path: Path, kind: str, reason: str) -> None:
    shutil.copytree(runs / "a", tmp_path / "other")
    text = ["question", "context"] if kind == "question-answering" else ["text"]
    as_foreign(tmp_path / "other", kind={"name": kind}, text=text)
    with pytest.raises(
        IwloraError, match=f"other .* of kind {kind}, which has no average.*{reason}"
    ):
        compose([tmp_path / "other"], tmp_path / "pool")


def test_wrong_sources(runs: Path, pool: Path, tmp_path: Path) -> None:
    def refused(*sources: object, **options: object) -> str:
        with pytest.raises(IwloraError) as error:
            compose([str(source) for source in sources], tmp_path / "new", **options)  # type: ignore[arg-type]
        assert not (tmp_path / "new").exists()
        return str(error.value)

    a, b = runs / "a", runs / "b"
    assert "have the same name 'A'" in refused(a, f"A={b}")
    assert "have the same name 'a'" in refused(pool, add=[f"a={b}"])
    shutil.copytree(a, tmp_path / "a b")
    assert "'a b' cannot be the name of a source" in refused(tmp_path / "a b")
    assert "is not the folder of a run" in refused(runs)
    (tmp_path / "a b" / "result.json").unlink()
    assert "is not finished" in refused(f"a={tmp_path / 'a b'}")
    assert "no source is left" in refused(pool, remove=["a", "b", "c"])
    assert "unknown source 'd'" in refused(pool, remove=["d"])
    assert "is a pool; give it alone" in refused(pool, a)
    assert "--remove changes a pool" in refused(a, remove=["a"])
    with pytest.raises(IwloraError, match="exists and is not an empty folder"):
        compose([a], pool)
    for place in (pool / "sources" / "d", pool / "sources" / "a" / "d", b / "model"):
        with pytest.raises(IwloraError, match=r"--out .* belongs to the results in"):
            compose([a], place)
        assert not place.exists()


def test_a_run_that_was_changed_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "a", tmp_path / "a")
    write_rows(tmp_path / "a" / "predictions" / "validation.csv", ("bad", "good"), "the")
    with pytest.raises(IwloraError, match=r"validation.csv is damaged"):
        compose([tmp_path / "a"], tmp_path / "pool")


def test_a_source_that_was_changed_since_is_refused(runs: Path, pool: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(pool, changed)
    rows, out = str(runs / "scored.csv"), tmp_path / "answers.csv"
    (changed / "sources" / "b" / "adapter" / "adapter.safetensors").unlink()
    (changed / "sources" / "c" / "recipe.yaml").write_text("model: x\n")
    (changed / "sources" / "a" / "notes.txt").write_text("mine")
    for name, problem in {
        "a": "notes.txt does not belong to the pool",
        "b": "adapter.safetensors is missing",
        "c": "recipe.yaml changed since it was composed",
    }.items():
        with pytest.raises(IwloraError, match=problem):
            predict(changed, rows, out, use=[name])
        others = [other for other in "abc" if other != name]
        with pytest.raises(IwloraError, match=problem):
            compose([changed], tmp_path / "new", remove=others)
    states = {(check.state, check.name) for check in verify(changed) if check.state != "intact"}
    assert states == {
        ("changed", "sources/a/notes.txt"),
        ("missing", "sources/b/adapter/adapter.safetensors"),
        ("changed", "sources/c/recipe.yaml"),
    }
    (changed / "sources" / "a" / "notes.txt").unlink()
    predict(changed, rows, out, use=["a"])
