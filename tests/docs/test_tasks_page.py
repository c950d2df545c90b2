"""docs/tasks.md: its recipes parse, its commands exist, and it leaves no task, kind, option out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from iwlora.cli import parse
from iwlora.tasks import list_tasks, names
from iwlora.tasks.kinds import KINDS
from iwlora.tasks.registry import CORPORA
from iwlora.training.recipe import build

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_recipes_parse(text: str) -> None:
    given = {"model": "builtin/minilm", "method": "lora", **yaml.safe_load(text)}
    assert build(given).task.kind


def test_commands_exist() -> None:
    lines = [shlex.split(line, comments=True) for line in "\n".join(blocks("sh")).splitlines()]
    assert len(lines) == 3
    for words in lines:
        assert words[0] == "iwlora"
        parse(words[1:])
        assert all((ROOT / word).is_file() for word in words if word.startswith("recipes/"))


def test_every_name_kind_and_option_is_told() -> None:
    told = set(re.findall(r"`([^`\n]+)`", PAGE))
    assert set(names()) <= told
    assert set(KINDS) <= told
    for kind in KINDS.values():
        assert set(kind.model_fields) <= told
    for name, task in CORPORA.items():
        (row,) = [line for line in PAGE.splitlines() if f"`{name}`" in line and "|" in line]
        for metric in task.metrics:
            word = {"matthews_correlation": "matthews", "exact_match": "exact match"}
            word |= {"macro_f1": "mean f1", "rouge1": "rouge-l, 1", "rouge2": "1, 2"}
            word |= {"rougeL": "rouge-l"}
            expected = word.get(metric, metric)
            assert metric == "perplexity" or expected in row.lower(), (name, metric)
    assert {row.kind for row in list_tasks()} <= told
