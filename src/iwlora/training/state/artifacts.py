"""What a finished run leaves: its trained model, checked before it is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from iwlora.errors import IwloraError
from iwlora.extras import name_missing_extra
from iwlora.head import in_modules, new_modules
from iwlora.inputs.models.loading import load_model, loading_errors
from iwlora.inputs.places import entries
from iwlora.inputs.tensors import tensor_names
from iwlora.inputs.yaml_json import read_json
from iwlora.methods.loading import (
    check_settings,
    load_adapter,
    merge_adapter,
    why_unmergeable,
)
from iwlora.methods.saving import adapter_files
from iwlora.results import layout
from iwlora.results.file_digests import file_digest
from iwlora.training.model.backbone import (
    load_backbone,
    load_config,
    load_processor,
    published_name,
)
from iwlora.training.model.frozen_dtype import frozen_loading
from iwlora.training.model.quantization import quantized_loading
from iwlora.training.model.recipe_head import add_tokens
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
    folder = processor_folder(run)
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
            check_saved_head(run, backbone, saved)
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


def processor_folder(run: RunDir) -> Path:
    """The folder of the tokenizer, of the image processor, or of the codes."""
    return run.path / layout.processor(stored_task(run).kind.processor)


def _generation_stops(model: Any) -> Any:
    """``eos_token_id`` of the model's generation configuration, if it has one."""
    return getattr(getattr(model, "generation_config", None), "eos_token_id", None)


def saved_model(run: RunDir) -> Path:
    """The folder of the adapter, or else of the whole model, after a look at its files."""
    saved = run.path / (layout.ADAPTER if (run.path / layout.ADAPTER).is_dir() else layout.MODEL)
    config = saved / (adapter_files(saved)[0] if saved.name == layout.ADAPTER else "config.json")
    weights = [file for file in entries(saved) if file.suffix == ".safetensors"]
    if not (weights and config.is_file() and processor_folder(run).is_dir()):
        what = processor_folder(run).name.replace("-", " ")
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


def check_saved_head(run: RunDir, backbone: PreTrainedModel, adapter: Path) -> None:
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
