"""Prompts, chats, packed rows and generated texts, compared with slow ways to compute them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import iwlora
from iwlora import IwloraError
from iwlora.tasks import Task, TaskSpec, load
from iwlora.tasks.kinds.contract import Evaluation, model_inputs
from iwlora.tasks.kinds.generation.sequence_packing import check_isolation
from iwlora.training.model.backbone import load_backbone
from kinds import DECODERS, WRITERS, save_model

IGNORED = -100
Loaded = tuple[Any, Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("writers")
    return {name: save_model(folder / name, name) for name in WRITERS}


def task_of(folder: Path, rows: Sequence[Mapping[str, Any]], **kind: Any) -> Task:
    """The task in these rows, which are trained on and scored."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = TaskSpec(train=str(file), validation=str(file), kind=kind or None)
    return load(spec, seed=0)


def loaded(folders: Mapping[str, Path], name: str, task: Task) -> Loaded:
    model, tokenizer = load_backbone(str(folders[name]), (), task.kind)
    return model.eval(), tokenizer


def learned(row: Mapping[str, Any], tokenizer: Any) -> str:
    """The words that a row teaches, ends of texts among them."""
    return str(tokenizer.decode([label for label in row["labels"] if label != IGNORED]))


PROMPTS = [
    {"prompt": " ".join(["the dog sees"] * (1 + k % 4)), "completion": ["the cat", "a film"][k % 2]}
    for k in range(9)
]
CHAT = [
    {"role": "system", "content": "it is very old"},
    {"role": "user", "content": "who runs ?"},
    {"role": "assistant", "content": "the dog"},
    {"role": "user", "content": "and who sleeps ?"},
    {"role": "assistant", "content": "the cat"},
]


