"""Which fields of adapter_config.json are accepted, and what PEFT gets of them."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model

from iwlora.errors import IwloraError
from iwlora.methods import METHODS, Method
from iwlora.methods.loading import load_adapter
from iwlora.methods.peft_config import checked_settings, peft_config
from iwlora.methods.tiny_models import tiny_model

HARMLESS = {
    "lora": LoraConfig(r=2, target_modules=["query"]),
    "a pattern": LoraConfig(target_modules=r".*\.(q_proj|q)", exclude_modules="x.*"),
    "patterns of ranks": LoraConfig(
        rank_pattern={"^bert.layer.0.query": 4}, alpha_pattern={r"layer\.[0-3]\.key": 0.5}
    ),
    "layers": LoraConfig(layers_to_transform=[0, 1], layers_pattern="layer", bias="all"),
    "tokens": LoraConfig(
        trainable_token_indices={"embed_tokens": [1, 2]}, modules_to_save=["head"]
    ),
    "variants": LoraConfig(use_dora=True, use_rslora=True, init_lora_weights="pissa_niter_16"),
    "prefix": PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4, token_dim=16),
}


@pytest.mark.quick
@pytest.mark.parametrize("config", HARMLESS.values(), ids=HARMLESS)
def test_what_peft_writes_comes_back(config: Any, tmp_path: Path) -> None:
    config.save_pretrained(str(tmp_path))
    read = peft_config(checked_settings(tmp_path / "adapter_config.json"))
    assert type(read) is type(config)
    given, found = config.to_dict(), read.to_dict()
    assert {k: v for k, v in found.items() if v != given[k]} == {}


def test_other_types_are_refused(tmp_path: Path) -> None:
    PromptTuningConfig(num_virtual_tokens=2).save_pretrained(str(tmp_path))
    with pytest.raises(
        IwloraError, match=r"peft_type='PROMPT_TUNING' was given; accepted are LORA"
    ):
        checked_settings(tmp_path / "adapter_config.json")


@pytest.mark.parametrize("kind", [None, 3, ["LORA"], {"LORA": 1}])
def test_a_type_that_is_no_name(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
    with pytest.raises(IwloraError, match="peft_type"):
        checked_settings(tmp_path / "adapter_config.json")


def test_a_method_of_another_package_declares_its_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scaled(Method):
        name = "scaled"
        peft_fields = {"IA3": ("target_modules", "feedforward_modules")}  # noqa: RUF012

    model = tiny_model("bert")
    config = IA3Config(target_modules=["key"], feedforward_modules=[])
    get_peft_model(model, config).save_pretrained(tmp_path, save_embedding_layers=False)
    with pytest.raises(IwloraError, match="peft_type='IA3'"):
        load_adapter(tiny_model("bert"), tmp_path)
    monkeypatch.setitem(METHODS, "scaled", Scaled)
    assert type(load_adapter(tiny_model("bert"), tmp_path).peft_config["default"]) is IA3Config
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "init_ia3_weights": "file"}))
    with pytest.raises(IwloraError, match="init_ia3_weights='file' was given"):
        load_adapter(tiny_model("bert"), tmp_path)


SLOW = [
    r"(a+)+$",
    r"(a*)*",
    r"(a|a){9}",
    r"a**",
    r"(\w+\s?)+$",
    r".*.*.*.*x",
    r"(a{1,9}){9}",
    "(",
    "[",
]


@pytest.mark.parametrize("pattern", SLOW)
def test_patterns_that_could_take_long_are_refused(pattern: str, tmp_path: Path) -> None:
    file = tmp_path / "adapter_config.json"
    for field, value in (("target_modules", pattern), ("rank_pattern", {pattern: 2})):
        file.write_text(json.dumps({"peft_type": "LORA", field: value}))
        with pytest.raises(IwloraError, match=field):
            checked_settings(file)


@pytest.mark.parametrize(
    ("field", "most"),
    [("target_modules", 2**16), ("modules_to_save", 100), ("rank_pattern", 4096)],
)
def test_more_names_than_a_model_has_are_refused(field: str, most: int, tmp_path: Path) -> None:
    file = tmp_path / "adapter_config.json"
    for count in (most, most + 1):
        names = ["query"] * count
        value = {f"q{n}": 1 for n in range(count)} if field == "rank_pattern" else names
        file.write_text(json.dumps({"peft_type": "LORA", field: value}))
        refusal = pytest.raises(IwloraError, match=str(most))
        with refusal if count > most else nullcontext():
            checked_settings(file)


def test_accepted_patterns_are_quick() -> None:
    import re

    started = time.perf_counter()
    for pattern in (r".*.*.*x", r"\w+\d*[ab]+x"):
        assert not re.match(pattern, "a" * 300)
    assert time.perf_counter() - started < 2.0


def test_weights_that_are_missing_are_not_asked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    LoraConfig(r=2, target_modules=["query"]).save_pretrained("a/b")
    with pytest.raises(IwloraError, match=r"a/b has no adapter: adapter_model.safetensors"):
        load_adapter(tiny_model("bert"), "a/b")


@pytest.mark.parametrize("fields", [{"layers_pattern": "layer"}, {"task_type": " "}], ids=str)
def test_what_peft_itself_refuses_is_named(fields: dict[str, Any], tmp_path: Path) -> None:
    LoraConfig(r=2, target_modules=["query"]).save_pretrained(str(tmp_path))
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(IwloraError, match=r"cannot load the adapter in .*(layers_|task type)"):
        load_adapter(tiny_model("bert"), tmp_path)
