"""Short texts that stand for endless ones: aliases of aliases, and brackets without an end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import Command
from iwlora.errors import IwloraError, short_repr
from iwlora.inputs.yaml_json import from_json, parse_yaml
from iwlora.results.file_digests import note_own

LAUGHS = "\n".join(
    ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LAUGHS, "unfold into more than 100,000 values"),
        ("a: &a [*a]", "unfold"),
        ("a: &a {b: *a}", "unfold"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "{b: " * 5000, "nested too deeply"),
        ("a: " + "9" * 5000, "digits"),
    ],
    ids=["laughs", "list in itself", "mapping in itself", "lists", "mappings", "number"],
)
def test_yaml_that_unfolds(tmp_path: Path, refused: Command, text: str, expected: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    for command in ("train", "compare"):
        outcome = refused(command, recipe, "--out", tmp_path / "out")
        assert expected in outcome.err
        assert len(outcome.err) < 1500
    assert not (tmp_path / "out").exists()


def test_aliases_that_are_few_are_read() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: *a", "it") == {"a": [1, 2], "b": [1, 2]}
    with pytest.raises(IwloraError, match="unfold"):
        parse_yaml(f"a: &a [{', '.join('1' * 400)}]\nb: &b [{', '.join(['*a'] * 400)}]", "it")


def test_json_that_is_too_deep() -> None:
    assert from_json('{"a": [1]}') == {"a": [1]}
    for text in ("[" * 10**5, '{"a":' * 10**5):
        with pytest.raises(ValueError, match="nested too deeply"):
            from_json(text)


@pytest.mark.parametrize("file", ["comparison.yaml", "sources.yaml", "result.json", "status.json"])
def test_a_folder_with_such_a_file(tmp_path: Path, refused: Command, file: str) -> None:
    (tmp_path / "status.json").write_text("{}")
    (tmp_path / file).write_text("[" * 10**5)
    assert file in refused("report", tmp_path).err


def test_sources_that_are_their_own(
    tmp_path: Path, refused: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, source in ((one, other), (other, one)):
        folder.mkdir()
        (folder / "sources.yaml").write_text(json.dumps({"sources": [str(source)]}))
        note_own(folder / "sources.yaml")
    assert "as a source of itself" in refused("report", one).err


def test_a_message_shows_a_part_of_a_large_value() -> None:
    assert short_repr([1, "a"]) == "[1, 'a']"
    assert len(short_repr({n: ["x" * 1000] * 1000 for n in range(1000)})) < 1000
    assert short_repr(10**5000) == "a huge number"
