"""What a finished run leaves: its trained model, and an adapter that other tools load."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from iwlora.errors import IwloraError
from iwlora.extras import name_missing_extra
from iwlora.head import in_modules, new_modules
from iwlora.inputs.models import load_model, loading_errors
from iwlora.inputs.places import entries, files_below
from iwlora.inputs.tensors import tensor_names
from iwlora.inputs.yaml_json import read_json
from iwlora.methods.loading import (
    check_settings,
    load_adapter,
    merge_adapter,
    why_unmergeable,
)
from iwlora.methods.saving import OWN_FORMAT, adapter_files
from iwlora.results import layout
from iwlora.results.file_digests import file_digest
from iwlora.results.run import read_environment
from iwlora.results.writing import follow_umask, new_folder_path, reserve, whole_folder
from iwlora.training.model.backbone import (
    load_backbone,
    load_config,
    load_processor,
    meta_backbone,
    published_name,
)
from iwlora.training.model.frozen_dtype import frozen_loading
from iwlora.training.model.model_files import processor_files
from iwlora.training.model.quantization import quantized_loading
from iwlora.training.model.recipe_head import add_tokens
from iwlora.training.sharing.model_card import model_card
from iwlora.training.state.export_record import ExportRecord
from iwlora.training.state.fingerprint import check_backbone
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.stored_task import stored_task

logger = logging.getLogger("iwlora")

Loader = Callable[..., tuple[PreTrainedModel, Any]]
"""What :func:`~iwlora.training.model.backbone.load_backbone` is, or does the same."""


@name_missing_extra()
def load_trained(
    path: str | Path, merge: bool = False, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, Any]:
    """The trained model of a finished run, in evaluation mode, and its tokenizer or processor.

    With ``merge`` the adapter's update is in the weights and the adapter is gone. Code that comes
    with the backbone is run only with ``trust_remote_code``, whatever the run's recipe says: the
    run may be another's. Raises ``IwloraError`` for a folder that is not a finished run, where
    nothing can be merged, and where random weights of the training were not saved. A warning says
    so where a regression's model returns its targets on another scale, which ``iwlora predict``
    undoes.

    >>> model, tokenizer = load_trained("runs/a")
    >>> type(model).__name__
    'PeftModelForSequenceClassification'
    >>> type(load_trained("runs/a", merge=True)[0]).__name__
    'BertForSequenceClassification'
    """
    scale = stored_task(RunDir.finished(path)).kind.scaling
    if scale and scale.not_in_head:
        logger.warning(f"{path}: the model returns its targets on another scale: {scale}")
    return load_saved(path, merge, trust_remote_code)


def load_saved(
    path: str | Path,
    merge: bool = False,
    trust_remote_code: bool = False,
    load: Loader = load_backbone,
) -> tuple[PreTrainedModel, Any]:
    """As :func:`load_trained`, without its warning; ``load`` gives a backbone for the adapter."""
    run = RunDir.finished(path)
    saved, task, result = saved_model(run), stored_task(run), run.result()
    recipe = run.recipe()
    method = recipe.method
    if merge and (reason := why_unmergeable(saved, method)):
        raise IwloraError(f"{method.name} cannot be merged: {reason}; leave out --merge")
    trust = {"trust_remote_code": trust_remote_code}
    folder = _processor_folder(run)
    processor = load_processor(folder, task.kind, **trust)
    if task.kind.processor == "tokenizer" and processor.pad_token_id is None:
        raise IwloraError(f"{folder} is damaged: it names no token to pad with")
    model: Any
    with loading_errors(lambda reason, _: f"what {path} saved cannot be loaded: {reason}"):
        if saved.name == layout.ADAPTER:
            # What is merged are the pretrained weights in float32, not their smaller form.
            loading: dict[str, Any] = {}
            if not merge:
                loading = frozen_loading(recipe) | quantized_loading(recipe, task.kind, **trust)
            backbone, pretrained_processor = load(
                recipe.model, task.labels, task.kind, loading=loading, **trust
            )
            check_backbone(run, recipe.model, result.fingerprint if result else None)
            _check_saved_head(run, backbone, saved)
            add_tokens(backbone, pretrained_processor, recipe)
            model = load_adapter(backbone, saved)
            model = merge_adapter(model) if merge else model
        else:
            config = load_config(str(saved), **trust)
            model = load_model(task.kind.auto_class(config), saved, **trust)
            model.name_or_path = model.config.name_or_path = ""
    stops = task.kind.stop_tokens(processor, _generation_stops(model))
    if stops:
        model.generation_config.eos_token_id = stops
    return model.eval(), processor


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
        load_processor(_processor_folder(run), stored_task(run).kind, trust_remote_code)
        _copy_processor(_processor_folder(run), folder, trust_remote_code)
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
    copied = [*files_below(saved), *files_below(_processor_folder(run))]
    needed = sum(file.stat().st_size for file in copied)
    if merge and saved.name == layout.ADAPTER:
        model = meta_backbone(run.recipe().model, stored_task(run).kind, trust_remote_code)
        needed += 4 * model.num_parameters()
    return needed


def _processor_folder(run: RunDir) -> Path:
    """The folder of the tokenizer, of the image processor, or of the codes."""
    return run.path / layout.processor(stored_task(run).kind.processor)


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


def _generation_stops(model: Any) -> Any:
    """``eos_token_id`` of the model's generation configuration, if it has one."""
    return getattr(getattr(model, "generation_config", None), "eos_token_id", None)


