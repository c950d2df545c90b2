"""Plain texts: every token counts once, and the perplexity is that of a slow loop."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import iwlora
from iwlora import IwloraError
from iwlora.results.run import RunResult
from iwlora.tasks import Task, TaskSpec, load
from iwlora.tasks.kinds.contract import Evaluation
from iwlora.tasks.kinds.generation.language_modeling import windows
from iwlora.training.model.backbone import load_backbone
from iwlora.training.suggestion.recipe import suggest
from kinds import DECODERS, save_model

IGNORED = -100
TEXTS = [
    "the dog sees a film",
    "it is very good and the cat sleeps in the old house while it rains and a man runs",
    "film",
    "the woman likes a new and very old film and the dog sees it and the cat sees it too and",
]
Windows = Callable[[int, int], Sequence[tuple[int, int]]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("writers")
    return {name: save_model(folder / name, name) for name in (*DECODERS, "bert", "t5")}


def texts_in(folder: Path, texts: Sequence[str] = TEXTS) -> str:
    folder.mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / f"{number:02}.txt").write_text(text, encoding="utf-8")
    return str(folder)


def task_of(folder: Path, **kind: Any) -> Task:
    """The texts as a task, of which all are trained on and scored."""
    texts = texts_in(folder / "texts")
    options = {"name": "language-modeling", **kind}
    return load(TaskSpec(train=texts, validation=texts, kind=options), seed=0)


# --- windows ---


def problem_with(divide: Windows) -> str | None:
    """Where a token is not predicted once, or more is read than a window holds."""
    for tokens in range(1, 30):
        for length in range(2, 12):
            parts = divide(tokens, length)
            predicted = [token for first, stop in parts for token in range(first + 1, stop)]
            if predicted != list(range(1, tokens)):
                return f"{predicted} of {tokens} tokens"
            if max(stop - first for first, stop in parts) > length:
                return f"more than {length} tokens"
    return None


@pytest.mark.quick
def test_every_token_but_the_first_is_predicted_once() -> None:
    assert problem_with(windows) is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda tokens, length: [(k, min(k + length, tokens)) for k in range(0, tokens, length)],
        lambda tokens, length: [(0, min(length, tokens))],
        lambda tokens, length: [(0, tokens)],
    ],
    ids=["first tokens are lost", "cut off", "too long"],
)
def test_wrong_windows_are_noticed(wrong: Windows) -> None:
    assert problem_with(wrong)


@pytest.mark.parametrize("name", DECODERS)
def test_whole_texts_are_trained_on(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    task = task_of(tmp_path)
    model, tokenizer = load_backbone(str(folders[name]), (), task.kind)
    notes: list[str] = []
    encoded = task.encode(tokenizer, 8, model.config, notes)
    for rows in encoded.values():
        learned: dict[int, list[int]] = {}
        for row in rows:
            assert len(row["input_ids"]) == len(row["labels"]) <= 8
            pairs = zip(row["input_ids"], row["labels"], strict=True)
            assert all(label in (token, IGNORED) for token, label in pairs)
            learned.setdefault(row["row"], row["input_ids"][:1])
            learned[row["row"]] += row["labels"][1:]
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in learned.values()]
        assert texts == TEXTS
        assert all(ids[-1] == tokenizer.eos_token_id for ids in learned.values())
    assert notes[0].startswith("2 of 4 texts that are trained on are longer than train.max_length")
    assert notes[1].startswith("2 of 4 texts that are scored are longer")
    assert task.encode(tokenizer, 64, model.config)["validation"]["row"][:] == [0, 1, 2, 3]


def test_short_texts_are_packed(folders: dict[str, Path], tmp_path: Path) -> None:
    task = task_of(tmp_path, packing=True)
    model, tokenizer = load_backbone(str(folders["llama"]), (), task.kind)
    encoded = task.encode(tokenizer, 16, model.config)
    single = task_of(tmp_path / "single").encode(tokenizer, 16, model.config)
    assert len(encoded["train"]) < len(single["train"])
    assert sum(encoded["train"]["length"]) == sum(single["train"]["length"])
    assert encoded["validation"]["input_ids"][:] == single["validation"]["input_ids"][:]
    task.kind.check_model(model, encoded["train"], task.kind.collator(tokenizer, model))


# --- the perplexity ---


@torch.no_grad()
def slow_loss(model: Any, ids: Sequence[int], length: int) -> tuple[float, int]:
    """(sum of -log p, tokens), one token at a time, each from what is before it in its window."""
    total, start = 0.0, 0
    for position in range(1, len(ids)):
        if position - start == length:
            start = position - 1
        logits = model(torch.tensor([ids[start:position]])).logits[0, -1]
        total -= float(logits.log_softmax(-1)[ids[position]])
    return total, len(ids) - 1


@pytest.mark.parametrize("name", DECODERS)
def test_the_perplexity_is_that_of_a_slow_loop(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    task = task_of(tmp_path)
    model, tokenizer = load_backbone(str(folders[name]), (), task.kind)
    rows = task.splits["validation"]
    encoded = task.encode(tokenizer, 8, model.config)["validation"]
    batch = task.kind.collator(tokenizer, model)(list(encoded))
    with torch.no_grad():
        outputs = task.kind.outputs(model.eval(), tokenizer, batch, True)
    arrays = {key: value.numpy() for key, value in outputs.items()}
    evaluation = Evaluation(task, rows, encoded, arrays, tokenizer)
    predicted = task.kind.predictions(evaluation)

    plain = AutoModelForCausalLM.from_pretrained(folders[name], dtype=torch.float64).eval()
    plain_tokenizer = AutoTokenizer.from_pretrained(folders[name])
    losses = []
    for text, row in zip(TEXTS, predicted, strict=True):
        begin = plain_tokenizer("a")["input_ids"][:1]
        begin = begin if begin == [plain_tokenizer.cls_token_id] else []
        ids = plain_tokenizer(text, add_special_tokens=False)["input_ids"]
        loss, tokens = slow_loss(plain, [*begin, *ids, plain_tokenizer.eos_token_id], 8)
        losses.append((loss, tokens))
        assert row["tokens"] == tokens
        assert row["perplexity"] == pytest.approx(math.exp(loss / tokens), rel=1e-5)
    total, count = map(sum, zip(*losses, strict=True))
    scores = task.kind.score(evaluation, predicted)
    assert scores == pytest.approx(
        {"perplexity": math.exp(total / count), "loss": total / count}, rel=1e-5
    )
    # Not that of rows, or of windows, with equal weights.
    assert scores["loss"] != pytest.approx(sum(s / n for s, n in losses) / len(losses), rel=1e-3)


# --- a run ---


@pytest.fixture(scope="module")
def run(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """IW-LoRA on a folder of texts, of which a part is held out."""
    folder = tmp_path_factory.mktemp("run")
    words = "the dog sees a film and the cat sleeps in the old house while it rains".split()
    texts = [" ".join(words[n % 5 :]) + " very" * n for n in range(30)]
    recipe = iwlora.build_recipe(
        {
            "model": str(folders["gpt2"]),
            "task": {"train": texts_in(folder / "texts", texts)},
            "method": {"name": "iw-lora", "rank": 2, "max_batches": 2},
            "train": {
                "epochs": 1,
                "lr": 2e-2,
                "batch_size": 16,
                "max_length": 24,
                "precision": "fp32",
            },
        }
    )
    iwlora.train(recipe, folder / "out")
    return folder / "out"


def test_a_folder_of_texts_is_trained_and_scored(run: Path) -> None:
    result = RunResult.load(run / "result.json")
    assert (result.kind or {})["name"] == "language-modeling"
    assert list(result.metrics) == ["perplexity", "loss"]
    assert result.metrics["perplexity"] == pytest.approx(math.exp(result.metrics["loss"]))
    assert any("3 of the 30 rows" in note for note in result.notes)
    assert any("text=text, kind=language-modeling" in note for note in result.notes)
    assert any("are read in windows of so many tokens" in note for note in result.notes)
    with (run / "predictions" / "validation.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[-3:] == ["text", "perplexity", "tokens"]
    losses = [(math.log(float(r["perplexity"])) * int(r["tokens"]), int(r["tokens"])) for r in rows]
    total, count = map(sum, zip(*losses, strict=True))
    assert result.metrics["loss"] == pytest.approx(total / count)


def test_the_floor_is_the_untuned_model(run: Path, folders: dict[str, Path]) -> None:
    result = RunResult.load(run / "result.json")
    (floor,) = result.floors
    plain = AutoModelForCausalLM.from_pretrained(folders["gpt2"], dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(folders["gpt2"])
    losses = []
    with (run / "predictions" / "validation.csv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            ids = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
            begin = tokenizer("a")["input_ids"][:1]
            begin = begin if begin == [tokenizer.cls_token_id] else []
            losses.append(slow_loss(plain, [*begin, *ids, tokenizer.eos_token_id], 24))
    total, count = map(sum, zip(*losses, strict=True))
    assert (floor.name, floor.trivial, floor.rows) == ("untuned model", True, 3)
    assert floor.metrics["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert floor.margin == pytest.approx(
        floor.metrics["perplexity"] - result.metrics["perplexity"], rel=1e-4
    )


def test_the_card_of_an_export_says_how_much_lower_the_perplexity_is(
    run: Path, tmp_path: Path
) -> None:
    (floor,) = RunResult.load(run / "result.json").floors
    card = (iwlora.export(run, tmp_path / "adapter") / "README.md").read_text(encoding="utf-8")
    assert f"Against the untuned model: perplexity {-(floor.margin or 0):+.4f}, on 3 rows." in card
    assert 'inputs = tokenizer("the beginning of a text", ' in card


def test_new_texts_get_their_perplexity(run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text(json.dumps({"text": TEXTS[1]}) + "\n")
    iwlora.predict(run, tmp_path / "new.jsonl", tmp_path / "out.jsonl")
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert list(row) == ["row", "line", "text", "perplexity", "tokens"]
    folder = texts_in(tmp_path / "folder", TEXTS[1:2])
    iwlora.predict(run, folder, tmp_path / "again.jsonl")
    (again,) = map(json.loads, (tmp_path / "again.jsonl").read_text().splitlines())
    assert again["perplexity"] == row["perplexity"]


@pytest.mark.usefixtures("needs_minilm")
def test_a_recipe_for_a_folder_of_texts(folders: dict[str, Path], tmp_path: Path) -> None:
    texts = texts_in(tmp_path / "texts", [f"{TEXTS[1]} and {n} very old" for n in range(20)])
    found = suggest(texts, [f"model={folders['llama']}"])
    assert found.settings["task"] == {"train": texts, "text": "text", "kind": "language-modeling"}
    assert found.reasons["task.kind"] == "guessed"
    assert found.recipe.train.max_length >= 24
    with pytest.raises(
        IwloraError, match=r"is an encoder, which reads .* such as model=Qwen/Qwen2"
    ):
        suggest(texts, [])


# --- what is refused ---


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "bert",
            "bert is an encoder, which reads the whole text and does not go on with it; use a",
        ),
        ("t5", "t5 is an encoder-decoder, which writes a target for a source and does not go on"),
    ],
)
def test_models_that_do_not_go_on_with_a_text(
    name: str, message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(IwloraError, match=message):
        load_backbone(str(folders[name]), (), task_of(tmp_path).kind)


@pytest.mark.quick
def test_a_label_is_refused() -> None:
    with pytest.raises(ValueError, match=r"task\.label=mood: a task of kind language-modeling"):
        TaskSpec(train="a.csv", label="mood", kind="language-modeling")


def test_a_window_needs_two_tokens(folders: dict[str, Path], tmp_path: Path) -> None:
    task = task_of(tmp_path)
    model, tokenizer = load_backbone(str(folders["gpt2"]), (), task.kind)
    with pytest.raises(IwloraError, match=r"train\.max_length=1: at least 2 tokens are needed"):
        task.encode(tokenizer, 1, model.config)
