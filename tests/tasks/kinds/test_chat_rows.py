"""What is learned of a chat, compared with the tokenizer's own rendering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BertTokenizerFast, ByT5Tokenizer, PreTrainedTokenizerFast

import chat_templates
from chat_tokenizers import (
    CHATML,
    MARKED,
    OPEN_END,
    PROMPT_THINKS,
    REWRITING,
    TOOLS,
    WORDS,
    byte_tokenizer,
)
from iwlora import IwloraError
from iwlora.tasks.kinds.generation.instruction import Instruction

CHAT = [
    {"role": "user", "content": "who runs?"},
    {"role": "assistant", "content": "the dog"},
    {"role": "user", "content": "who sleeps?"},
    {"role": "assistant", "content": "the cat"},
]
CALL = {"type": "function", "function": {"name": "look", "arguments": {"x": 1}}}


def learned(
    tokenizer: Any, messages: Sequence[Any], tools: Any = None, **options: Any
) -> list[list[tuple[str, float]]]:
    """(text, weight) of the learned stretches in each row of a chat."""
    rows = []
    for ids, weights in Instruction(**options).chat_encoder(tokenizer).rows(messages, tools):
        stretches: list[tuple[list[int], float]] = []
        before = 0.0
        for token, weight in zip(ids, weights, strict=True):
            if weight and weight != before:
                stretches.append(([], weight))
            if weight:
                stretches[-1][0].append(token)
            before = weight
        rows.append([(tokenizer.decode(tokens), weight) for tokens, weight in stretches])
    return rows


def texts(tokenizer: Any, messages: Sequence[Any], **options: Any) -> list[list[str]]:
    rows = learned(tokenizer, messages, **options)
    return [[text for text, _ in row] for row in rows]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, [["the dog<|im_end|>", "the cat<|im_end|>"]]),
        (
            REWRITING,
            [["<think></think>the dog<|im_end|>"], ["<think></think>the cat<|im_end|>"]],
        ),
        (PROMPT_THINKS, [["the dog<|im_end|>", "the cat<|im_end|>"]]),
        (OPEN_END, [["the dog<|user|>", "the cat<|user|>"]]),
        (WORDS, [[" the dog #\n<eos>"], [" the cat #\n<eos>"]]),
        (MARKED, [["the dog<|im_end|>", "the cat<|im_end|>"]]),
    ],
    ids=["chatml", "rewriting", "prompt-thinks", "open-end", "words", "marked"],
)
def test_every_reply_is_learned_through_its_end(template: str, expected: list[list[str]]) -> None:
    tokenizer = byte_tokenizer(template)
    assert texts(tokenizer, CHAT) == expected
    encoder = Instruction().chat_encoder(tokenizer)
    for stop, (ids, weights) in zip((2, 4), encoder.rows(CHAT, None), strict=False):
        chat = CHAT if len(expected) == 1 else CHAT[:stop]
        whole = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
        # Only a stop token that the template does not write comes after it.
        assert ids[: len(whole)] == whole
        assert ids[len(whole) :] in ([], encoder.template.stops)
        first = next(k for k, weight in enumerate(weights) if weight)
        prompt = encoder.prompt(CHAT[: stop - 1], None)
        assert ids[:first] == tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer = encoder.template.content([t for t, w in zip(ids, weights, strict=True) if w])
        assert tokenizer.decode(answer).strip() in ("the dog", "the cat")
    (note,) = encoder.notes() or [""]
    assert note.startswith("the chat template ends a prompt with '<think>'") == (
        template == PROMPT_THINKS
    )


def test_only_the_last_reply_where_others_are_no_continuation() -> None:
    template = CHATML.replace("<|im_start|>{{ m.role }}", "{{ loop.revindex }}{{ m.role }}")
    late = CHATML.replace(
        "<|im_start|>{{ m.role }}",
        "{{ '' if loop.length > 2 or loop.first else '?' }}<|im_start|>{{ m.role }}",
    )
    encoder = Instruction().chat_encoder(byte_tokenizer(template))
    with pytest.raises(IwloraError, match="does not render a reply as a continuation"):
        list(encoder.rows(CHAT, None))
    tokenizer = byte_tokenizer(late.replace("{% if add", "{% if messages | length > 1 and add"))
    assert texts(tokenizer, CHAT)[-1] == ["the cat<|im_end|>"]


def test_blocks_of_the_template_say_what_is_learned() -> None:
    chat = [CHAT[0], {**CHAT[1], "name": "Ann"}]
    assert texts(byte_tokenizer(MARKED), chat) == [["the dog<|im_end|>"]]  # not "Ann "
    whole = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    assert texts(byte_tokenizer(whole), chat) == [["Ann the dog<|im_end|>"]]


def test_weights_and_roles() -> None:
    tokenizer = byte_tokenizer(CHATML)
    chat = [CHAT[0], {**CHAT[1], "weight": 0.25}, {**CHAT[2], "weight": 0}, CHAT[3]]
    assert learned(tokenizer, chat) == [[("the dog<|im_end|>", 0.25), ("the cat<|im_end|>", 1.0)]]
    chat[1] = {**CHAT[1], "weight": 0}
    assert learned(tokenizer, chat) == [[("the cat<|im_end|>", 1.0)]]
    roles = {"learned_roles": ["assistant", "user"]}
    assert texts(tokenizer, CHAT, **roles) == [
        ["who runs?<|im_end|>", "the dog<|im_end|>", "who sleeps?<|im_end|>", "the cat<|im_end|>"]
    ]
    assert texts(tokenizer, CHAT, learned_roles=["user"]) == [
        ["who runs?<|im_end|>", "who sleeps?<|im_end|>"]
    ]
    assert texts(tokenizer, [CHAT[1], *CHAT]) == [
        ["the dog<|im_end|>", "the dog<|im_end|>", "the cat<|im_end|>"]  # a greeting first
    ]


def test_tool_calls_and_reasoning_are_learned_or_refused() -> None:
    call = [CHAT[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    result = {"role": "tool", "content": "7", "tool_call_id": "c1"}
    tokenizer = byte_tokenizer(TOOLS)
    chat = [*call, result, CHAT[3]]
    tools = [{"type": "function", "function": {"name": "look"}}]
    encoder = Instruction().chat_encoder(tokenizer)
    ((ids, _),) = encoder.rows(chat, tools)
    assert ids == tokenizer.apply_chat_template(chat, tools=tools, return_dict=False)
    assert texts(tokenizer, chat) == [['<tool>look{"x": 1}<|im_end|>', "the cat<|im_end|>"]]
    assert "does not render tool_call_id (tool) of 1 messages" in " ".join(encoder.notes())
    thought = [CHAT[0], {**CHAT[1], "reasoning_content": "hm"}]
    assert texts(byte_tokenizer(REWRITING), thought) == [["<think>hm</think>the dog<|im_end|>"]]
    plain = byte_tokenizer(CHATML)
    user_only = byte_tokenizer(
        CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}")
    )
    for tokenizer, chat, offered, lost in (
        (plain, call, None, "tool_calls of message 2"),
        (plain, thought, None, "reasoning_content of message 2"),
        (plain, CHAT, tools, "does not render tools"),
        (user_only, [*CHAT[:2], result, CHAT[3]], None, r"content of message 3 \(tool\)"),
    ):
        with pytest.raises(IwloraError, match=lost):
            list(Instruction().chat_encoder(tokenizer).rows(chat, offered))
        with pytest.raises(IwloraError, match=lost):
            Instruction().chat_encoder(tokenizer).last_reply(chat, offered)
    # Templates leave the reasoning of earlier replies out by design: here they are not learned.
    Instruction().chat_encoder(plain).last_reply([*thought, *CHAT[2:]], None)


def test_a_content_that_the_template_shortens_is_refused_where_it_is_learned() -> None:
    shortening = byte_tokenizer(
        CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
    )
    chat = [CHAT[0], {"role": "assistant", "content": "<think>a</think>b"}, *CHAT[2:]]
    with pytest.raises(IwloraError, match="content of message 2"):
        list(Instruction().chat_encoder(shortening).rows(chat, None))
    chat[1] = {**chat[1], "weight": 0}
    assert texts(shortening, chat) == [["the cat<|im_end|>"]]


def _sentencepiece(scheme: str | None) -> Any:
    """Like Llama's tokenizer: a space is a letter, and one is put before a text."""
    letters = "▁abcdefghijklmnopqrstuvwxyz?<>|_\n/"
    pieces = [
        ("<unk>", 0.0),
        *((letter, -3.0) for letter in letters),
        ("▁the", -2.0),
        ("dog", -2.0),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    if scheme is None:
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(steps)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    marks = ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]
    tokenizer.add_special_tokens(marks)
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>")


