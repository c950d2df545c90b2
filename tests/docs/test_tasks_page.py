"""The pages on tasks and data files: recipes parse, commands exist, names and options are there."""

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
PAGE = "\n".join(
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("tasks.md", "data-files.md")
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_recipes_parse(text: str) -> None:
    given = {"model": "builtin/minilm", "method": "lora", **yaml.safe_load(text)}
    assert build(given).task.kind


def test_commands_exist() -> None:
    text = "\n".join(blocks("sh"))
    lines = [shlex.split(line, comments=True) for line in text.splitlines() if line]
    assert len(lines) == 5
    for words in lines:
        assert words[0] == "iwlora"
        parse(words[1:])
        assert all((ROOT / word).is_file() for word in words if word.startswith("recipes/"))


def test_every_name_kind_and_option_is_documented() -> None:
    code_spans = set(re.findall(r"`([^`\n]+)`", PAGE))
    assert set(names()) <= code_spans
    assert set(KINDS) <= code_spans
    for kind in KINDS.values():
        assert set(kind.model_fields) - set(kind.fitted_options) <= code_spans
    for name, task in CORPORA.items():
        (row,) = [line for line in PAGE.splitlines() if f"`{name}`" in line and "|" in line]
        for metric in task.metrics:
            spelled = {"matthews_correlation": "matthews", "exact_match": "exact match"}
            spelled |= {"macro_f1": "mean f1", "rouge1": "rouge-l, 1", "rouge2": "1, 2"}
            spelled |= {"rougeL": "rouge-l"}
            expected = spelled.get(metric, metric)
            assert metric == "perplexity" or expected in row.lower(), (name, metric)
    assert {row.kind for row in list_tasks()} <= code_spans
