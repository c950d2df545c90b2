"""``iwlora export``: the result of a run as other tools load it, with its model card."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from iwlora.errors import IwloraError
from iwlora.extras import name_missing_extra
from iwlora.inputs.places import files_below
from iwlora.inputs.yaml_json import read_json
from iwlora.methods.saving import OWN_FORMAT, adapter_files
from iwlora.results import layout
from iwlora.results.run import read_environment
from iwlora.results.writing import follow_umask, new_folder_path, reserve, whole_folder
from iwlora.training.model.backbone import load_processor, meta_backbone, published_name
from iwlora.training.model.model_files import processor_files
from iwlora.training.sharing.model_card import model_card
from iwlora.training.state.artifacts import (
    check_saved_head,
    load_saved,
    processor_folder,
    saved_model,
)
from iwlora.training.state.export_record import ExportRecord
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.stored_task import stored_task

logger = logging.getLogger("iwlora")


@name_missing_extra()
def export(
    path: str | Path, to: str | Path, merge: bool = False, trust_remote_code: bool = False
) -> Path:
    """Write the result of a run where other tools expect it, and return the folder.

    The adapter as ``iwlora.load_adapter`` loads it, and PEFT where PEFT knows the method; or with
    ``merge`` (and for full fine-tuning) a whole model. Its processor is next to it. Raises
    ``IwloraError`` when ``to`` exists and is not empty, for a run whose files are missing or
    broken, where nothing can be merged, and for a regression whose head cannot return its targets
    in their units. A model card, ``README.md``, says what it is. ``trust_remote_code`` as
    :func:`load_trained`.

    >>> adapter = export("runs/a", "runs/a-adapter")
    >>> (adapter / "adapter_model.safetensors").is_file()
    True
    """
    run = RunDir.finished(path)
    saved = saved_model(run)
    target = new_folder_path(to)
    scale = stored_task(run).kind.scaling
    if scale and scale.not_in_head:
        raise IwloraError(
            f"{path} cannot be exported, because its model returns the targets on another scale: "
            f"{scale.not_in_head}; `iwlora predict` returns them in their units, and a run with "
            "task.kind.standardize=false and without task.kind.transform can be exported"
        )

    if saved.name == layout.ADAPTER and (reason := stored_task(run).kind.not_exported):
        raise IwloraError(
            f"{path} cannot be exported: {reason}; iwlora.load_trained loads it, and a run of the "
            "method full can be exported, as a model for further runs"
        )
    reserve(target, _export_bytes(run, saved, merge, trust_remote_code), "the export")
    with whole_folder(target) as folder:
        if saved.name == layout.ADAPTER and not merge:
            _check_copied_head(run, saved, trust_remote_code)
            config, tensors = adapter_files(saved)
            shutil.copyfile(saved / tensors, folder / tensors)
            settings = read_json(saved / config)
            settings["base_model_name_or_path"] = published_name(run.recipe().model)
            text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
            (folder / config).write_text(text, encoding="utf-8")
            _save_stops(folder, run, trust_remote_code)
        else:
            model, _ = load_saved(path, merge=True, trust_remote_code=trust_remote_code)
            model.save_pretrained(folder)
        load_processor(processor_folder(run), stored_task(run).kind, trust_remote_code)
        _copy_processor(processor_folder(run), folder, trust_remote_code)
        _write_card(folder, run)
        result = run.result()
        record = ExportRecord.of(folder, result.fingerprint if result else None)
        record.save(folder / layout.EXPORT)
        follow_umask(folder)
    return target


def _write_card(folder: Path, run: RunDir) -> None:
    """Write the model card of what is in the folder."""
    result, task, recipe = run.result(), stored_task(run), run.recipe()
    assert result is not None
    config = folder / "config.json"
    form = "transformers"
    if not config.is_file():
        config = folder / adapter_files(folder)[0]
        form = "iwlora" if config.name == OWN_FORMAT[0] else "peft"
    about = run.path / layout.ENVIRONMENT
    environment = read_environment(about) if about.is_file() else {}
    auto_class = task.kind.auto_class_name or _generating_class(read_json(config))
    base = published_name(recipe.model)
    card = model_card(result, recipe, task, environment, base, auto_class, form)
    (folder / layout.CARD).write_text(card, encoding="utf-8")


def _generating_class(config: Mapping[str, Any]) -> str:
    """The Auto class of a model that generates, by its configuration or its adapter's."""
    pairs = config.get("task_type") == "SEQ_2_SEQ_LM" or config.get("is_encoder_decoder")
    return "AutoModelForSeq2SeqLM" if pairs else "AutoModelForCausalLM"


def _export_bytes(run: RunDir, saved: Path, merge: bool, trust_remote_code: bool) -> int:
    """The bytes of the files that are copied, and of a merged model in float32."""
    copied = [*files_below(saved), *files_below(processor_folder(run))]
    needed = sum(file.stat().st_size for file in copied)
    if merge and saved.name == layout.ADAPTER:
        model = meta_backbone(run.recipe().model, stored_task(run).kind, trust_remote_code)
        needed += 4 * model.num_parameters()
    return needed


def _copy_processor(source: Path, folder: Path, trust_remote_code: bool) -> None:
    """Copy the files of a tokenizer, and no others: they could replace those of the adapter."""
    own = set(processor_files(source, with_code=trust_remote_code))
    files = files_below(source)
    if others := [path for path in files if path not in own]:
        what = source.name.replace("-", " ")
        raise IwloraError(f"{others[0]} is no file of a {what}; remove it to export the run")
    for path in files:
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)


def _save_stops(folder: Path, run: RunDir, trust_remote_code: bool) -> None:
    """A ``generation_config.json`` next to an adapter that generates: where its texts end."""
    kind = stored_task(run).kind
    tokenizer = load_processor(processor_folder(run), kind, trust_remote_code)
    stops = kind.stop_tokens(tokenizer, None)
    if stops:
        settings = {"eos_token_id": stops, "pad_token_id": tokenizer.pad_token_id}
        config = GenerationConfig.from_dict(settings)
        config.save_pretrained(folder)


def _check_copied_head(run: RunDir, adapter: Path, trust_remote_code: bool) -> None:
    """As :func:`check_saved_head`, for an adapter that is copied without its backbone."""
    result = run.result()
    if result is None or result.head_modules is not None:
        return  # the version of iwlora that trained it saves all of the head
    try:
        backbone = meta_backbone(run.recipe().model, stored_task(run).kind, trust_remote_code)
    except IwloraError as error:
        logger.warning(
            f"cannot check whether {adapter} has all weights that training used: {error}"
        )
        return
    check_saved_head(run, backbone, adapter)
