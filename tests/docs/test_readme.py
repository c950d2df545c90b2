"""The README's Python runs as it stands, one block after the other, and its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.usefixtures("needs_minilm")
@pytest.mark.parametrize("number", range(2))
def test_python_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import PeftModel

    from iwlora.training.model.backbone import load_backbone

    found = blocks("python")
    assert len(found) == 2
    monkeypatch.chdir(tmp_path)
    exec(compile(found[number], f"README.md, block {number}", "exec"), {})
    adapter = tmp_path / ("adapter", "my-adapter")[number]
    backbone, _ = load_backbone("builtin/minilm", ["negative", "positive"])
    assert PeftModel.from_pretrained(backbone, adapter).peft_config["default"].r == 8


def test_commands_exist_and_name_files_that_do() -> None:
    from iwlora.cli import parse

    joined = "\n".join(blocks("sh")).replace("\\\n", " ")
    commands = [shlex.split(line, comments=True) for line in joined.splitlines()]
    ours = [words[1:] for words in commands if words and words[0] == "iwlora"]
    assert len(ours) >= 8
    for words in ours:
        parse(words)
        for word in words:
            if word.startswith("recipes/"):
                assert (README.parent / word).is_file(), word
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", joined, re.MULTILINE):
        assert f"\n{target}:" in makefile
