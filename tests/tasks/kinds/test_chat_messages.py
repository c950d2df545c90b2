"""Messages in files: their forms, their fields and their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import iwlora
from chat_tokenizers import CHATML, TOOLS, byte_tokenizer, save_decoder, write_chats
from iwlora import IwloraError
from iwlora.tasks import Task, TaskSpec, load
from iwlora.tasks.kinds.contract import model_inputs
from iwlora.tasks.kinds.generation.chat import parse_messages
from iwlora.training.model.backbone import load_backbone

USER = {"role": "user", "content": "ab"}
REPLY = {"role": "assistant", "content": "xy"}
ARGUMENTS = {"x": [1, "é"]}


def task_of(folder: Path, *rows: dict[str, Any], **kind: Any) -> Task:
    file = write_chats(folder / "rows.jsonl", list(rows))
    options = {"name": "instruction", "max_target": 8, **kind}
    return load(TaskSpec(train=file, validation=file, kind=options), seed=0)


@pytest.mark.quick
def test_forms_of_messages() -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": ARGUMENTS}}
    parsed = {"role": "assistant", "content": "", "tool_calls": [call]}
    as_json = {"name": "look", "arguments": json.dumps(ARGUMENTS)}
    for value, expected in (
        ({"from": "human", "value": "ab"}, USER),
        ({"from": "gpt", "value": "xy", "weight": 0}, {**REPLY, "weight": 0}),
        ({"from": "observation", "value": "7"}, {"role": "tool", "content": "7"}),
        ({**USER, "tool_calls": None, "name": "", "weight": None}, USER),  # as Parquet fills rows
        ({**USER, "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, USER),
        ({"role": "function", "content": "7"}, {"role": "tool", "content": "7"}),
        ({"role": "assistant", "content": None, "function_call": as_json}, parsed),
        ({"role": "assistant", "tool_calls": [{"type": "function", "function": as_json}]}, parsed),
        (
            {**REPLY, "reasoning_content": "hm", "own": 1},
            {**REPLY, "reasoning_content": "hm", "own": 1},
        ),
    ):
        assert parse_messages([value]) == [expected]
        assert parse_messages(json.dumps([value])) == [expected]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (
            {**USER, "content": [{"type": "image_url"}]},
            "a part that is no text .image_url",
        ),
        ({**USER, "content": 7}, "message 1 is no {role: ..., content: ...}"),
        ({"role": "assistant"}, "message 1 is no {role: ..., content: ...}"),
        ({**REPLY, "content": " "}, "the assistant's content is empty"),
        ({**REPLY, "weight": 2}, "gives message 1 the weight 2; accepted: 0 to 1"),
        ({**REPLY, "weight": True}, "gives message 1 the weight True"),
        ({**USER, "weight": 1}, "role 'user' is not learned; add it to task.kind.learned_roles"),
        ({**REPLY, "tool_calls": ["look"]}, "message 1 has the tool call 'look'; accepted:"),
        (
            {**REPLY, "tool_calls": [{"function": {"name": "look", "arguments": "no"}}]},
            "message 1 calls look with arguments that are no map",
        ),
        ({"from": "ghost", "value": "ab"}, "message 1 is from 'ghost' .accepted: system, human"),
    ],
)
def test_messages_that_are_refused(message: Any, problem: str, tmp_path: Path) -> None:
    with pytest.raises(IwloraError, match=rf"rows.jsonl, line 1: column 'messages' .*{problem}"):
        task_of(tmp_path, {"messages": [message, USER, REPLY]})


def test_columns_of_chats(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "look"}}
    tokenizer = byte_tokenizer(TOOLS)
    task = task_of(tmp_path, {"messages": [USER, REPLY], "tools": [tool]})
    assert task.text == ("messages", "tools")

    class Config:
        is_encoder_decoder = False

    encoded = task.encode(tokenizer, 400, Config())
    whole = tokenizer.apply_chat_template([USER, REPLY], tools=[tool], return_dict=False)
    assert encoded["train"][0]["input_ids"] == whole
    prompt = tokenizer.apply_chat_template(
        [USER], tools=[tool], return_dict=False, add_generation_prompt=True
    )
    assert encoded["validation"][0]["prompt_ids"] == prompt
    apart = task_of(tmp_path, {"prompt": [USER], "tools": [tool], "completion": [REPLY]})
    assert apart.encode(tokenizer, 400, Config())["train"][0]["input_ids"] == whole
    turns = [{"from": "human", "value": "ab"}, {"from": "gpt", "value": "xy"}]
    shared = task_of(tmp_path, {"conversations": turns})
    plain = tokenizer.apply_chat_template([USER, REPLY], return_dict=False)
    assert shared.encode(tokenizer, 400, Config())["train"][0]["input_ids"] == plain
    call = {**REPLY, "tool_calls": [{"function": {"name": "look", "arguments": {}}}]}
    called = task_of(tmp_path, {"prompt": [USER], "completion": [call]})
    expected = tokenizer.apply_chat_template([USER, call], return_dict=False)
    assert called.encode(tokenizer, 400, Config())["train"][0]["input_ids"] == expected
    for row, problem in (
        ({"messages": [USER, REPLY], "tools": "look"}, "is no JSON list of tools"),
        ({"prompt": "ab", "completion": [call]}, "is more than a text, so its prompt must be|chat"),
        ({"prompt": [USER], "completion": [USER]}, "does not end with a message of the assistant"),
    ):
        with pytest.raises(IwloraError, match=problem):
            task_of(tmp_path, row)


@pytest.mark.parametrize("packing", [False, True])
@torch.no_grad()
def test_the_loss_of_weighted_messages(packing: bool, tmp_path: Path) -> None:
    weights = (0.25, 1, 0, 0.5)
    rows = [
        {"messages": [USER, {**REPLY, "content": "x" * (k + 1), "weight": weight}]}
        for k, weight in enumerate(weights)
    ]
    task = task_of(tmp_path, *rows, packing=packing)
    model, tokenizer = load_backbone(str(save_decoder(tmp_path / "model", CHATML)), (), task.kind)
    model.eval()
    encoded = task.encode(tokenizer, 128, model.config)["train"]
    assert len(encoded) == (1 if packing else 3)  # nothing is to be learned of the third
    batch = task.kind.collator(tokenizer, model)(list(encoded))
    loss = task.kind.batch_loss(model, batch)

    total, weight_sum = 0.0, 0.0
    for row, weight in zip(rows, weights, strict=True):
        chat = [{k: v for k, v in m.items() if k != "weight"} for m in row["messages"]]
        ids = torch.tensor([tokenizer.apply_chat_template(chat, return_dict=False)])
        prompt = {"return_dict": False, "add_generation_prompt": True}
        start = len(tokenizer.apply_chat_template(chat[:1], **prompt))
        logits = model(ids).logits[0, start - 1 : -2]  # the last token is the template's newline
        losses = torch.nn.functional.cross_entropy(logits, ids[0, start:-1], reduction="none")
        total, weight_sum = total + weight * losses.sum(), weight_sum + weight * len(losses)
    torch.testing.assert_close(loss, total / weight_sum, rtol=1e-5, atol=1e-6)
    assert "weights" not in model_inputs(batch)


def test_chats_without_anything_to_learn_and_of_old_runs(tmp_path: Path) -> None:
    model = str(save_decoder(tmp_path / "model", CHATML))
    silent = {"messages": [USER, {**REPLY, "weight": 0}]}
    task = task_of(tmp_path, silent)
    backbone, tokenizer = load_backbone(model, (), task.kind)
    with pytest.raises(IwloraError, match="none of them has anything to learn"):
        task.encode(tokenizer, 64, backbone.config)
    rows = write_chats(tmp_path / "chats.jsonl", [{"messages": [USER, REPLY]}])
    settings = {
        "format": "iwlora-recipe/2",
        "model": model,
        "task": {"train": rows, "validation": rows, "kind": {"name": "instruction"}},
        "method": "lora",
    }
    with pytest.raises(IwloraError, match=r"older version .* task\.kind\.chat_format=2"):
        iwlora.train(iwlora.build_recipe(settings), tmp_path / "old")
