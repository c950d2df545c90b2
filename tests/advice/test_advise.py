"""The advice as a whole: for five types of models, on the command line and in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModel, BertTokenizerFast

import iwlora
from advice.predicted_costs import cost_of
from commands import call
from iwlora.errors import IwloraError
from iwlora.penalty.lora_pairs import lora_pairs
from iwlora.sites import sites
from iwlora.training.load import load
from tiny_study import VOCABULARY, save_model

pytestmark = pytest.mark.filterwarnings(
    # PEFT looks for parameters in patterns of ranks among the modules only.
    "ignore:The following (rank|alpha)_pattern:RuntimeWarning"
)


@pytest.fixture
def quick_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwlora.advice.advise.estimate_run_cost", cost_of)


def save_mixtral(folder: Path) -> Path:
    """A Mixtral of two blocks with four experts, and the tokenizer of the other tiny models."""
    folder.mkdir()
    config = AutoConfig.for_model(
        "mixtral",
        **dict.fromkeys(["num_hidden_layers", "num_attention_heads", "num_key_value_heads"], 2),
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=24,
        num_local_experts=4,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("quick_costs")
@pytest.mark.parametrize("kind", ["builtin/minilm", "deberta-v2", "t5", "llama", "mixtral"])
def test_the_configuration_attaches_to_exactly_the_matrices(
    kind: str,
    tmp_path: Path,
    reviews: dict[str, str],
    request: pytest.FixtureRequest,
) -> None:
    if kind == "builtin/minilm":
        request.getfixturevalue("needs_minilm")
        model = kind
    elif kind == "mixtral":
        model = str(save_mixtral(tmp_path / kind))
    else:
        # The tokenizer ends each text with [SEP], which T5's head needs as its end of a text.
        fields = {"eos_token_id": VOCABULARY.index("[SEP]")} if kind == "t5" else {}
        model = str(save_model(tmp_path / kind, kind, **fields))
    settings = ["train.batch_size=4", "train.precision=fp32", "task.max_train=16"]
    advice = iwlora.advise(model, reviews["train"], settings, samples=8)
    loaded = load(advice.recipe)
    adapted = {site.name for site in sites(loaded.model)}
    config = json.loads(advice.peft_json)
    assert config.pop("peft_type") == "LORA"
    made: dict[str, Any] = {}
    exec(advice.peft_python, made)
    assert made["config"].to_dict() == LoraConfig(**config).to_dict()
    pairs = lora_pairs(get_peft_model(loaded.model, made["config"]))
    assert {pair.name for pair in pairs} == adapted - {site.name for site in loaded.uncalled}
    assert {pair.scaling for pair in pairs} == {2.0}
    ranks = {pair.rank for pair in pairs}
    # Mixtral's routers have four rows; the table has a row for MiniLM alone.
    assert ranks == {"mixtral": {4, 8}, "builtin/minilm": {1}}.get(kind, {8})
    shown = str(advice)
    assert "on a GPU about 510 MiB: an estimate" in shown
    assert "safe to leave out?" in shown
    assert "without-unimportant-sites against without-random-sites" in shown
    answer = shown.partition("\nrecipe:")[0].splitlines()
    assert all(len(line) <= 100 for line in answer if reviews["train"] not in line)
    cheaper = "query-value" if kind == "builtin/minilm" else "rank-1-everywhere"
    assert advice.neighbors[0].label == cheaper


@pytest.mark.quick
def test_what_is_written_trains(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = [f"task.{key}={value}" for key, value in reviews.items()]
    short = ["train.epochs=1", "train.precision=fp32", "--samples", "32", "--params", "10"]
    out = tmp_path / "advice.yaml"
    written = call(capsys, "advise", "--model", tiny_bert, *task, *short, "--out", out)
    assert written.code == 0, written
    assert f"iwlora train {out} --out runs/advice" in written.out
    recipe = yaml.safe_load(out.read_text())
    assert recipe["method"]["rank"] == recipe["train"]["epochs"] == len(recipe["targets"]) == 1
    assert "timing a few steps (1)" in written.err
    trained = call(capsys, "train", out, "--out", tmp_path / "run")
    assert trained.code == 0, trained
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"rank           1: {result['adapter_parameters']:,} parameters" in written.out


@pytest.mark.quick
@pytest.mark.usefixtures("quick_costs")
def test_python_and_the_command_agree(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"task.{key}={value}" for key, value in reviews.items()]
    settings += ["train.precision=fp32"]
    measured = iwlora.advise(str(tiny_bert), settings=settings, samples=32)
    file = tmp_path / "importance.json"
    measured.sensitivity.save(file)
    limits = {"params": "10", "memory": "10MB", "time": "1s"}
    advice = iwlora.advise(str(tiny_bert), settings=settings, importance=file, **limits)
    given = [word for name, value in limits.items() for word in (f"--{name}", value)]
    printed = call(capsys, "advise", "--model", tiny_bert, *settings, *given, "--importance", file)
    assert (printed.code, printed.out) == (0, str(advice))
    assert "params=10 is not enough: the smallest adapter here has 32 parameters" in printed.out
    assert "time=1.0 s is not enough" in printed.out
    assert "memory=10 MiB: it takes about" in printed.out
    assert advice.recipe.train.max_steps == 50
    assert advice.recipe.train.accumulate == advice.recipe.train.batch_size

    known = iwlora.Sensitivity.load(file)
    other = known.__class__(**{**vars(known), "sites": known.sites[:3]})
    with pytest.raises(IwloraError, match=r"lacks 9 of the 12 matrices.*measure this model"):
        iwlora.advise(str(tiny_bert), settings=settings, importance=other)


@pytest.mark.quick
def test_bad_values_are_refused_in_words(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = reviews["train"]
    for given, message in (
        (["--task", data, "--params", "many"], "params='many' was given; accepted are"),
        (["--task", data, "--memory", "16"], "memory='16' was given; accepted are numbers"),
        (["--task", data, "--time", "soon"], "time='soon' was given; accepted are numbers"),
        (["--task", data, "--samples", "0"], "samples=0 was given; accepted are whole numbers"),
        (["--task", data, "--out", tmp_path / "a.txt"], "give a file whose name ends in .yaml"),
        (["--task", data, "--importance", data], "is not a sensitivity file"),
        (["--task", data, "method.name=full"], "accepted are lora and its variants"),
        (["--task", data, "budget=0.5%"], "give params (--params) instead"),
        (["--task", data, f"task.train={data}"], "give one of them"),
        ([], "task: missing; accepted are a name from 'iwlora tasks'"),
        (["--task", "glue/rtee"], "unknown task 'glue/rtee'; did you mean 'glue/rte'"),
        (["--task", data, "train.lrate=1"], "train.lrate: unknown field"),
        (["--task", data, "method.rank=99"], "method.rank=99 was given; accepted are 1 to 16"),
    ):
        refused = call(capsys, "advise", "--model", tiny_bert, *given)
        assert refused.code == 2, given
        assert message in refused.err, (given, refused)
        assert "Traceback" not in refused.err
        lines = [line for line in refused.err.splitlines() if line != "measuring the importance"]
        assert all(line.startswith(("error: ", "timing a few steps")) for line in lines), refused
