"""What ``iwlora tasks show`` prints: the data of a recipe as its model sees them."""

from __future__ import annotations

from pathlib import Path
from textwrap import TextWrapper, fill
from typing import Any

from iwlora import tasks
from iwlora.errors import count_rows, list_problems, truncate
from iwlora.inputs.models.loading import loading_errors
from iwlora.results.writing import replacing
from iwlora.tasks.description import LINE_WIDTH, count_copies, describe_task, token_lengths
from iwlora.tasks.images.contact_sheet import contact_sheet
from iwlora.tasks.images.description import describe_images
from iwlora.tasks.vocabulary_fit import vocabulary_fit
from iwlora.training.model.backbone import load_config, load_tokenizer, resolve_model_path
from iwlora.training.recipe import Recipe
from iwlora.training.suggestion.changes import changes
from iwlora.training.suggestion.label_noise import MOST_ROWS, find_label_noise
from iwlora.training.suggestion.settings import most_tokens, spread_rows

_SHOWN = 3


def look_at_data(recipe: Recipe, sheet: str | Path | None = None) -> str:
    """The task of a recipe in words, and what to change in the recipe.

    Rows that cannot be used are left out and listed, whatever ``task.on_bad`` says.

    Args:
        recipe: The recipe.
        sheet: The PNG file of a contact sheet to write, for tasks on images.

    Raises:
        IwloraError: The data, the tokenizer or the configuration of the model cannot be read, or
            the file cannot be written.
    """
    spec = recipe.task.model_copy(update={"on_bad": "skip"})
    task = tasks.load(spec, recipe.train.seed)
    if sheet is not None:
        picture = contact_sheet(task)
        with replacing(sheet) as file:
            file.write_bytes(picture)
    noise = [fill(line, LINE_WIDTH, subsequent_indent="  ") for line in _noise(task, recipe)]
    if task.kind.reads_images:
        return "\n".join([describe_images(task), *noise])
    tokenizer = load_tokenizer(resolve_model_path(recipe.model), recipe.trust_remote_code)
    config = load_config(recipe.model, recipe.trust_remote_code)
    with loading_errors(lambda reason, _: f"the tokenizer cannot encode these texts: {reason}"):
        fits = {name: vocabulary_fit(task, split, tokenizer) for name, split in task.splits.items()}
    lines = [describe_task(task, tokenizer, recipe.train.max_length, config, fits)]
    lines += noise
    if task.bad_rows:
        listed = list_problems([truncate(str(row)) for row in task.bad_rows], most=_SHOWN)
        lines += ["", f"rows that cannot be used: {count_rows(task.bad_rows):,}", listed]
    lengths = token_lengths(task, spread_rows(task.splits["train"]), tokenizer, config)
    limit = most_tokens(tokenizer, config)
    found = changes(recipe, task, lengths, limit, fits["train"], count_copies(task))
    width = max((len(change.setting) for change in found), default=0) + 4
    lines += ["", "what to change:" if found else "what to change: nothing that the data show"]
    for change in found:
        line = f"  {change.setting}".ljust(width) + change.reason
        wrapper = TextWrapper(LINE_WIDTH, subsequent_indent=" " * width)
        wrapper.break_long_words = wrapper.break_on_hyphens = False  # settings are copied
        lines.append(wrapper.fill(line))
    return "\n".join(lines)


def _noise(task: tasks.Task, recipe: Recipe) -> list[str]:
    noise = find_label_noise(task, recipe.task)
    if noise is None:
        return []
    of = f" of the {noise.compared:,} rows that were compared"
    if noise.compared >= MOST_ROWS:
        of += f", at most {MOST_ROWS:,} of a file"
    what = "image" if task.kind.reads_images else "text"
    if not noise.texts:
        return [f"labels: no {what} stands with two labels{of}"]
    plural = "s" * (noise.texts != 1)
    aside = "" if task.kind.reads_images else " (case, spaces and punctuation aside)"
    return [
        f"labels: {noise.texts:,} {what}{plural} with different labels, in {noise.rows:,}{of}"
        f"{aside}; one may be wrong:",
        *map(_pair, noise.first),
    ]


def _pair(pair: Any) -> str:
    first, second = pair
    both = f"  {first.label!r} ({first.place}) and {second.label!r} ({second.place})"
    return f"{both}: {first.text:.80}" if first.text else both
