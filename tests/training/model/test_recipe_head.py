"""``modules_to_save``, ``add_tokens`` and ``trainable_token_indices``: trained, saved, counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from conftest import tiny_config
from iwlora import IwloraError, build_recipe, export, load_adapter, load_trained, predict, train
from iwlora.methods import METHODS
from iwlora.methods.budget import count_parameters
from iwlora.methods.loading import merge_adapter
from iwlora.sites import sites
from iwlora.training.model.backbone import load_backbone
from iwlora.training.model.recipe_head import add_tokens, declare_modules
from tiny_study import VOCABULARY, run_settings, save_model, save_task

ROWS, WIDTH = len(VOCABULARY), 16
GOOD = VOCABULARY.index("good")
EMBEDDINGS = "bert.embeddings.word_embeddings"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Reviews with a word that the tokenizer does not have."""
    task = save_task(tmp_path_factory.mktemp("task"), train=32, validation=8)
    for split in ("train", "validation"):
        file = Path(task[split])
        file.write_text(file.read_text(encoding="utf-8").replace("film", "<movie>"))
    return task


def settings(model: Path, task: dict[str, str], method: str = "lora", **fields: Any) -> Any:
    return {**run_settings(model, task, method), **fields}


@torch.no_grad()
def logits(model: Any, tokenizer: Any) -> Tensor:
    batch = tokenizer(["it is a <movie>", "a very good <movie>"], padding=True, return_tensors="pt")
    output: Tensor = model.eval()(**batch).logits
    return output


@pytest.mark.quick
def test_new_tokens_are_trained_saved_and_exported(
    tiny_bert: Path, task: dict[str, str], tmp_path: Path
) -> None:
    """With AdaLoRA, whose adapter is not written by PEFT."""
    fields = {"add_tokens": ["<movie>"], "trainable_token_indices": [GOOD]}
    recipe = build_recipe(settings(tiny_bert, task, "adalora", **fields))
    result = train(recipe, tmp_path / "run")
    classifier = 2 * (WIDTH + 1)
    assert result["head_parameters"] == classifier + 2 * WIDTH
    assert "the embeddings of 2 tokens train too: 32 parameters" in result["notes"]
    model, tokenizer = load_trained(tmp_path / "run")
    assert tokenizer.convert_tokens_to_ids("<movie>") == ROWS
    expected = logits(model, tokenizer)
    predict(tmp_path / "run", task["validation"], tmp_path / "predictions.csv")

    adapter = export(tmp_path / "run", tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    for seed in (1, 2):
        torch.manual_seed(seed)
        base = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
        base.resize_token_embeddings(len(tokenizer))
        peft_model = PeftModel.from_pretrained(base, str(adapter))
        torch.testing.assert_close(logits(peft_model, tokenizer), expected, rtol=1e-5, atol=1e-5)
    merged = export(tmp_path / "run", tmp_path / "merged", merge=True)
    plain = AutoModelForSequenceClassification.from_pretrained(merged)
    torch.testing.assert_close(logits(plain, tokenizer), expected, rtol=1e-5, atol=1e-5)
    before = AutoModelForSequenceClassification.from_pretrained(tiny_bert).get_input_embeddings()
    after = plain.get_input_embeddings().weight
    changed = (after[:ROWS] != before.weight).any(1).nonzero().flatten().tolist()
    assert changed == [GOOD], "no other row of the table changes"


@pytest.mark.quick
@pytest.mark.parametrize("name", ["lora", "adalora", "prefix", "bitfit", "full"])
def test_modules_to_save_train_as_a_whole(tiny_bert: Path, tmp_path: Path, name: str) -> None:
    model, tokenizer = load_backbone(str(tiny_bert), ["no", "yes"])
    task = {"name": "builtin/entailment"}
    modules = ["word_embeddings", "encoder.layer.1.output.dense"]
    recipe = build_recipe(settings(tiny_bert, task, name, modules_to_save=modules))
    table, dense = ROWS * WIDTH, 24 * WIDTH + WIDTH
    (note,) = declare_modules(model, recipe)
    assert note.endswith(f"train as a whole (modules_to_save): {table + dense:,} parameters")
    targets = sites(model)
    assert "bert.encoder.layer.1.output.dense" not in [site.name for site in targets]
    attached = recipe.method.attach(model, targets, 0)
    assert count_parameters(attached)["head_parameters"] == 2 * WIDTH + 2 + table + dense
    with torch.no_grad():
        for parameter in map(attached.model.get_parameter, attached.trainable):
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    attached.save(tmp_path)
    expected = logits(attached.model, tokenizer)
    if name == "full":
        return
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    loaded = load_adapter(base, tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded, tokenizer), expected, rtol=1e-5, atol=1e-5)
    if not recipe.method.unmergeable:
        merged = logits(merge_adapter(loaded), tokenizer)
        torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("architecture", "tied"), [("gpt2", True), ("llama", False)])
