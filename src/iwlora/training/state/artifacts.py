"""What a finished run leaves: its trained model, and an adapter that other tools load."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.extras import name_missing_extra
from iwlora.inputs.yaml_json import from_json
from iwlora.methods.loading import load_adapter, merge_adapter
from iwlora.methods.saving import adapter_files
from iwlora.results import layout
from iwlora.results.writing import normalize_path, write_errors
from iwlora.training.model.backbone import BUILTIN, load_backbone, load_tokenizer, short_reason
from iwlora.training.model.quantization import quantization
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.stored_task import stored_task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@name_missing_extra()
def load_trained(
    path: str | Path, merge: bool = False, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The trained model of a finished run, in evaluation mode, and its tokenizer.

    With ``merge`` the adapter's update is in the weights and the adapter is gone. Code that comes
    with the backbone is run only with ``trust_remote_code``, whatever the run's recipe says: the
    run may be another's. Raises ``IwloraError`` for a folder that is not a finished run, and
    where nothing can be merged.

    >>> model, tokenizer = load_trained("runs/a")
    >>> type(model).__name__
    'PeftModelForSequenceClassification'
    >>> type(load_trained("runs/a", merge=True)[0]).__name__
    'BertForSequenceClassification'
    """
    from transformers import AutoConfig

    run = RunDir.finished(path)
    saved, task = _saved(run), stored_task(run)
    method = run.recipe().method
    if merge and method.unmergeable:
        raise IwloraError(
            f"{method.name} cannot be merged: {method.unmergeable}; leave out --merge"
        )
    trust = {"trust_remote_code": trust_remote_code}
    tokenizer = load_tokenizer(run.path / layout.TOKENIZER, **trust)
    if tokenizer.pad_token_id is None:
        raise IwloraError(
            f"{run.path / layout.TOKENIZER} is damaged: it names no token to pad with"
        )
    model: Any
    try:
        if saved.name == layout.ADAPTER:
            # What is merged are the pretrained weights, not their quantized form.
            quantized = None if merge else quantization(run.recipe())
            backbone, _ = load_backbone(
                run.recipe().model, task.labels, task.kind, quantization=quantized, **trust
            )
            model = load_adapter(backbone, saved)
            model = merge_adapter(model) if merge else model
        else:
            head = task.kind.auto_class(AutoConfig.from_pretrained(saved, **trust))
            model = head.from_pretrained(saved, **trust)
    except IwloraError:
        raise
    except Exception as error:  # a broken file makes the loaders raise nearly anything
        raise IwloraError(f"what {path} saved cannot be loaded: {short_reason(error)}") from error
    return model.eval(), tokenizer


@name_missing_extra()
def export(
    path: str | Path, to: str | Path, merge: bool = False, trust_remote_code: bool = False
) -> Path:
    """Write the result of a run where other tools expect it, and return the folder.

    The adapter as ``iwlora.load_adapter`` loads it, and PEFT where PEFT knows the method; or with
    ``merge`` (and for full fine-tuning) a whole model. The tokenizer is beside it. Raises
    ``IwloraError`` when ``to`` exists and is not empty, for a run whose files are missing or
    broken, and where nothing can be merged. ``trust_remote_code`` as :func:`load_trained`.

    >>> adapter = export("runs/a", "runs/a-adapter")
    >>> (adapter / "adapter_model.safetensors").is_file()
    True
    """
    run = RunDir.finished(path)
    saved = _saved(run)
    target = normalize_path(to)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise IwloraError(f"{to} exists and is not an empty folder; choose another one")

    def fill(folder: Path) -> None:
        if saved.name == layout.ADAPTER and not merge:
            for name in adapter_files(saved):
                shutil.copyfile(saved / name, folder / name)
            _name_backbone(folder / adapter_files(saved)[0], run.recipe().model)
        else:
            model, _ = load_trained(path, merge=True, trust_remote_code=trust_remote_code)
            model.save_pretrained(folder)
        load_tokenizer(run.path / layout.TOKENIZER, trust_remote_code)
        shutil.copytree(run.path / layout.TOKENIZER, folder, dirs_exist_ok=True)

    _whole_folder(target, fill)
    return target


def _saved(run: RunDir) -> Path:
    """The folder of the adapter, or else of the whole model, after a look at its files."""
    from safetensors import SafetensorError, safe_open

    saved = run.path / (layout.ADAPTER if (run.path / layout.ADAPTER).is_dir() else layout.MODEL)
    config = saved / (adapter_files(saved)[0] if saved.name == layout.ADAPTER else "config.json")
    weights = sorted(saved.glob("*.safetensors"))
    if not (weights and config.is_file() and (run.path / layout.TOKENIZER).is_dir()):
        raise IwloraError(f"{run.path} lacks files of its adapter, model or tokenizer")
    try:
        from_json(config.read_text(encoding="utf-8"))
        for file in weights:
            with safe_open(file, framework="np"):
                pass
    except (OSError, ValueError, SafetensorError) as error:
        raise IwloraError(f"{saved} is damaged: a file in it was cut short ({error})") from error
    return saved


def _name_backbone(config: Path, model: str) -> None:
    """An adapter for others names a built-in backbone by its id on the hub, not by our path."""
    if model in BUILTIN:
        settings = from_json(config.read_text(encoding="utf-8"))
        settings["base_model_name_or_path"] = BUILTIN[model][2]
        config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _whole_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Make ``target`` with everything that ``fill`` writes, or not at all."""
    with write_errors(target.name, target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            fill(temporary)
            os.chmod(temporary, 0o755)
            os.replace(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
