"""Loading by name: the built-in task, the limits, the list of tasks, the cost of the import."""

import subprocess
import sys

import pytest

from iwlora.tasks import TaskSpec, list_tasks, load, names
from iwlora.tasks.corpora.entailment import generate
from iwlora.tasks.kinds import KINDS


def texts(split):
    return list(split["premise"])


def entailment(seed=0, **fields):
    return load(TaskSpec(name="builtin/entailment", **fields), seed)


@pytest.fixture(scope="module")
def whole():
    return entailment()


def test_the_built_in_task_is_what_its_grammar_generates(whole):
    assert whole.labels == ("entailment", "not_entailment")
    assert whole.reported == ("test",)
    for name, rows in generate().items():
        found = [
            (r["premise"], r["hypothesis"], whole.labels[r["label"]]) for r in whole.splits[name]
        ]
        assert found == [(row["premise"], row["hypothesis"], row["label"]) for row in rows]


def test_limits_take_the_first_rows_of_a_seeded_shuffle(whole):
    few, more = (entailment(max_train=limit).splits["train"] for limit in (20, 50))
    assert texts(more)[:20] == texts(few)
    assert texts(few) != texts(whole.splits["train"])[:20]
    assert set(texts(few)) <= set(texts(whole.splits["train"]))
    assert texts(entailment(seed=1, max_train=20).splits["train"]) != texts(few)
    assert texts(entailment(max_train=20).splits["train"]) == texts(few)


def test_the_scored_rows_are_the_same_for_every_seed():
    first, second = (entailment(seed, max_validation=30).splits for seed in (0, 1))
    assert len(first["validation"]) == 30
    assert texts(first["validation"]) == texts(second["validation"])
    assert texts(first["test"]) == texts(second["test"])


def test_a_limit_beyond_the_rows_takes_all(whole):
    assert texts(entailment(max_train=10**9).splits["train"]) == texts(whole.splits["train"])


def test_the_list_has_a_row_for_every_name():
    assert [row.name for row in list_tasks()[: len(names())]] == list(names())
    assert {row.name for row in list_tasks()[len(names()) :]} == {"(your files)"}
    assert {row.kind for row in list_tasks()} == set(KINDS)
    assert all(row.metrics and row.splits and row.summary for row in list_tasks())


def test_the_list_tells_what_loading_gives(whole):
    row = next(row for row in list_tasks() if row.name == whole.name)
    assert (row.metrics, row.splits) == (whole.metrics, tuple(whole.splits))


def test_the_import_is_cheap():
    heavy = {"torch", "transformers", "datasets", "sklearn", "pandas", "pyarrow", "scipy"}
    code = "import sys, iwlora.tasks; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "iwlora.tasks.corpora.glue" in loaded
    assert not heavy & loaded