def test_a_language_model_learns_to_write_new_tokens(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    """The row of a new token is trained in the output embeddings too, whether they are tied."""
    folder = save_model(tmp_path / "model", architecture)
    config = tiny_config(architecture)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    task = {"train": "x.jsonl", "validation": "x.jsonl", "kind": {"name": "instruction"}}
    recipe = build_recipe(settings(folder, task, add_tokens=["<movie>"]))

    def resized(seed: int) -> Any:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(folder)
        return model, add_tokens(model, AutoTokenizer.from_pretrained(folder), recipe)

    model, notes = resized(0)
    count = WIDTH if tied else 2 * WIDTH
    assert notes == (f"the embeddings of 1 tokens train too: {count} parameters",)
    attached = METHODS["lora"](rank=2).attach(model, sites(model), 0)
    assert count_parameters(attached)["head_parameters"] == count
    with torch.no_grad():
        for parameter in map(attached.model.get_parameter, attached.head):
            parameter.add_(torch.randn_like(parameter))
    attached.save(tmp_path)
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert sum("trainable_tokens_delta" in name for name in names) == (1 if tied else 2)
    loaded = load_adapter(resized(1)[0], tmp_path / "adapter")
    tokenizer.add_tokens(["<movie>"])
    expected = logits(attached.model, tokenizer)
    torch.testing.assert_close(logits(loaded, tokenizer), expected, rtol=1e-5, atol=1e-5)
    merged = logits(merge_adapter(loaded), tokenizer)
    torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5)


def test_a_token_that_has_no_embedding_yet_gets_one(tiny_bert: Path, tmp_path: Path) -> None:
    """A tokenizer larger than the table: all rows that are added are trained."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.add_tokens(["<a>", "<movie>"])
    model, _ = load_backbone(str(tiny_bert), ["no", "yes"])
    recipe = build_recipe(
        settings(tiny_bert, {"name": "builtin/entailment"}, add_tokens=["<movie>"])
    )
    assert add_tokens(model, tokenizer, recipe) == (
        "the embeddings of 2 tokens train too: 32 parameters",
    )
    assert model.get_input_embeddings().weight.shape[0] == ROWS + 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modules_to_save": ["word_embedding"]}, "did you mean 'word_embeddings'"),
        ({"add_tokens": ["film"]}, "the tokenizer has 'film' already"),
        ({"trainable_token_indices": [ROWS]}, f"embeddings for 0 to {ROWS - 1}; list new tokens"),
    ],
)
def test_what_the_model_lacks_is_named(
    tiny_bert: Path, fields: dict[str, Any], message: str
) -> None:
    model, tokenizer = load_backbone(str(tiny_bert), ["no", "yes"])
    recipe = build_recipe(settings(tiny_bert, {"name": "builtin/entailment"}, **fields))
    declare = declare_modules if "modules_to_save" in fields else add_tokens
    arguments = (model, recipe) if declare is declare_modules else (model, tokenizer, recipe)
    with pytest.raises(IwloraError, match=message):
        declare(*arguments)


@pytest.mark.parametrize("method", ["prefix", "bitfit", "head", "pfeiffer"])
def test_methods_that_cannot_train_tokens_are_named(tiny_bert: Path, method: str) -> None:
    for fields in ({"add_tokens": ["<movie>"]}, {"trainable_token_indices": [7]}):
        with pytest.raises(IwloraError, match=f"{method} cannot train the embeddings of tokens"):
            build_recipe(settings(tiny_bert, {"name": "builtin/entailment"}, method, **fields))


def test_shared_weights_are_not_copied(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "gpt2")
    model = AutoModelForCausalLM.from_pretrained(folder)
    recipe = build_recipe(settings(folder, {"name": "builtin/entailment"}, modules_to_save=["wte"]))
    with pytest.raises(IwloraError, match=r"transformer\.wte shares its weights with lm_head"):
        declare_modules(model, recipe)


def test_rows_that_peft_does_not_reach_are_refused(tmp_path: Path) -> None:
    """PEFT would train rows of T5's table of both stacks, which a classifier does not read."""
    model, tokenizer = load_backbone(str(save_model(tmp_path, "t5")), ["no", "yes"])
    recipe = build_recipe(
        settings(tmp_path, {"name": "builtin/entailment"}, trainable_token_indices=[7])
    )
    add_tokens(model, tokenizer, recipe)
    with pytest.raises(IwloraError, match=r"PEFT cannot train single token embeddings of T5"):
        recipe.method.attach(model, sites(model), 0)


def test_adapter_config_lists_what_was_trained(
    tiny_bert: Path, task: dict[str, str], tmp_path: Path
) -> None:
    recipe = build_recipe(
        settings(
            tiny_bert,
            task,
            "iw-lora",
            modules_to_save=["pooler.dense"],
            add_tokens=["<movie>"],
        )
    )
    result = train(recipe, tmp_path / "run")
    assert result["head_modules"] == ["bert.pooler.dense", "classifier"]
    stored = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert {"bert.pooler.dense", "classifier"} <= set(stored["modules_to_save"])
    assert stored["trainable_token_indices"] == {EMBEDDINGS: [ROWS]}