def _save_stops(folder: Path, run: RunDir, trust_remote_code: bool) -> None:
    """A ``generation_config.json`` next to an adapter that generates: where its texts end."""
    kind = stored_task(run).kind
    tokenizer = load_processor(_processor_folder(run), kind, trust_remote_code)
    stops = kind.stop_tokens(tokenizer, None)
    if stops:
        settings = {"eos_token_id": stops, "pad_token_id": tokenizer.pad_token_id}
        config = GenerationConfig.from_dict(settings)
        config.save_pretrained(folder)


def saved_model(run: RunDir) -> Path:
    """The folder of the adapter, or else of the whole model, after a look at its files."""
    saved = run.path / (layout.ADAPTER if (run.path / layout.ADAPTER).is_dir() else layout.MODEL)
    config = saved / (adapter_files(saved)[0] if saved.name == layout.ADAPTER else "config.json")
    weights = [file for file in entries(saved) if file.suffix == ".safetensors"]
    if not (weights and config.is_file() and _processor_folder(run).is_dir()):
        what = _processor_folder(run).name.replace("-", " ")
        raise IwloraError(f"{run.path} lacks files of its adapter, model or {what}")
    try:
        read_json(config)
        for file in weights:
            tensor_names(file)
    except IwloraError as error:
        raise IwloraError(f"{saved} is damaged: a file in it was cut short ({error})") from error
    _check_unchanged(run)
    if saved.name == layout.ADAPTER:
        _check_settings(run, saved)
    return saved


def _check_settings(run: RunDir, adapter: Path) -> None:
    """Raise ``IwloraError`` if the adapter is not of the method and model of the run's recipe."""
    recipe, result = run.recipe(), run.result()
    size = result.rank if result and recipe.method.size_knob else None
    check_settings(adapter, recipe.method if size is None else recipe.method.sized(size))
    file = adapter / adapter_files(adapter)[0]
    base = str(read_json(file).get("base_model_name_or_path") or "")
    published = published_name(recipe.model)
    # Older versions wrote the folder in which the model lay.
    if published and not Path(base).is_absolute() and base not in ("", published, recipe.model):
        raise IwloraError(
            f"{file}: base_model_name_or_path={base!r} was given, and the recipe of the run "
            f"determines {published!r}"
        )


def _check_unchanged(run: RunDir) -> None:
    """Raise ``IwloraError`` if the saved model, tokenizer or recipe is not what the run left."""
    result = run.result()
    expected = result.files if result else {}
    needed = (layout.RECIPE, layout.ADAPTER, layout.MODEL, *layout.PROCESSORS)
    for name, digest in expected.items():
        path = run.path / name
        if Path(name).parts[0] not in needed or path.suffix == ".md":
            continue
        if not path.is_file() or file_digest(path) != digest:
            raise IwloraError(
                f"{path} is damaged: it is not what the run left; restore it, or train again in "
                f"another folder ('iwlora verify {run.path}' lists all such files)"
            )


def _check_saved_head(run: RunDir, backbone: PreTrainedModel, adapter: Path) -> None:
    """Raise ``IwloraError`` if weights that were drawn at random in training were not saved."""
    names = tensor_names(adapter / adapter_files(adapter)[1])
    saved = {name.removeprefix("base_model.model.") for name in names}
    unsaved = [
        path for path in new_modules(backbone) if not any(in_modules(n, [path]) for n in saved)
    ]
    if unsaved:
        raise IwloraError(
            f"the predictions of the run in {run.path} cannot be reproduced: the pretrained model "
            f"has no weights for {', '.join(unsaved)}; the version of iwlora that trained the run "
            "drew them at random and did not save them; train it again in another folder"
        )


def _check_copied_head(run: RunDir, adapter: Path, trust_remote_code: bool) -> None:
    """As :func:`_check_saved_head`, for an adapter that is copied without its backbone."""
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
    _check_saved_head(run, backbone, adapter)
