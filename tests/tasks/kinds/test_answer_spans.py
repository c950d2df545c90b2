"""Windows over passages, the spans that are learned in them, and the best one: the slow way."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from iwlora.tasks import Task, TaskSpec, load
from iwlora.tasks.kinds import EncodingInput, Evaluation
from iwlora.tasks.kinds.question_answering import QuestionAnswering
from kinds import save_model

WORDS = "the Normans (Nourmands) were people who in the 10th, 11th centuries gave name café".split()


@pytest.fixture(scope="module", params=["word-piece", "byte-level"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One with special tokens around both texts, and one like GPT-2's, without any."""
    if request.param == "word-piece":
        return AutoTokenizer.from_pretrained(
            save_model(tmp_path_factory.mktemp("model") / "bert", "bert")
        )
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=512)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Questions about passages of 5 to 90 words, every third without an answer."""
    draw = random.Random(0)
    rows: list[dict[str, Any]] = []
    for number in range(18):
        passage = "  " + " ".join(draw.choices(WORDS, k=draw.randint(5, 90)))
        words = passage.split()
        begin = draw.randrange(len(words))
        answer = " ".join(words[begin : begin + draw.randint(1, 3)]).strip("(),")
        at = passage.find(answer, len(" ".join(words[:begin])))
        answers = {"text": [answer], "answer_start": [at]} if number % 3 else {}
        rows.append({"question": "who gave the name ?", "context": passage, "answers": answers})
    file = tmp_path_factory.mktemp("squad") / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    kind = {"name": "question-answering", "no_answer": True, "doc_stride": 8}
    return load(TaskSpec(train=str(file), validation=str(file), kind=kind), seed=0)


def encoded(task: Task, tokenizer: Any, length: int, **options: Any) -> Any:
    kind = QuestionAnswering(**{**task.kind.model_dump(), **options})
    return kind.encode(EncodingInput(task, task.splits["validation"], tokenizer, length))


def test_windows_cover_the_passage_and_share_what_is_asked(task: Task, tokenizer: Any) -> None:
    rows = encoded(task, tokenizer, 48)
    assert len(rows) > len(task.splits["validation"])
    for number, row in enumerate(task.splits["validation"]):
        spans = tokenizer(row["context"], add_special_tokens=False, return_offsets_mapping=True)
        expected = [span for span in spans["offset_mapping"] if span[1] > span[0]]
        windows = [
            [pair for pair in zip(one["starts"], one["ends"], strict=True) if pair[1] > pair[0]]
            for one in rows
            if one["row"] == number
        ]
        joined = windows[0] + [pair for one in windows[1:] for pair in one[8:]]
        assert joined == expected
        assert all(before[-8:] == after[:8] for before, after in pairwise(windows))
    assert max(rows["length"]) == 48


def test_half_a_window_is_shared_at_most(task: Task, tokenizer: Any) -> None:
    for length, stride in ((48, 10**6), (64, 128)):
        rows = encoded(task, tokenizer, length, doc_stride=stride)
        assert max(rows["length"]) <= length
        assert len(rows) < 40 * len(task.splits["validation"])


def test_the_tokens_that_are_learned_are_the_answer(task: Task, tokenizer: Any) -> None:
    rows = encoded(task, tokenizer, 48)
    learned: dict[int, set[str]] = {}
    for one in rows:
        passage = task.splits["validation"][one["row"]]["context"]
        first, last = one["labels"]
        if last:
            learned.setdefault(one["row"], set()).add(
                passage[one["starts"][first] : one["ends"][last]].strip()
            )
        else:
            assert first == 0
    expected = {
        number: row["label"]["text"][0]
        for number, row in enumerate(task.splits["validation"])
        if row["label"]["text"]
    }
    sizes = {number: len(tokenizer(gold)["input_ids"]) for number, gold in expected.items()}
    assert {number for number, size in sizes.items() if size <= 8} <= set(learned) <= set(expected)
    for number, texts in learned.items():
        if tokenizer.cls_token:
            assert texts == {expected[number]}
        else:  # an answer may begin or end within a token
            assert all(expected[number] in text and len(text) < 40 for text in texts)


def slowly(
    rows: Any, outputs: Mapping[str, Any], passages: list[str], kind: QuestionAnswering
) -> list[str]:
    """Every span of every window, one after the other."""
    answers = []
    for number, passage in enumerate(passages):
        best, text, none = -np.inf, "", np.inf
        for window, one in enumerate(rows):
            if one["row"] != number:
                continue
            start, end = outputs["start"][window], outputs["end"][window]
            none = min(none, start[0] + end[0])
            inside = [k for k, stop in enumerate(one["ends"]) if stop > one["starts"][k]]
            for i in inside:
                for j in range(i, min(i + kind.max_answer, inside[-1] + 1)):
                    if start[i] + end[j] > best:
                        best = start[i] + end[j]
                        text = passage[one["starts"][i] : one["ends"][j]].strip()
        answers.append("" if kind.no_answer and none - best > kind.threshold else text)
    return answers


@pytest.mark.parametrize("threshold", [None, -5.0, 0.0, 1.0])
def test_the_answer_is_the_best_span_of_all(
    threshold: float | None, task: Task, tokenizer: Any
) -> None:
    rows = encoded(task, tokenizer, 48)
    draw = np.random.default_rng(0)
    shape = len(rows), max(rows["length"])
    outputs = {name: draw.normal(size=shape) for name in ("start", "end")}
    for values in outputs.values():
        values[:, 0] += 2.0
    options = {"no_answer": threshold is not None, "threshold": threshold or 0.0}
    kind = QuestionAnswering(n_best=48, max_answer=5, **options)
    split = task.splits["validation"]
    predictions = kind.predictions(Evaluation(task, split, rows, outputs, tokenizer))
    expected = slowly(rows, outputs, list(split["context"]), kind)
    assert [row["prediction"] for row in predictions] == expected
    empty = expected.count("")
    least, most = {None: (0, 0), -5.0: (14, 18), 0.0: (1, 17), 1.0: (0, 17)}[threshold]
    assert least <= empty <= most
