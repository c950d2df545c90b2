"""The code of a card for every kind of task; ``test_model_card.py`` executes it."""

from __future__ import annotations

import ast

import pytest

from iwlora.tasks import Task
from iwlora.tasks.kinds import KINDS
from iwlora.training.sharing.snippet import snippet


@pytest.mark.quick
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (name, form)
        for name, kind in KINDS.items()
        for form in ("peft", "iwlora", "transformers")
        if form == "transformers" or not kind.not_exported
    ],
)
def test_the_code_of_every_kind_is_python_that_uses_what_it_imports(kind: str, form: str) -> None:
    labels = ("it's", 'say "no"') if KINDS[kind]().has_classes else ()
    task = Task("mine", ("text",), labels, ("loss",), kind=KINDS[kind]())
    of_images = task.kind.reads_images
    code = snippet(task, "me/base", "AutoModel", form, 64, new_tokens=not of_images)
    tree = ast.parse(code)
    imported = {
        (name.asname or name.name)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert imported <= used
    assert {"processor" if of_images else "tokenizer", "model", "inputs"} <= used
    assert ("me/base" in code) == (form != "transformers")
    if labels:
        assert repr(list(labels)) in code
    # A photograph is turned as iwlora turns it.
    assert ("ImageOps.exif_transpose(Image.open(" in code) == of_images
