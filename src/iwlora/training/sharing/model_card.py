"""The model card of an export, ``README.md``, by the conventions of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from iwlora.results.durations import format_duration
from iwlora.results.metric_direction import oriented, with_direction
from iwlora.results.run import FloorScore, RunResult
from iwlora.tasks import Task
from iwlora.tasks.registry import CORPORA
from iwlora.training.recipe import Recipe
from iwlora.training.sharing.snippet import snippet

_PIPELINES = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForImageClassification": "image-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForQuestionAnswering": "question-answering",
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSeq2SeqLM": "text2text-generation",
}


def model_card(
    result: RunResult,
    recipe: Recipe,
    task: Task,
    environment: Mapping[str, Any],
    base: str,
    auto_class: str,
    form: str,
) -> str:
    """The text of the card. It names no folder of the machine, and no license: its owner knows it.

    Args:
        result: Of the run.
        recipe: Of the run.
        task: What was learned.
        environment: The versions that the run was computed with.
        base: The name of the base model on the hub; "" for one that is not there.
        auto_class: The Auto class of transformers that loads the model.
        form: "peft", "iwlora" or "transformers", as for :func:`snippet`.
    """
    pipeline = _PIPELINES.get(auto_class)
    named = f"`{base}`" if base else "a base model that is not on the hub"
    what = "A model with" if form == "transformers" else "An adapter of"
    lines = [
        f"# {result.label} on {_title(task)}",
        "",
        f"{what} the method `{result.method}` for {named}, fine-tuned with iwlora. It predicts: "
        f"{task.kind.summary}.",
        "",
        "## Scores",
        "",
        *_scores(result),
        "",
        "## How to use it",
        "",
        "```python",
        snippet(
            task, base, auto_class, form, recipe.train.max_length, bool(recipe.add_tokens)
        ).rstrip(),
        "```",
        "",
        "## Training",
        "",
        *_training(result, recipe, task.kind.reads_images),
        "",
        "## Data and versions",
        "",
        *_inputs(result, environment, task.kind.reads_images),
    ]
    data = ModelCardData(
        base_model=base or None,
        library_name=form,
        tags=["iwlora", result.method, *(["lora"] if "lora" in result.method else [])],
        pipeline_tag=pipeline,
        datasets=_hub_dataset(task),
        model_name=result.label,
        eval_results=_eval_results(result, task, pipeline or task.kind.name),
    )
    text = "\n".join(lines)
    return f"---\n{data.to_yaml()}\n---\n\n{text}\n"


def _title(task: Task) -> str:
    return task.name if task.name in CORPORA else Path(task.name).name


def _hub_dataset(task: Task) -> list[str] | None:
    corpus = CORPORA.get(task.name)
    return [corpus.hub_id] if corpus is not None and corpus.hub_id else None


def _eval_results(result: RunResult, task: Task, task_type: str) -> list[EvalResult]:
    """The metrics as the hub's ``model-index`` has them."""
    dataset = (_hub_dataset(task) or [_title(task)])[0]
    return [
        EvalResult(
            task_type=task_type,
            dataset_type=dataset,
            dataset_name=_title(task),
            dataset_split=result.evaluated_on,
            metric_type=name,
            metric_value=value,
        )
        for name, value in result.metrics.items()
    ]


def _scores(result: RunResult) -> list[str]:
    """A table of the metrics beside the floors, and by how much the run is above each."""
    floors = result.floors
    rows = [
        ["metric", "this model", *(floor.name for floor in floors)],
        ["---"] * (2 + len(floors)),
        *(
            [
                with_direction(name),
                _with_interval(result, name, value),
                *(_value(floor, name) for floor in floors),
            ]
            for name, value in result.metrics.items()
        ),
    ]
    selected = f", parameters of the {result.selected_on}" if result.selected_on else ""
    return [
        f"On the split `{result.evaluated_on}`{selected}:",
        "",
        *("| " + " | ".join(row) + " |" for row in rows),
        *(_margin(result.primary_metric, floor) for floor in floors if floor.margin is not None),
    ]


def _with_interval(result: RunResult, metric: str, value: float) -> str:
    half = result.half_width if metric == result.primary_metric else None
    interval = "" if half is None else f" (95% interval {value - half:.4f} to {value + half:.4f})"
    return f"{value:.4f}{interval}"


def _value(floor: FloorScore, metric: str) -> str:
    return f"{floor.metrics[metric]:.4f}" if metric in floor.metrics else ""


def _margin(metric: str, floor: FloorScore) -> str:
    interval = ""
    if floor.low is not None and floor.high is not None:
        low, high = sorted(oriented(metric, end) for end in (floor.low, floor.high))
        interval = f" (95% interval over rows {low:+.4f} to {high:+.4f})"
    rows, difference = f"on {floor.rows:,} rows", oriented(metric, floor.margin or 0.0)
    return f"\nAgainst the {floor.name}: {metric} {difference:+.4f}{interval}, {rows}."


def _training(result: RunResult, recipe: Recipe, reads_images: bool) -> list[str]:
    """The settings and the cost."""
    options = recipe.method.model_dump(mode="json", exclude_none=True)
    numbers = {name: value for name, value in options.items() if isinstance(value, (int, float))}
    train = recipe.train
    tokens = "" if reads_images else f", at most {train.max_length} tokens"
    rows = {
        "method": f"{result.method}, {_listed(numbers)}" if numbers else result.method,
        "parameters": f"{result.adapter_parameters or 0:,} in the adapter, "
        f"{result.trainable_parameters or 0:,} trained",
        "rows": f"{result.train_examples or 0:,}, {result.epochs or 0:g} epochs",
        "settings": f"learning rate {train.lr:g}, batch size {train.batch_size}{tokens}, "
        f"seed {result.seed}, {result.precision}",
        "time": format_duration(result.train_seconds or 0.0),
    }
    return [f"- {name}: {text}" for name, text in rows.items()] + [
        f"- note: {note}" for note in result.notes if "/" not in note and "\\" not in note
    ]


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _inputs(result: RunResult, environment: Mapping[str, Any], reads_images: bool) -> list[str]:
    """Digests of the rows, and versions."""
    versions = {
        name: environment[name]
        for name in ("python", "iwlora", "torch", "transformers", "peft", "accelerate", "datasets")
        if environment.get(name)
    }
    digests = result.fingerprint.parts if result.fingerprint else {}
    rows = {
        name.replace("texts", "images" if reads_images else "texts"): digest
        for name, digest in digests.items()
        if name.startswith(("texts", "labels"))
    }
    return [
        *(f"- SHA-256 of the {name}: `{digest}`" for name, digest in rows.items()),
        f"- {_listed(versions)}",
    ]
