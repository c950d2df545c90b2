"""Runs adapt the layers that the task's forward pass calls, and say what they leave out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import iwlora
from conftest import VOCABULARY
from iwlora.errors import IwloraError
from iwlora.training.recipe import build
from tiny_study import save_task

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 24}


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Gemma 3 for texts and images."""
    import torch
    from transformers import BertTokenizerFast, Gemma3Config, Gemma3ForConditionalGeneration

    folder = tmp_path_factory.mktemp("models") / "gemma3"
    text = {**SIZES, "vocab_size": len(VOCABULARY), "num_key_value_heads": 1, "head_dim": 8}
    config = Gemma3Config(
        text_config={**text, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
        vision_config={**SIZES, "image_size": 16, "patch_size": 4},
        mm_tokens_per_image=4,
        image_token_index=60,
        boi_token_index=61,
        eoi_token_index=62,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    file = folder / "vocab.txt"
    file.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    BertTokenizerFast(str(file), model_max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return save_task(tmp_path_factory.mktemp("task"))


def settings(model: Path, task: dict[str, str], method: str = "lora", **others: Any) -> Any:
    train = {"epochs": 1, "batch_size": 32, "max_length": 32, "precision": "fp32"}
    return {
        "model": str(model),
        "task": task,
        "method": {"name": method, "rank": 2},
        "train": train,
        **others,
    }


@pytest.mark.parametrize("method", ["lora", "adalora", "eva"])
def test_a_text_task_does_not_adapt_the_vision_tower(
    gemma3: Path, task: dict[str, str], method: str, tmp_path: Path
) -> None:
    result = iwlora.train(build(settings(gemma3, task, method)), tmp_path)
    adapter = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert len(adapter["target_modules"]) == 14
    assert all("language_model" in name for name in adapter["target_modules"])
    (left_out,) = [note for note in result["notes"] if "not adapted" in note]
    assert left_out.startswith("12 of 26 matrices")
    assert "vision_tower.encoder.layers.*.self_attn.q_proj (2)" in left_out
    assert result["coverage"] == pytest.approx(0.517, abs=1e-3)
    assert any("51.7% of the matrix parameters" in note for note in result["notes"])


def test_targets_that_the_task_does_not_use_are_refused(gemma3: Path, task: dict[str, str]) -> None:
    from iwlora.training.load import load

    recipe = build(settings(gemma3, task, targets=r".*vision_tower.*"))
    with pytest.raises(IwloraError, match=r"(?s)no effect: .*vision_tower.*q_proj \(2\)"):
        load(recipe)


def test_a_recipe_excludes_by_pattern(gemma3: Path, task: dict[str, str]) -> None:
    from iwlora.training.load import load

    chosen = settings(gemma3, task, targets=["q_proj"], exclude=r".*(vision_tower|layers\.0).*")
    loaded = load(build(chosen))
    assert [site.name.split(".", 2)[2] for site in loaded.sites] == ["layers.1.self_attn.q_proj"]
    assert loaded.uncalled == ()
    assert not any("adapted" in note for note in loaded.notes)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("targets", [], "accepted: all, or a list of kinds"),
        ("exclude", None, "accepted: a list of kinds"),
        ("exclude", [3], "accepted: a list of kinds"),
        ("targets", "(q", "is no regular expression"),
    ],
)
def test_wrong_targets_are_reported(field: str, value: Any, message: str) -> None:
    with pytest.raises(IwloraError, match=f"(?s){field}.*{message}"):
        build(settings(Path("m"), {"name": "glue/rte"}, **{field: value}))  # type: ignore[arg-type]


def test_a_measurement_has_all_matrices_and_a_method_without_sites_leaves_none_out(
    gemma3: Path, task: dict[str, str]
) -> None:
    from iwlora.training.load import load
    from iwlora.training.measure_recipe import measure_recipe

    measured = measure_recipe(build(settings(gemma3, task, "iw-lora")), max_batches=1)
    assert len(measured.values) == 26
    assert len(measured.excluded) == 12
    assert measured.coverage == 1.0
    full = build({**settings(gemma3, task), "method": "head"})
    assert load(full).uncalled == ()
    assert load(full).coverage is None


def test_a_model_of_images_is_refused_with_the_reason(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    from iwlora.training.load import load

    ViTForImageClassification(ViTConfig(**SIZES, image_size=16, patch_size=4)).save_pretrained(
        tmp_path
    )
    recipe = build(settings(tmp_path, {"name": "builtin/entailment"}))
    with pytest.raises(IwloraError, match=r"type vit, .*; it reads pixel_values, and the task has"):
        load(recipe)
