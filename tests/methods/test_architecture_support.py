"""The table of methods × architectures says what trying says."""

from __future__ import annotations

from typing import Any

import pytest

from iwlora.errors import IwloraError
from iwlora.methods import METHODS, Attached
from iwlora.methods.architecture_support import shipped_table, support_table, try_methods
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.tiny_models import ARCHITECTURES, IMAGE_ARCHITECTURES, refusals


class OnlyBert(Lora):
    def attach(self, model: Any, *args: Any, **kwargs: Any) -> Attached:
        if model.config.model_type == "gpt2":
            raise KeyError("no such thing")
        if model.config.model_type != "bert":
            raise IwloraError("mine is for BERT; take lora")
        return super().attach(model, *args, **kwargs)


@pytest.mark.slow
def test_what_methods_say_is_what_happens_and_what_is_shipped() -> None:
    """If the table has changed, write the output of ``iwlora methods --try`` into its file."""
    rows = {name: method() for name, method in METHODS.items()}
    tried = try_methods(rows)
    every = (*ARCHITECTURES, *IMAGE_ARCHITECTURES)
    said = {name: refusals(method, every) for name, method in rows.items()}
    assert {name: {key: row[key] for key in every} for name, row in tried.items()} == said
    assert support_table(tried) == shipped_table()


def test_the_table_has_what_was_tried_and_why_not() -> None:
    support = try_methods({"lora": Lora(), "mine": OnlyBert()})
    assert [column for column, refusal in support["lora"].items() if refusal] == ["depthwise"]
    texts, images, convolutions = support_table(support).split("\n\n")
    assert [line.split()[1:] for line in convolutions.splitlines()[1:3]] == [
        ["yes", "yes", "-"],
        ["-", "-", "-"],
    ]
    assert images.splitlines()[0].split() == list(IMAGE_ARCHITECTURES)
    lines = texts.splitlines()
    assert lines[0].split() == list(ARCHITECTURES)
    assert lines[1].split() == ["lora"] + ["yes"] * 8
    assert lines[2].split() == ["mine", "yes"] + ["-"] * 7
    starts = [lines[0].index(f" {name}") for name in ARCHITECTURES]
    assert [lines[2][at + 1] for at in starts] == list("y-------")
    assert lines[-2:] == [
        "roberta, electra, deberta-v2, t5, bart, llama: mine is for BERT; take lora",
        "gpt2: KeyError: 'no such thing'",
    ]
