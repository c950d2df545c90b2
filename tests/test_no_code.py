"""No code, no question: models, adapters and runs that would have other code run or asked for."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers.dynamic_module_utils
from transformers import AutoConfig

from commands import call, run_settings, write_recipe
from conftest import save_tiny
from iwlora.errors import IwloraError
from iwlora.methods.loading import load_adapter
from iwlora.training.model.backbone import load_backbone
from iwlora.training.recipe import build
from iwlora.training.run import train
from runs import as_foreign
from watched import Watched, watch, watch_call

CODE = """
from transformers import LlamaConfig, LlamaModel
class Config(LlamaConfig):
    model_type = "own"
class Model(LlamaModel):
    config_class = Config
"""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "llama", "llama")


@pytest.fixture(scope="module")
def settings(llama: Path, reviews: dict[str, str]) -> dict[str, Any]:
    short = {"epochs": 0.2, "lr": 5e-3, "batch_size": 16, "max_length": 32, "precision": "fp32"}
    return run_settings(llama, reviews, train=short)


@pytest.fixture(scope="module")
def finished(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(build(settings), folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    copied = Path(shutil.copytree(finished, tmp_path / "run"))
    as_foreign(copied)
    return copied


@pytest.fixture
def with_code(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose configuration names a file of code next to it."""
    model = Path(shutil.copytree(llama, tmp_path / "with-code"))
    (model / "own.py").write_text(CODE)
    config = json.loads((model / "config.json").read_text())
    auto = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    (model / "config.json").write_text(
        json.dumps({**config, "model_type": "own", "auto_map": auto})
    )
    # transformers executes a copy of the file, and would make it in the home folder.
    monkeypatch.setattr(
        transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    return model


def check(watched: Watched, *told: str) -> None:
    assert not watched.asked
    assert not watched.ran
    assert watched.code == 2, watched.printed
    for text in ("error: ", *told):
        assert text in watched.printed
    assert "Traceback" not in watched.printed


def edited(run: Path, **fields: Any) -> Path:
    """The run with other fields in its adapter's configuration."""
    file = run / "adapter" / "adapter_config.json"
    stored = json.loads(file.read_text())
    stored = {} if "peft_type" in fields else stored
    file.write_text(json.dumps({**stored, **fields}))
    return run


def test_the_watch_notices_a_question_and_code(with_code: Path, tmp_path: Path) -> None:
    asked = watch_call(tmp_path, lambda: AutoConfig.from_pretrained(with_code) and None)
    assert any("Do you wish to run the custom code?" in text for text in asked.asked)
    assert any(file.endswith("own.py") for file in asked.ran)
    assert "custom code" in asked.printed
    plain = watch_call(tmp_path, lambda: 3)
    assert plain == (3, plain.printed, [], [])


def shadow(model: Path) -> dict[str, Any]:
    """A type of PEFT that loads a second model, without a word on whether to trust its code."""
    return {"peft_type": "SHADOW", "task_type": "SEQ_CLS", "shadow_model": str(model)}


@pytest.mark.parametrize(
    "command",
    [
        lambda run, rows, out: ["predict", run, "--input", rows, "--output", out / "p.csv"],
        lambda run, rows, out: ["export", run, "--to", out / "to"],
        lambda run, rows, out: ["export", run, "--merge", "--to", out / "to"],
    ],
    ids=["predict", "export", "merge"],
)
def test_an_adapter_of_another_type_in_a_run(
    run: Path,
    with_code: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    command: Callable[[Path, str, Path], list[object]],
) -> None:
    edited(run, **shadow(with_code))
    (out := tmp_path / "out").mkdir()
    check(
        watch(tmp_path, *command(run, reviews["validation"], out)),
        "adapter_config.json: peft_type='SHADOW' was given; accepted are LORA, PREFIX_TUNING",
    )
    assert not list(out.iterdir())


def test_an_adapter_of_another_type_by_itself(run: Path, llama: Path, with_code: Path) -> None:
    edited(run, **shadow(with_code))

    def load() -> None:
        with pytest.raises(IwloraError, match="peft_type='SHADOW' was given"):
            load_adapter(load_backbone(str(llama), ["neg", "pos"])[0], run / "adapter")

    watched = watch_call(run.parent, load)
    assert (watched.code, watched.asked, watched.ran) == (0, [], [])


@pytest.mark.parametrize("command", ["measure", "train", "compare", "tasks"])
def test_an_adapter_inside_a_model(
    settings: dict[str, Any],
    llama: Path,
    with_code: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    command: str,
) -> None:
    model = Path(shutil.copytree(llama, tmp_path / "model"))
    (model / "adapter_config.json").write_text(json.dumps(shadow(with_code)))
    task = [f"task.{key}={value}" for key, value in reviews.items()]
    recipe = write_recipe(tmp_path / "r.yaml", {**settings, "model": str(model)})
    arms = {**settings, "model": str(model), "methods": ["lora"], "seeds": [0]}
    del arms["method"]
    plan = write_recipe(tmp_path / "c.yaml", arms)
    commands = {
        "measure": ["measure", "--model", model, *task, "--out", tmp_path / "s.json"],
        "train": ["train", recipe, "--out", tmp_path / "out"],
        "compare": ["compare", plan, "--out", tmp_path / "out"],
        "tasks": ["tasks", "show", "--model", model, *task],
    }
    check(watch(tmp_path, *commands[command]), "contains an adapter (adapter_config.json)")


def test_code_of_a_tokenizer(
    settings: dict[str, Any], llama: Path, with_code: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(llama, tmp_path / "model"))
    file = model / "tokenizer_config.json"
    auto = {"auto_map": {"AutoTokenizer": [None, "own.Tokenizer"]}, "tokenizer_class": "Own"}
    file.write_text(json.dumps({**json.loads(file.read_text()), **auto}))
    shutil.copy(with_code / "own.py", model)
    recipe = write_recipe(tmp_path / "r.yaml", {**settings, "model": str(model)})
    watched = watch(tmp_path, "train", recipe, "--out", tmp_path / "out", "--dry-run")
    assert not watched.asked
    assert not watched.ran


def test_attention_from_the_hub(settings: dict[str, Any], llama: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(llama, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    changed = {**config, "attn_implementation": "somebody/attention"}
    (model / "config.json").write_text(json.dumps(changed))
    recipe = write_recipe(tmp_path / "r.yaml", {**settings, "model": str(model)})
    check(watch(tmp_path, "train", recipe, "--out", tmp_path / "o"), "code on the hub")


def undecided(source: str) -> list[str]:
    """Loads that leave to transformers or PEFT whether code may run, or what a file configures."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        needed = "config" if name.startswith("PeftModel") else "trust_remote_code"
        holds_code = name.endswith(".from_pretrained") and not name.startswith("GenerationConfig")
        if holds_code and needed not in {w.arg for w in node.keywords}:
            found.append(ast.unparse(node))
    return found


def test_each_load_says_whether_code_may_run() -> None:
    sources = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))
    loads = [source for source in sources if ".from_pretrained(" in source.read_text("utf-8")]
    assert loads
    for source in loads:
        assert not undecided(source.read_text("utf-8")), source
    for text in ("AutoModel.from_pretrained(x)", "A.from_pretrained(x, config=c)"):
        assert undecided(text), text
    assert undecided("PeftModel.from_pretrained(model, x)")
    assert not undecided("PeftModel.from_pretrained(model, x, config=c)")


FOREIGN: dict[str, dict[str, Any]] = {
    "another method": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4},
    "another rank": {"r": 3},
    "another scale": {"lora_alpha": 17.0},
    "another Δ": {"use_dora": True},
    "another dropout": {"lora_dropout": 0.5},
    "trained biases": {"bias": "all"},
    "a module to import": {"megatron_config": {"a": 1}, "megatron_core": "megatron.evil"},
    "a file of matrices": {"init_lora_weights": "corda", "corda_config": {"cache_file": "/x"}},
    "a file of gradients": {"lora_ga_config": {"cache_file": "/x"}},
    "initial values from data": {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
    "initial values by loading": {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}},
    "initial values that change weights": {"init_lora_weights": "pissa"},
    "settings of the process": {"runtime_config": {"ephemeral_gpu_offload": True}},
    "another class": {"auto_mapping": {"base_model_class": "X", "parent_library": "os"}},
    "more of a mapping": {"auto_mapping": {"parent_library": "transformers.x", "also": "os"}},
    "a revision": {"revision": "refs/pr/1"},
    "more layers": {"layer_replication": [[0, 10_000]]},
    "a busy pattern": {"target_modules": r"(\w+\s?)+$"},
    "busy patterns of ranks": {"rank_pattern": {".*.*.*.*.*x": 4}},
    "a pattern of files": {"target_parameters": ["../../x"]},
    "a type of value": {"modules_to_save": {"score": "/x"}},
    "what no version has": {"pre_load_hook": "os.system"},
}


@pytest.mark.parametrize("fields", FOREIGN.values(), ids=FOREIGN)
def test_a_field_that_the_run_does_not_write(
    run: Path, tmp_path: Path, fields: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    edited(run, **fields)
    outcome = call(capsys, "export", run, "--to", tmp_path / "to")
    assert outcome.code == 2
    assert f"adapter_config.json: {next(iter(fields))}" in outcome.err
    assert "given" in outcome.err
    assert not (tmp_path / "to").exists()
