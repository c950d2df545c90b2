"""The description of a task on images: sizes, modes, classes, copies, and what cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from textwrap import fill

from iwlora.errors import count_rows, list_problems, truncate
from iwlora.tasks.columns.images import image_facts
from iwlora.tasks.description import LINE_WIDTH, balance, duplicates, quantiles
from iwlora.tasks.kinds.contract import Dataset
from iwlora.tasks.task import Task

_SHOWN = 3


def describe_images(task: Task) -> str:
    """The splits of a task on images in words.

    Args:
        task: The task, with the images that can be used; ``bad_rows`` are the others.
    """
    lines = [f"{task.name}: {task.kind.name}, metrics {', '.join(task.metrics)}"]
    lines += [f"column: {', '.join(task.text)}; reported on {', '.join(task.reported)}"]
    lines += [f"note: {note}" for note in task.notes]
    for name, split in task.splits.items():
        lines += ["", f"{name}: {len(split):,} images", f"  labels   {balance(task, split)}"]
        lines += [f"  {line}" for line in _sizes_and_modes(split)]
    lines += ["", *duplicates(task)]
    described = [fill(line, LINE_WIDTH, subsequent_indent=" " * 11) for line in lines]
    if task.bad_rows:
        listed = list_problems([truncate(str(row)) for row in task.bad_rows], most=_SHOWN)
        described += ["", f"images that cannot be used: {count_rows(task.bad_rows):,}", listed]
    return "\n".join(described)


def _sizes_and_modes(split: Dataset) -> Iterator[str]:
    width, height, mode, frames = image_facts(split, "width", "height", "mode", "frames")
    yield f"width    {quantiles(width)} pixels"
    yield f"height   {quantiles(height)} pixels"
    modes = ", ".join(f"{name} {count:,}" for name, count in Counter(mode).most_common())
    yield f"modes    {modes}; all are read as RGB"
    several = sum(count > 1 for count in frames)
    if several:
        yield f"frames   {several:,} have several; the first is read"
