"""``iwlora methods``."""

from __future__ import annotations

import pytest

from commands import call
from iwlora.methods import METHODS


@pytest.mark.quick
def test_methods(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With three of the methods; tests/methods/test_architecture_support.py tries them all."""
    methods = {name: METHODS[name] for name in ("full", "lora", "prefix")}
    monkeypatch.setattr("iwlora.methods.METHODS", methods)
    listed = call(capsys, "methods")
    assert listed.code == 0
    for name, method in methods.items():
        line = next(line for line in listed.out.splitlines() if line.startswith(f"{name} "))
        assert method.summary in line
        for option, field in method.model_fields.items():
            assert f"{option}={field.default}" in listed.out
    tried = listed.out.partition("\n\n")[2].splitlines()
    assert tried[0].split()[:3] == ["bert", "roberta", "electra"]
    assert [line.split()[0] for line in tried[1 : len(methods) + 1]] == list(methods)
    assert any(line.startswith("deberta-v2: prefix adds keys and values") for line in tried)
