"""What generated texts are scored with: the primary metric, the tokenizer, several references."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iwlora
from iwlora import IwloraError
from iwlora.tasks import Task, TaskSpec, load
from iwlora.tasks.description import describe_task
from iwlora.tasks.kinds import Evaluation
from iwlora.tasks.kinds.contract import OTHER_REFERENCES
from iwlora.tasks.kinds.generation.instruction import LONGEST_EXACT, Instruction
from iwlora.tasks.vocabulary_fit import vocabulary_fit
from iwlora.training.model.backbone import load_backbone
from iwlora.training.recipe import build
from kinds import save_model

SHORT, LONG = "the cat", "the cat sees a film " * 4


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("writer") / "llama", "llama")


def task_of(folder: Path, rows: Sequence[Mapping[str, Any]], **kind: Any) -> Task:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load(TaskSpec(train=str(file), validation=str(file), kind=kind or None), seed=0)


def prompts(*completions: Any) -> list[dict[str, Any]]:
    return [{"prompt": "who runs ?", "completion": each} for each in completions]


def evaluation(task: Task, *texts: str) -> tuple[Evaluation, list[dict[str, str]]]:
    """An evaluation whose generated texts are ``texts``."""
    rows = task.splits["validation"]
    outputs = {"loss": np.ones(len(rows)), "count": np.ones(len(rows))}
    predictions = [{"prediction": text} for text in texts]
    return Evaluation(task, rows, rows, outputs, None), predictions


@pytest.mark.quick
@pytest.mark.parametrize(
    ("completions", "kind", "first"),
    [
        ([SHORT, SHORT, LONG], {}, "exact_match"),
        ([SHORT, LONG, LONG], {}, "perplexity"),
        ([LONG], {"metric": "exact_match"}, "exact_match"),
        ([SHORT], {"metric": "perplexity"}, "perplexity"),
        ([LONG], {"metric": "rouge"}, "rougeL"),
    ],
)
def test_long_completions_are_ranked_by_perplexity(
    completions: list[str], kind: dict[str, Any], first: str, llama: Path, tmp_path: Path
) -> None:
    options = {"name": "instruction", **kind} if kind else {}
    task = task_of(tmp_path, prompts(*completions), **options)
    model, tokenizer = load_backbone(str(llama), (), task.kind)
    assert len(tokenizer(LONG)["input_ids"]) > LONGEST_EXACT > len(tokenizer(SHORT)["input_ids"])
    ranked = task.ranked(tokenizer)
    assert ranked.metrics[0] == first
    assert set(ranked.metrics) == set(task.metrics)
    fits = {name: vocabulary_fit(task, rows, tokenizer) for name, rows in task.splits.items()}
    described = " ".join(describe_task(task, tokenizer, 64, model.config, fits).split())
    assert f"metrics {first}" in described
    is_chosen = first == "perplexity" and not kind
    assert ("ranked by perplexity (lower is better)" in described) == is_chosen


@pytest.mark.quick
def test_a_run_of_an_older_version_keeps_exact_match(tmp_path: Path) -> None:
    settings = {
        "model": "m",
        "task": {"train": "rows.jsonl", "kind": "instruction"},
        "method": "lora",
        "format": "iwlora-recipe/2",
    }
    former = build(settings).task
    assert former.build_kind(Instruction()).metric == "exact_match"
    del settings["format"]
    assert build(settings).task.build_kind(Instruction()).metric == "auto"


@pytest.mark.quick
def test_a_list_of_texts_holds_references_of_which_the_first_is_learned(tmp_path: Path) -> None:
    rows = prompts(["the cat", "a cat"], "the dog", ["a film"])
    task = task_of(tmp_path, rows, name="instruction")
    assert list(task.splits["train"]["label"]) == ["the cat", "the dog", "a film"]
    assert list(task.splits["train"][OTHER_REFERENCES]) == [["a cat"], [], []]
    scored = task.kind.score(*evaluation(task, "a cat", "the dog", "a cat"))
    assert scored["exact_match"] == pytest.approx(2 / 3)
    alone = task_of(tmp_path, prompts("the cat", ["a film"]), name="instruction")
    assert OTHER_REFERENCES not in alone.splits["train"].column_names
    with pytest.raises(IwloraError, match="column 'completion' is empty"):
        task_of(tmp_path, prompts([]), name="instruction")


@pytest.mark.quick
def test_chinese_is_scored_and_its_signature_says_how(tmp_path: Path) -> None:
    rows = [{"source": "x", "target": ["我非常喜欢这只小猫", "我爱这只猫"]}] * 2
    for metric, name in (("rouge", "rougeL"), ("bleu", "bleu"), ("bleu", "chrf")):
        task = task_of(tmp_path, rows, name="seq2seq", metric=metric)
        scores = task.kind.score(*evaluation(task, "我非常喜欢这只小猫", "我爱这只猫"))
        assert scores[name] == 1
        assert set(task.metrics) | {"loss"} == set(scores)
        signatures = task.kind.signatures(task.splits["validation"])
        assert (
            "tok:zh|" in signatures["bleu"]
            if metric == "bleu"
            else "tok:unicode" in str(signatures)
        )
    forced = task_of(tmp_path, rows, name="seq2seq", metric="bleu", tokenizer="13a")
    scores = forced.kind.score(*evaluation(forced, "我非常喜欢这只大猫", "我爱这只大猫"))
    assert scores["bleu"] == 0
    assert "tok:13a|" in forced.kind.signatures(forced.splits["validation"])["bleu"]


@pytest.mark.quick
def test_a_tokenizer_that_the_metric_has_not_is_refused() -> None:
    for metric, tokenizer in (("rouge", "zh"), ("exact_match", "13a"), ("bleu", "flores200")):
        with pytest.raises(ValueError, match=rf"with task.kind.metric={metric} accepted: auto"):
            TaskSpec(
                train="x.csv", kind={"name": "seq2seq", "metric": metric, "tokenizer": tokenizer}
            )


def test_a_run_stores_signatures_and_its_primary_metric(llama: Path, tmp_path: Path) -> None:
    rows = [
        {"source": f"the dog {word}", "target": ["a film", "the cat"]}
        for word in ("runs", "sees", "sleeps", "is")
    ]
    task_of(tmp_path, rows)
    recipe = build(
        {
            "model": str(llama),
            "task": {
                **{split: str(tmp_path / "rows.jsonl") for split in ("train", "validation")},
                "selection": 0.5,
                "kind": {"name": "seq2seq", "metric": "perplexity", "max_target": 4},
            },
            "method": {"name": "lora", "rank": 2},
            "train": {"epochs": 1, "max_length": 16},
        }
    )
    result = iwlora.train(recipe, tmp_path / "run")
    assert (result["primary_metric"], result["signatures"]) == ("perplexity", {})
    assert set(result["metrics"]) == {"perplexity", "loss"}
    table = (tmp_path / "run" / "predictions" / "validation.csv").read_text()
    head, first = table.splitlines()[:2]
    assert head == "row,line,source,label,other_references,perplexity,tokens"
    assert first.startswith('0,1,the dog runs,a film,"[""the cat""]"')