def _wordpiece() -> Any:
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] user assistant who runs sleeps ? the dog cat".split()
    tokenizer = BertTokenizerFast(vocab={word: k for k, word in enumerate(words)})
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


def _slow() -> Any:
    tokenizer = ByT5Tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    assert not tokenizer.is_fast
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        _sentencepiece("always"),
        _sentencepiece("first"),
        _sentencepiece(None),
        byte_tokenizer(CHATML),
        _wordpiece(),
        _slow(),
    ],
    ids=["metaspace", "metaspace-first", "legacy", "bytes", "wordpiece", "slow"],
)
@pytest.mark.parametrize("template", [CHATML, "{{ bos_token }}" + CHATML.replace("\n", " ")])
def test_token_ids_are_those_of_apply_chat_template(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = template
    ((ids, weights),) = Instruction().chat_encoder(tokenizer).rows(CHAT, None)
    assert ids == tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    replies, end = [], tokenizer.convert_tokens_to_ids("<|im_end|>")
    for token, weight in zip(ids, weights, strict=True):
        if weight:
            replies += [token]
    first, second = (k for k, token in enumerate(replies) if token == end)
    words = [
        tokenizer.decode(part).strip() for part in (replies[:first], replies[first + 1 : second])
    ]
    assert [word.replace(" ", "") for word in words] == ["thedog", "thecat"]


@pytest.mark.parametrize(
    "name",
    ["phi3", "qwen3", "qwen3_training", "glm4moe", "gptoss", "deepseek_r1_distill", "idefics3"],
)
def test_templates_of_published_models(name: str) -> None:
    pytest.importorskip("trl")
    assert list(chat_templates.problems(name)) == []
