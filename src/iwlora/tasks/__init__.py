"""Tasks: what a model is fine-tuned on, from GLUE, a built-in grammar or the user's own files."""

from __future__ import annotations

from iwlora.tasks.loading import load
from iwlora.tasks.registry import TaskListing, list_tasks, names
from iwlora.tasks.schema import TaskSchema
from iwlora.tasks.spec import TaskSpec
from iwlora.tasks.task import Task

__all__ = ["Task", "TaskListing", "TaskSchema", "TaskSpec", "list_tasks", "load", "names"]
