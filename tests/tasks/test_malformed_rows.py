"""Errors name the file and line of a malformed row, for every kind; long texts are cut off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

from iwlora.errors import BadRowsError
from iwlora.tasks import TaskSpec, load
from kinds import save_model
from tiny_tasks import TASKS, TEXTS, write_task

NAN = float("nan")
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("classification", {"text": " "}, "column 'text' is empty"),
    ("classification", {"label": None}, "column 'label' is empty"),
    ("classification", {"text": "a \ud800"}, r"column 'text' has half of a character, '\ud800'"),
    ("classification", {"label": "a\ud800"}, r"column 'label' has half of a character, '\ud800'"),
    ("multi-label", {"label": ["\udfff"]}, r"column 'label' has half of a character, '\udfff'"),
    ("seq2seq", {"target": "\ud800"}, r"column 'target' has half of a character, '\ud800'"),
    (
        "chat",
        {
            "messages": [
                {"role": "user", "content": "a\udabc"},
                {"role": "assistant", "content": "b"},
            ]
        },
        r"column 'messages' has half of a character, '\udabc'",
    ),
    ("multi-label", {"label": 3}, "column 'label' holds a int, not a list"),
    ("multi-label", {"label": ["dog", ""]}, "column 'label' is empty"),
    ("regression", {"label": NAN}, "column 'label' is empty"),
    ("regression", {"label": "inf"}, "column 'label' holds inf, not a finite number"),
    ("regression", {"label": "good"}, "column 'label' holds 'good', not a number"),
    ("token-labels", {"ner_tags": ["O"]}, "11 words and 1 labels"),
    ("token-labels", {"tokens": []}, "column 'tokens' is empty"),
    (
        "question-answering",
        {"answers": {"text": ["x"], "answer_start": [4]}},
        "the answer 'x' is not in the passage at 4",
    ),
    ("question-answering", {"answers": []}, "column 'answers' has no answer; task.kind.no_answer"),
    (
        "question-answering",
        {"answers": {"text": ["dog"], "answer_start": []}},
        "column 'answers' has 1 answers and 0 starts",
    ),
    ("seq2seq", {"target": ""}, "column 'target' is empty"),
    ("instruction", {"prompt": None}, "column 'prompt' is empty"),
    ("chat", {"messages": []}, "column 'messages' is empty"),
    ("chat", {"messages": [{"role": "user"}]}, "column 'messages' message 1 is no {role: ..."),
    (
        "chat",
        {"messages": [{"role": "user", "content": "a"}]},
        "column 'messages' does not end with a message of the assistant",
    ),
    ("language-modeling", {"text": " "}, "column 'text' is empty"),
]


@pytest.mark.parametrize(("kind", "wrong", "message"), BAD)
def test_the_line_is_named(kind: str, wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    """With ``task.on_bad=skip`` the task is that of the file without the line."""
    task, rows = write_task(tmp_path, kind)
    sound = load(TaskSpec(**task), seed=0)
    with Path(task["train"]).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**rows[0], **wrong}) + "\n")
    with pytest.raises(BadRowsError) as caught:
        load(TaskSpec(**task), seed=0)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{task['train']}, line 13: {message}")

    skipped = load(TaskSpec(**task, on_bad="skip"), seed=0)
    assert list(skipped.splits) == list(sound.splits)
    for split, dataset in sound.splits.items():
        assert list(skipped.splits[split]) == list(dataset)
    assert skipped.bad_rows == caught.value.rows
    assert (skipped.labels, skipped.metrics) == (sound.labels, sound.metrics)
    note = "train: 1 of 13 rows cannot be used and is left out (task.on_bad=skip)"
    assert [text for text in skipped.notes if text not in sound.notes] == [note]


def test_every_kind_has_a_bad_row() -> None:
    assert {kind for kind, *_ in BAD} == set(TASKS) - {"packed"}


@pytest.mark.parametrize("kind", TASKS)
def test_a_text_of_twenty_thousand_words(kind: str, tmp_path: Path) -> None:
    long = "the dog sees a film " * 4_000
    task, (row, *_) = write_task(tmp_path, kind)
    name = next(one for one in ("context", "tokens", "messages", *row) if one in row)
    text: dict[str, Any] = {name: long}
    if name == "messages":
        text = {name: [{"role": "user", "content": long}, row[name][-1]]}
    if name == "tokens":
        text = {name: long.split(), "ner_tags": ["O"] * 20_000}
    with Path(task["train"]).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**row, **text}) + "\n")
    writes = kind in (*TEXTS, "language-modeling")
    folder = save_model(tmp_path / "model", "llama" if writes else "bert")
    tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    loaded = load(TaskSpec(**task), seed=0)
    rows = loaded.encode(tokenizer, 32, config)["train"]
    assert max(rows["length"]) == 32
    if kind in ("question-answering", "language-modeling"):
        assert len(rows) > 20_000 / 32
