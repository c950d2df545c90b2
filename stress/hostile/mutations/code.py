"""Code that a library would run if it trusted the folder, and templates that are programs."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from hostile.mutations.documents import mapping
from hostile.mutations.values import CANARY

PYTHON = f"""
open({CANARY!r}, "w")
import os
os.system("touch {CANARY}")
from transformers import BertConfig as Config, BertForSequenceClassification as Model
from transformers import BertTokenizerFast as Tokenizer
def generate(*args, **kwargs): open({CANARY!r}, "w")
"""
_STARTUP = (
    *("sitecustomize.py", "usercustomize.py", "yaml.py", "torch.py", "numpy.py", "triton.py"),
    *("conftest.py", "json.py", "iwlora.py", "peft.py", "jinja2.py", "setup.py", "__init__.py"),
    *("__main__.py", "matplotlib.py", "sitecustomize/__init__.py", "custom_generate/generate.py"),
)
_AUTO = (
    *("AutoConfig", "AutoModel", "AutoTokenizer", "AutoModelForSequenceClassification"),
    *("AutoProcessor", "AutoFeatureExtractor", "AutoImageProcessor"),
)
_CLASSES = (
    *("canary_module.Config", "canary_module.Model", "evil/repo--canary_module.Model", "../x.Y"),
    *("os.system", "canary_module", "a.b.c.d", "", ".", "--.", ["canary_module.Tokenizer", None]),
)


def modules(file: Path, random: Random, _outside: Path) -> None:
    """Python files next to a file: the names that Python and libraries look for first."""
    for name in random.sample(_STARTUP, 6):
        path = file.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(PYTHON, encoding="utf-8")
    (file.parent / "evil.pth").write_text(f"import os; open({CANARY!r}, 'w')\n", encoding="utf-8")
    (file.parent / "matplotlibrc").write_text("backend: module://canary_module\n", encoding="utf-8")
    (file.parent / "pyproject.toml").write_text("[build-system]\nrequires = ['evil']\n")


def auto_map(file: Path, random: Random, _outside: Path) -> None:
    """A configuration that names a class of a module that comes with it."""
    (file.parent / "canary_module.py").write_text(PYTHON, encoding="utf-8")
    config = mapping(file)
    classes: Any = random.choice(_CLASSES)
    config["auto_map"] = dict.fromkeys(random.sample(_AUTO, 4), classes)
    how = random.randrange(8)
    if how == 0:
        config["auto_map"] = classes
    elif how == 1:
        config |= {"peft_type": random.choice(("VERA", "IA3", "XLORA", "POLY", "X", None, 3))}
    elif how == 2:
        config["auto_mapping"] = {"base_model_class": "Model", "parent_library": "canary_module"}
    elif how == 3:
        config["tokenizer_class"] = random.choice(("canary_module.Tokenizer", "evil/x--a.B", "os"))
    elif how == 4:
        config["model_type"] = random.choice(("own", "canary_module", "", None, 1, ["bert"]))
    elif how == 5:
        config["architectures"] = random.choice((["canary_module.Model"], ["Evil"], "x", [None], 7))
    elif how == 6:
        config["init_lora_weights"] = random.choice(
            ("pissa", "eva", "corda", "loftq", "olora", "canary_module", "pissa_niter_-1", 9, {})
        )
    else:
        config["megatron_config"] = {"x": 1}
        config["megatron_core"] = "canary_module"
    file.write_text(json.dumps(config), encoding="utf-8")


def settings(file: Path, random: Random, outside: Path) -> None:
    """Fields of transformers' and PEFT's configurations that load something else."""
    config = mapping(file)
    name, value = random.choice(_SETTINGS)
    text = json.dumps(value).replace("{outside}", str(outside))
    config[name] = json.loads(text)
    file.write_text(json.dumps(config), encoding="utf-8")


_SETTINGS: tuple[tuple[str, Any], ...] = (
    ("attn_implementation", "kernels-community/flash-attn"),
    ("_attn_implementation", "evil/kernel:attention"),
    ("_attn_implementation_internal", "paged|evil/kernel"),
    ("experts_implementation", "evil/kernel"),
    ("quantization_config", {"quant_method": "gptq", "bits": 4}),
    ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    ("quantization_config", {"quant_method": "canary_module"}),
    ("quantization_config", {"quant_method": "awq", "modules_to_not_convert": 1}),
    ("quantization_config", "x"),
    ("base_model_name_or_path", "evil/repo"),
    ("base_model_name_or_path", "{outside}/model"),
    ("base_model_name_or_path", "../../secret/model"),
    ("revision", "../../x"),
    ("_name_or_path", "{outside}/model"),
    ("tokenizer_file", "{outside}/model/tokenizer.json"),
    ("vocab_file", "{outside}/model/vocab.txt"),
    ("fast_tokenizer_files", ["tokenizer.{outside}.json", "tokenizer.9.9.json"]),
    ("name_or_path", "evil/repo"),
    ("custom_pipelines", {"x": {"impl": "canary_module.P"}}),
    ("transformers_weights", "../../secret/model/model.safetensors"),
    ("transformers_weights", "{outside}/model/model.safetensors"),
    ("adapter_kwargs", {"path": "{outside}"}),
    ("torch_dtype", "canary_module"),
    ("dtype", "int8"),
    ("dtype", {"x": "float16"}),
    ("id2label", {str(number): "\u001b[31m<script>" for number in range(2)}),
    ("label2id", {"a": 10**9}),
    ("problem_type", "multi_label_classification"),
    ("pruned_heads", {"0": [0]}),
    ("tie_word_embeddings", "x"),
    ("use_cache", {"a": 1}),
    ("chunk_size_feed_forward", -3),
    ("output_attentions", True),
    ("torchscript", True),
    ("is_decoder", True),
    ("add_cross_attention", True),
    ("gradient_checkpointing", True),
    ("hidden_act", "canary_module"),
    ("hidden_dropout_prob", 7),
    ("layer_norm_eps", -1.0),
    ("layer_norm_eps", float("nan")),
    ("init_lora_weights", "pissa"),
    ("init_lora_weights", "{outside}/model/model.safetensors"),
    ("eva_config", {"rho": 1.0, "x": 1}),
    ("corda_config", {"cache_file": "{outside}/secret.txt", "covariance_file": "canary"}),
    ("loftq_config", {"loftq_bits": 4}),
    ("lora_ga_config", {"cache_file": "{outside}/secret.txt"}),
    ("arrow_config", {"x": 1}),
    ("task_type", "CAUSAL_LM"),
    ("task_type", "X"),
    ("target_modules", "(a+)+$"),
    ("target_modules", "(.*)*(.*)*(.*)*x"),
    ("target_modules", "all-linear"),
    ("target_modules", ["a" * 10_000] * 100),
    ("layers_pattern", "(x+x+)+y"),
    ("layers_to_transform", [10**9]),
    ("rank_pattern", {"(.*)*x": 10**6}),
    ("alpha_pattern", {".*": float("nan")}),
    ("target_parameters", ["bert.embeddings.word_embeddings.weight"]),
    ("modules_to_save", ["bert", "classifier", "bert.encoder"]),
    ("trainable_token_indices", [10**9]),
    ("layer_replication", [[0, 10**6]]),
    ("use_dora", True),
    ("lora_dropout", 0.999999),
    ("lora_alpha", 10**30),
    ("bias", "all"),
    ("r", -1),
    ("use_rslora", "x"),
)


TEMPLATES = (
    "{% for i in range(1000000000) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{{ 'x' * 10000000000 }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch canary') }}",
    "{{ lipsum.__globals__['os'].popen('touch canary').read() }}",
    "{% include '/etc/passwd' %}{% import 'os' as os %}",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% for m in messages %}{{ m",
    "{{ messages | map('upper') | join }}{{ undefined.x.y }}",
    "{% generation %}{% endgeneration %}{{ raise_exception('\x1b[31m') }}",
)


def template(file: Path, random: Random, _outside: Path) -> None:
    """A chat template that never ends, reaches for Python, or is no template."""
    text = random.choice(TEMPLATES)
    how = random.randrange(3)
    if how == 0:
        (file.parent / "chat_template.jinja").write_text(text, encoding="utf-8")
    elif how == 1:
        folder = file.parent / "additional_chat_templates"
        folder.mkdir(exist_ok=True)
        (folder / "tool_use.jinja").write_text(text, encoding="utf-8")
    else:
        file.write_text(json.dumps(mapping(file) | {"chat_template": text}), encoding="utf-8")
