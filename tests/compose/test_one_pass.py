"""Pools of prompts: one pass of the backbone answers for all sources, as each would alone."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification
from transformers.models.bert.modeling_bert import BertSelfAttention

from commands import call, snapshot
from compose.conftest import write_rows
from compose.test_predict import probabilities, table
from iwlora.compose.compose import compose
from iwlora.compose.predict import predict
from iwlora.methods.loading import load_adapter
from iwlora.training.prediction.new_rows import predict as predict_run
from iwlora.training.run import train
from iwlora.training.state.artifacts import load_trained
from runs import recipe, with_options

pytestmark = pytest.mark.quick

MEMORY = {"a": 4, "b": 2, "c": 5}
BLOCKS = 2


@pytest.fixture(scope="module")
def prompts(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of three runs of apt with memories of other sizes, and ``scored.csv``."""
    folder = tmp_path_factory.mktemp("prompts")
    scored = write_rows(folder / "scored.csv", ("awful", "great"), "the")
    for seed, (name, memory) in enumerate(MEMORY.items()):
        rows = write_rows(folder / f"{name}.csv", ("bad", "good"), ("that", "some", "seen")[seed])
        task = {"train": str(rows), "validation": str(scored), "text": "text", "label": "mood"}
        base = recipe(tiny_bert, task, "apt", lr=5e-2, batch_size=4, seed=seed)
        train(with_options(base, memory=memory, prompts=1 + seed), folder / name)
    return folder


def test_one_pass_gives_the_mean_of_single_runs(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, calls = str(prompts / "scored.csv"), list[int]()
    forward = BertSelfAttention.forward

    @wraps(forward)
    def count(self: Any, hidden_states: Any, *args: Any, **options: Any) -> Any:
        if hidden_states.shape[1] > max(MEMORY.values()):  # tokens, and neither prompts nor memory
            calls.append(len(hidden_states))
        return forward(self, hidden_states, *args, **options)

    monkeypatch.setattr(BertSelfAttention, "forward", count)
    single = []
    for name in MEMORY:
        alone = predict_run(prompts / name, rows, tmp_path / f"{name}.csv")
        single.append(probabilities(table(alone)))
    assert np.ptp(single, axis=0).max() > 1e-4, "else the runs do not differ"
    alone_calls = calls.copy()
    calls.clear()
    pool = compose([prompts / name for name in MEMORY], tmp_path / "pool")
    answers = probabilities(table(predict(pool, rows, tmp_path / "all.csv")))
    assert np.abs(answers - np.mean(single, axis=0)).max() < 1e-6
    assert calls == [16] * BLOCKS, "one pass of one batch"
    assert alone_calls == len(MEMORY) * calls
    some = probabilities(table(predict(pool, rows, tmp_path / "some.csv", use=["b", "c"])))
    assert np.abs(some - np.mean(single[1:], axis=0)).max() < 1e-6


def test_a_removed_source_was_never_there(prompts: Path, tmp_path: Path) -> None:
    whole = compose([prompts / name for name in MEMORY], tmp_path / "whole")
    without = compose([whole], tmp_path / "without", remove=["b"])
    never = compose([prompts / "c", prompts / "a"], tmp_path / "never")
    assert snapshot(without) == snapshot(never)
    outputs = [
        predict(pool, str(prompts / "scored.csv"), tmp_path / f"{pool.name}.csv")
        for pool in (without, never)
    ]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_prompts_and_other_methods_in_one_pool(prompts: Path, runs: Path, tmp_path: Path) -> None:
    """Two sources that share a pass, and one that has its own."""
    sources = [f"lora={runs / 'a'}", f"x={prompts / 'a'}", f"y={prompts / 'b'}"]
    pool = compose(sources, tmp_path / "pool")
    rows = str(runs / "scored.csv")
    single = [
        probabilities(table(predict_run(run, rows, tmp_path / f"{number}.csv")))
        for number, run in enumerate([runs / "a", prompts / "a", prompts / "b"])
    ]
    answers = probabilities(table(predict(pool, rows, tmp_path / "all.csv")))
    assert np.abs(answers - np.mean(single, axis=0)).max() < 1e-6


@pytest.mark.parametrize("names", ["pa", "ap"])
def test_a_source_that_trains_more_of_the_model_has_its_own_pass(
    prompts: Path, tiny_bert: Path, tmp_path: Path, names: str
) -> None:
    rows = str(prompts / "scored.csv")
    task = {"train": str(prompts / "a.csv"), "validation": rows, "text": "text", "label": "mood"}
    base = recipe(tiny_bert, task, "apt", lr=5e-2, batch_size=4)
    train(base.model_copy(update={"modules_to_save": ["pooler"]}), tmp_path / "p")
    runs = [prompts / "a", tmp_path / "p"]
    single = [
        probabilities(table(predict_run(run, rows, tmp_path / f"{run.name}.csv"))) for run in runs
    ]
    # The source that comes first among the names gives the model.
    sources = [f"{name}={run}" for name, run in zip(names, runs, strict=True)]
    pool = compose(sources, tmp_path / "pool")
    both = probabilities(table(predict(pool, rows, tmp_path / "both.csv")))
    assert np.abs(both - np.mean(single, axis=0)).max() < 1e-6


def test_numbers_of_one_pass_are_averaged_in_their_units(tiny_bert: Path, tmp_path: Path) -> None:
    """Each run has a scale of its own, and its head is on it."""
    for name, (low, high) in {"a": (0, 1), "b": (100, 300)}.items():
        lines = [f"a {('bad', 'good')[k % 2]} film,{(low, high)[k % 2]}" for k in range(12)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,stars", *lines]) + "\n")
        task = {split: str(tmp_path / f"{name}.csv") for split in ("train", "validation")}
        task |= {"text": "text", "label": "stars"}
        asked = {**task, "kind": {"name": "regression"}}
        train(recipe(tiny_bert, asked, "apt", epochs=1), tmp_path / "runs" / name)
    sources, rows = [tmp_path / "runs" / name for name in "ab"], str(tmp_path / "a.csv")
    single = [
        [float(row["prediction"]) for row in table(predict_run(run, rows, tmp_path / "x.csv"))]
        for run in sources
    ]
    assert np.mean(single[1]) - np.mean(single[0]) > 50
    both = table(predict(compose(sources, tmp_path / "pool"), rows, tmp_path / "both.csv"))
    answers = [float(row["prediction"]) for row in both]
    assert np.allclose(answers, np.mean(single, axis=0), rtol=1e-6)


def test_a_source_is_exported_for_the_plain_backbone_and_not_merged(
    prompts: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "adapter"
    assert call(capsys, "export", prompts / "a", "--to", to).code == 0
    backbone = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    inputs = {"input_ids": torch.tensor([[2, 5, 6, 3]])}
    trained, _ = load_trained(prompts / "a")
    with torch.no_grad():
        answers = [m.eval()(**inputs).logits for m in (load_adapter(backbone, to), trained)]
    assert torch.equal(*answers)
    refused = call(capsys, "export", prompts / "a", "--to", tmp_path / "model", "--merge")
    assert refused.code == 2
    assert "apt cannot be merged" in refused.err
    assert "leave out --merge" in refused.err
