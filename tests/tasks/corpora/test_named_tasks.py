"""SuperGLUE, SQuAD, XSum, CNN/DailyMail, WMT16: small files in the official layouts, and hubs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from iwlora.errors import IwloraError
from iwlora.tasks import Task, TaskSpec, load
from iwlora.tasks.corpora.superglue import TASKS as SUPERGLUE

pytestmark = pytest.mark.quick


def read(name: str, folder: Path | None, **options: Any) -> Task:
    return load(TaskSpec(name=name, data_dir=str(folder) if folder else None, **options), seed=0)


def error_of(name: str, folder: Path) -> str:
    with pytest.raises(IwloraError) as caught:
        read(name, folder)
    return str(caught.value)


def rows(task: Task, split: str = "train") -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in task.splits[split]]


SUPERGLUE_ROWS: dict[str, tuple[dict[str, Any], tuple[str, str, int]]] = {
    "boolq": (
        {"question": "is it so", "passage": "It -- is.", "idx": 0, "label": True},
        ("is it so", "It -- is.", 1),
    ),
    "cb": ({"premise": "P", "hypothesis": "H", "label": "neutral", "idx": 3}, ("P", "H", 2)),
    "copa": (
        {"premise": "P.", "choice1": "A.", "choice2": "B.", "question": "effect", "label": 1},
        ("P. What happened as a result?", "1: A. 2: B.", 1),
    ),
    "wic": (
        {"word": "bank", "sentence1": "S", "sentence2": "T", "start1": 0, "label": False},
        ("bank: S", "T", 0),
    ),
    "rte": ({"premise": "P", "hypothesis": "H", "label": "entailment"}, ("P", "H", 0)),
}


@pytest.mark.parametrize("config", SUPERGLUE_ROWS)
def test_superglue(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"superglue/{config}"
    given, expected = SUPERGLUE_ROWS[config]
    for file in ("train.jsonl", "val.jsonl"):
        (tmp_path / file).write_text(json.dumps(given) + "\n\n")
    task = read(name, tmp_path)
    assert rows(task) == rows(task, "validation") == [expected]
    (tmp_path / "val.jsonl").write_text(json.dumps({**given, "label": "odd"}) + "\n[1]\n")
    message = error_of(name, tmp_path).splitlines()
    assert message[0].startswith(f"{tmp_path / 'val.jsonl'}, line 1: unknown label 'odd'")
    assert message[1] == f"{tmp_path / 'val.jsonl'}, line 2: a list instead of a JSON object"
    field = (SUPERGLUE[name].fields or SUPERGLUE[name].text)[0]
    (tmp_path / "val.jsonl").write_text(json.dumps({**given, field: None}) + "\n")
    assert error_of(name, tmp_path).endswith(f"line 1: no text in field {field!r}")
    (tmp_path / "val.jsonl").write_bytes(b'{"a": "caf\xe9"}\n')
    assert "val.jsonl, line 1: not UTF-8 (byte 0xe9, number 11" in error_of(name, tmp_path)

    labels = SUPERGLUE[name].labels
    hub = datasets.Dataset.from_list([{**given, "label": expected[-1]}])
    hub = hub.cast_column("label", datasets.ClassLabel(names=list(labels)))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: {"train": hub, "validation": hub})
    assert rows(read(name, None)) == [expected]


def squad_file(path: Path, questions: list[dict[str, Any]], context: str) -> None:
    article = {"title": "T", "paragraphs": [{"context": context, "qas": questions}]}
    path.write_text(json.dumps({"version": "v", "data": [article]}))


def test_squad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = " The Normans were in Normandy."
    answers = [
        {"text": "Normandy", "answer_start": 21},
        {"text": "in Normandy", "answer_start": 18},
    ]
    gold = {"text": ["Normandy", "in Normandy"], "answer_start": [21, 18]}
    asked = {"id": "a", "question": " Where?", "answers": answers}
    none = {"id": "b", "question": "Why?", "answers": [], "is_impossible": True}
    for version, questions in (("1.1", [asked]), ("2.0", [asked, none])):
        for part in ("train", "dev"):
            squad_file(tmp_path / f"{part}-v{version}.json", questions, context)
    assert rows(read("squad/v1.1", tmp_path)) == [("Where?", context, gold)]
    second = read("squad/v2.0", tmp_path)
    assert rows(second, "validation")[1] == ("Why?", context, {"text": [], "answer_start": []})
    assert second.kind.model_dump()["no_answer"] is True
    assert (
        read("squad/v2.0", tmp_path, kind={"threshold": 1.5}).kind.model_dump()["threshold"] == 1.5
    )

    hub = datasets.Dataset.from_list([{"question": "Where?", "context": context, "answers": gold}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: {"train": hub, "validation": hub})
    assert rows(read("squad/v1.1", None)) == [("Where?", context, gold)]

    moved = {**asked, "answers": [{"text": "Normandy", "answer_start": 3}]}
    squad_file(tmp_path / "dev-v1.1.json", [moved], context)
    assert "question a: the answer 'Normandy' is not in the passage at 3" in error_of(
        "squad/v1.1", tmp_path
    )
    squad_file(tmp_path / "dev-v1.1.json", [{**asked, "question": None}], context)
    assert "question a: the question or its passage is not a text" in error_of(
        "squad/v1.1", tmp_path
    )
    (tmp_path / "dev-v1.1.json").write_bytes(b'["\xe9"]')
    assert "dev-v1.1.json, line 1: not UTF-8 (byte 0xe9" in error_of("squad/v1.1", tmp_path)
    for wrong in (b'{"data": [{"title": "x"}]}', b'{"data": [', b"[]", b'{"data": 1}'):
        (tmp_path / "dev-v1.1.json").write_bytes(wrong)
        assert "dev-v1.1.json is not a file of SQuAD" in error_of("squad/v1.1", tmp_path)


def test_xsum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bbc-summary-data").mkdir()
    text = (
        "[SN]URL[SN]\nhttp://x\n\n[SN]TITLE[SN]\nT\n\n[SN]FIRST-SENTENCE[SN]\nIt rains.\n\n"
        "[SN]RESTBODY[SN]\nShare this with\nEmail\nIt rained all day.\n\nIt was wet.\n"
    )
    for name in ("1", "2", "3"):
        (tmp_path / "bbc-summary-data" / f"{name}.summary").write_text(text)
    split = {"train": ["1"], "validation": ["2"], "test": ["3"]}
    listed = tmp_path / "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json"
    listed.write_text(json.dumps(split))
    task = read("xsum", tmp_path)
    assert rows(task) == [("It rained all day.\nIt was wet.", "It rains.")]
    assert task.reported == ("test",)
    assert task.metrics[:3] == ("rougeL", "rouge1", "rouge2")
    hub = datasets.Dataset.from_list([{"document": "D", "summary": "S", "id": "1"}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: dict.fromkeys(split, hub))
    assert rows(read("xsum", None)) == [("D", "S")]

    (tmp_path / "bbc-summary-data" / "2.summary").write_text("[SN]URL[SN]\nhttp://x\n")
    assert "2.summary: no part [SN]RESTBODY[SN]" in error_of("xsum", tmp_path)
    for wrong in ({}, [], {"train": 5e16}, {"train": "1"}, {"train": [1]}, {"train": ["../1"]},
                  {"train": ["1\0"]}, {"train": [{"id": "1"}]}, {"train": None}):  # fmt: skip
        listed.write_text(json.dumps(wrong))
        assert "does not list the articles of train" in error_of("xsum", tmp_path)


def test_cnn_dailymail(tmp_path: Path) -> None:
    (tmp_path / "cnn" / "stories").mkdir(parents=True)
    for split in ("train", "val", "test"):
        address = f"http://web/{split}"
        (tmp_path / f"all_{split}.txt").write_text(address + "\n")
        name = hashlib.sha1(address.encode()).hexdigest()
        story = "(CNN) It rains\n\nA lot.\n\n@highlight\n\nRain\n\n@highlight\n\nMore rain.\n"
        (tmp_path / "cnn" / "stories" / f"{name}.story").write_text(story)
    assert rows(read("cnn_dailymail", tmp_path)) == [
        ("(CNN) It rains . A lot.", "Rain .\nMore rain.")
    ]
    (tmp_path / "all_val.txt").write_text("http://web/lost\n")
    assert "all_val.txt, line 1: no story" in error_of("cnn_dailymail", tmp_path)


def test_wmt16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "europarl-v8.ro-en.en").write_text("Yes.\n\nNo.\n")
    (tmp_path / "europarl-v8.ro-en.ro").write_text("Da.\nGol.\nNu.\n")
    (tmp_path / "dev").mkdir()
    for name in ("newsdev2016", "newstest2016"):
        for side in ("src.en", "ref.ro"):
            text = f'<doc docid="a">\n<seg id="1">A &amp; B,  {side}</seg>\n</doc>\n'
            (tmp_path / "dev" / f"{name}-enro-{side}.sgm").write_text(text)
    task = read("wmt16/en-ro", tmp_path)
    assert rows(task) == [("Yes.", "Da."), ("No.", "Nu.")]
    assert rows(task, "test") == [("A & B, src.en", "A & B, ref.ro")]
    assert task.metrics == ("bleu", "chrf", "perplexity")
    hub = datasets.Dataset.from_list([{"translation": {"en": "Yes", "ro": "Da"}}])
    splits = dict.fromkeys(("train", "validation", "test"), hub)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: splits)
    assert rows(read("wmt16/en-ro", None)) == [("Yes", "Da")]

    (tmp_path / "europarl-v8.ro-en.ro").write_text("Da.\n")
    assert "has 3 sentences" in error_of("wmt16/en-ro", tmp_path)


def test_options_of_a_named_task_s_kind() -> None:
    assert TaskSpec(name="xsum", kind={"beams": 2}).kind == {"beams": 2}
    with pytest.raises(ValueError, match=r"task\.kind\.beam: unknown option of seq2seq"):
        TaskSpec(name="xsum", kind={"beam": 2})
    with pytest.raises(ValueError, match="xsum is of kind seq2seq"):
        TaskSpec(name="xsum", kind="regression")