@pytest.mark.parametrize("name", DECODERS)
def test_completions_alone_are_learned(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    task = task_of(tmp_path, PROMPTS, max_target=8)
    model, tokenizer = loaded(folders, name, task)
    rows = task.encode(tokenizer, 64, model.config)["train"]
    assert [learned(row, tokenizer) for row in rows] == [
        f"{row['completion']} [SEP]" for row in PROMPTS
    ]


def test_every_answer_of_a_chat_is_learned_and_the_last_is_scored(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    task = task_of(tmp_path, [{"messages": CHAT}], max_target=8)
    model, tokenizer = loaded(folders, "llama", task)
    encoded = task.encode(tokenizer, 64, model.config)
    (train,), (scored,) = encoded["train"], encoded["validation"]
    whole = tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    assert train["input_ids"] == scored["input_ids"] == whole
    assert learned(train, tokenizer) == "the dog [SEP] the cat [SEP]"
    assert learned(scored, tokenizer) == "the cat [SEP]"
    assert scored["prompt_ids"] == tokenizer.apply_chat_template(
        CHAT[:-1], tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert list(task.splits["validation"]["label"]) == ["the cat"]


def test_a_chat_and_its_answer_apart(folders: dict[str, Path], tmp_path: Path) -> None:
    together = task_of(tmp_path, [{"messages": CHAT}], max_target=8)
    model, tokenizer = loaded(folders, "llama", together)
    expected = together.encode(tokenizer, 64, model.config)
    for answer in ("the cat", CHAT[-1:]):
        apart = task_of(tmp_path, [{"prompt": CHAT[:-1], "completion": answer}], max_target=8)
        encoded = apart.encode(tokenizer, 64, model.config)
        for split in ("train", "validation"):
            assert list(encoded[split]) == list(expected[split])
    for wrong, message in (
        (
            {"prompt": CHAT, "completion": "the dog"},
            "the chat ends with a reply that differs from the label",
        ),
        (
            {"prompt": "who ?", "completion": CHAT[-2:]},
            "holds 2 messages; accepted: one, the assistant's",
        ),
        ({"prompt": "who ?", "completion": CHAT[:1]}, "does not end with a message of the assis"),
        ({"prompt": [{"role": "user"}], "completion": "x"}, "message 1 is no {role"),
    ):
        with pytest.raises(IwloraError, match=message):
            task_of(tmp_path, [wrong])


def test_a_list_in_a_prompt_is_a_text(tmp_path: Path) -> None:
    task = task_of(tmp_path, [{"prompt": "[1, 2]", "completion": "[2, 1]"}])
    (row,) = task.splits["train"]
    assert (row["prompt"], row["label"]) == ("[1, 2]", "[2, 1]")


def test_instructions_with_an_input(folders: dict[str, Path], tmp_path: Path) -> None:
    rows = [
        {"instruction": "who runs ?", "input": "the dog", "output": "dog"},
        {"instruction": "who sees ?", "input": "", "output": "cat"},
    ]
    task = task_of(tmp_path, rows, max_target=8)
    model, tokenizer = loaded(folders, "llama", task)
    encoded = task.encode(tokenizer, 64, model.config)["validation"]
    prompts = [tokenizer.decode(row["prompt_ids"][1:]) for row in encoded]
    assert prompts == ["who runs? the dog", "who sees?"]


def test_a_template_that_refuses_a_chat(folders: dict[str, Path], tmp_path: Path) -> None:
    task = task_of(tmp_path, [{"messages": CHAT}], max_target=8)
    model, tokenizer = loaded(folders, "llama", task)
    tokenizer.chat_template = "{{ raise_exception('no system here') }}"
    with pytest.raises(IwloraError, match=r"refuses a chat of system, user.*: no system here"):
        task.encode(tokenizer, 64, model.config)
    tokenizer.chat_template = None
    with pytest.raises(IwloraError, match="the tokenizer has no chat template"):
        task.encode(tokenizer, 64, model.config)


def test_what_is_too_long_loses_its_beginning(folders: dict[str, Path], tmp_path: Path) -> None:
    long = {"prompt": "the dog " * 20 + "who ?", "completion": "a film " * 9}
    task = task_of(tmp_path, [long], max_target=6)
    model, tokenizer = loaded(folders, "llama", task)
    (row,) = task.encode(tokenizer, 16, model.config)["validation"]
    assert len(row["input_ids"]) == 16
    assert tokenizer.decode(row["input_ids"][1:]).startswith("dog the dog")
    assert learned(row, tokenizer) == "a film a film a film"
    assert tokenizer.decode(row["prompt_ids"]).endswith("dog who?")
    assert len(row["prompt_ids"]) == 16 - 6
    with pytest.raises(IwloraError, match="leaves no room for a prompt"):
        task.encode(tokenizer, 6, model.config)


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_packed_rows_are_learned_as_if_apart(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    apart = task_of(tmp_path, PROMPTS, max_target=8)
    task = task_of(tmp_path, PROMPTS, max_target=8, packing=True)
    model, tokenizer = loaded(folders, name, task)
    singles = apart.encode(tokenizer, 40, model.config)["train"]
    packs = task.encode(tokenizer, 40, model.config)["train"]
    assert len(packs) < len(singles) / 2
    assert max(packs["length"]) <= 40
    pieces = []
    for pack in packs:
        starts = [k for k, at in enumerate(pack["position_ids"]) if at == 0]
        for begin, end in zip(starts, [*starts[1:], pack["length"]], strict=True):
            pieces.append((pack["input_ids"][begin:end], pack["labels"][begin:end]))
    assert sorted(pieces) == sorted((row["input_ids"], row["labels"]) for row in singles)

    def losses(rows: Any) -> torch.Tensor:
        batch = task.kind.collator(tokenizer, model)(list(rows))
        return task.kind.loss(model(**model_inputs(batch)), batch["labels"])

    together, one_by_one = losses(packs), sum(losses([row]) for row in singles)
    torch.testing.assert_close(together, one_by_one, rtol=1e-5, atol=1e-5)

    collate = task.kind.collator(tokenizer, model)
    check_isolation(model, packs, collate)
    model.config.use_cache = True  # a cache makes transformers overlook where rows begin
    with pytest.raises(IwloraError, match=r"task\.kind\.packing=true: this model"):
        check_isolation(model, packs, collate)


def test_packing_is_refused_where_rows_would_mix(folders: dict[str, Path], tmp_path: Path) -> None:
    rows = task_of(tmp_path, PROMPTS).name
    kind = {"name": "instruction", "packing": True, "max_target": 8}
    for model, method, message in (
        ("llama", "prefix", "with this method, lets a packed row attend to the one before it"),
        ("t5", "lora", "is for decoders, and this model is an encoder-decoder"),
    ):
        settings = {
            "model": str(folders[model]),
            "task": {"train": rows, "validation": rows, "kind": kind},
            "method": method,
            "train": {"max_length": 40},
        }
        with pytest.raises(IwloraError, match=message):
            iwlora.train(iwlora.build_recipe(settings), tmp_path / model)


@pytest.mark.parametrize("name", WRITERS)
@torch.no_grad()
def test_the_loss_is_the_model_s_own(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    task = task_of(tmp_path, PROMPTS, max_target=8)
    model, tokenizer = loaded(folders, name, task)
    rows = task.encode(tokenizer, 64, model.config)["validation"]
    batch = task.kind.collator(tokenizer, model)(list(rows))
    outputs = task.kind.outputs(model, tokenizer, batch, final=False)
    for k, row in enumerate(rows):
        ids = torch.tensor([row["input_ids"]])
        expected = model(input_ids=ids, labels=torch.tensor([row["labels"]])).loss
        torch.testing.assert_close(outputs["loss"][k] / outputs["count"][k], expected)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("beams", [1, 3])
@torch.no_grad()
def test_answers_are_those_of_each_prompt_alone(
    name: str, beams: int, folders: dict[str, Path], tmp_path: Path
) -> None:
    task = task_of(tmp_path, PROMPTS, max_target=8, beams=beams, length_penalty=2.0, min_target=3)
    model, tokenizer = loaded(folders, name, task)
    rows = task.encode(tokenizer, 64, model.config)["validation"]
    batch = task.kind.collator(tokenizer, model)(list(rows))
    written = task.kind.outputs(model, tokenizer, batch, final=True)["generated"]
    answers = task.kind.predictions(Evaluation(task, rows, rows, {"generated": written}, tokenizer))
    options = {"num_beams": beams, "early_stopping": True} if beams > 1 else {}
    for row, answer in zip(rows, answers, strict=True):
        prompt = torch.tensor([row.get("prompt_ids", row["input_ids"])])
        alone = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=8,
            min_new_tokens=3,
            length_penalty=2.0 if beams > 1 else None,
            pad_token_id=0,
            do_sample=False,
            **options,
        )
        alone = alone if model.config.is_encoder_decoder else alone[:, prompt.shape[1] :]
        expected = tokenizer.decode(alone[0], skip_special_tokens=True).strip()
        assert answer == {"prediction": expected}


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_an_answer_repeats_its_prompt_but_not_itself(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    task = task_of(tmp_path, PROMPTS[:1], no_repeat_ngram=1, max_target=8)
    model, tokenizer = loaded(folders, name, task)
    (row,) = task.encode(tokenizer, 64, model.config)["validation"]
    favorite = row["input_ids"][-1]
    words = model.get_output_embeddings()

    class Favoring(torch.nn.Module):
        """Logits that put one token of the prompt first."""

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            logits = torch.nn.functional.linear(states, words.weight)
            return logits + 50.0 * (torch.arange(logits.shape[-1]) == favorite)

    model.set_output_embeddings(Favoring())
    batch = task.kind.collator(tokenizer, model)([row])
    ids = task.kind.outputs(model, tokenizer, batch, final=True)["generated"][0].tolist()
    ids = ids[1:] if name == "t5" else ids
    assert ids[0] == favorite
    assert len(set(ids)) == len(ids)
