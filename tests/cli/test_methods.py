"""``iwlora methods``."""

from __future__ import annotations

import pytest

from commands import call
from iwlora.methods import METHODS
from iwlora.methods.architecture_support import shipped_table

IN_YAML = [(None, "null"), (True, "true"), (False, "false")]


@pytest.mark.quick
def test_methods(capsys: pytest.CaptureFixture[str]) -> None:
    listed = call(capsys, "methods")
    assert listed.code == 0
    for name, method in METHODS.items():
        line = next(line for line in listed.out.splitlines() if line.startswith(f"{name} "))
        assert method.summary in line
        for option, field in method.model_fields.items():
            constants = [text for value, text in IN_YAML if field.default is value]
            assert f"{option}={[*constants, field.default][0]}" in listed.out
    *table, remark = listed.out.partition("\n\n")[2].splitlines()
    assert table == shipped_table().splitlines()
    assert "methods --try" in remark


def test_methods_of_other_packages_are_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = type("Other", (METHODS["bitfit"],), {"name": "other", "__module__": "elsewhere"})
    monkeypatch.setattr("iwlora.methods.METHODS", {"lora": METHODS["lora"], "other": other})
    listed = call(capsys, "methods").out
    tried = listed.partition("methods of other packages, tried now:\n")[2].splitlines()
    assert tried[0].split()[:3] == ["bert", "roberta", "electra"]
    assert tried[1].split() == ["other", "yes", "yes", "yes", "yes", "-", "yes", "yes", "-"]


def test_methods_are_tried_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = {name: METHODS[name] for name in ("full", "lora", "prefix")}
    monkeypatch.setattr("iwlora.methods.METHODS", methods)
    tried = call(capsys, "methods", "--try").out.splitlines()
    assert tried[0].split()[:3] == ["bert", "roberta", "electra"]
    assert [line.split()[0] for line in tried[1 : len(methods) + 1]] == list(methods)
    assert any(line.startswith("deberta-v2: prefix adds keys and values") for line in tried)
