"""The script that runs the whole conformance suite reports each failure."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

import conformance
from iwlora.methods.grouped.parts import STRATEGIES, combination_problems
from iwlora.methods.tiny_models import refusals
from iwlora.testing import Case, checks
from mixtures import MIXTURES, blocks_of


def refuse(case: Case) -> None:
    raise AssertionError(f"refused on {case.architecture}")


@pytest.mark.quick
def test_each_failed_check_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [("bert", checks.initial_output), ("bert", refuse), ("gpt2", checks.initial_output)]
    together: list[Any] = []
    monkeypatch.setattr(conformance, "cases", lambda *_: pairs)
    monkeypatch.setattr(conformance, "train_in_two_processes", together.extend)
    assert conformance.failures(["head"], tmp_path) == ["head on bert: refuse: refused on bert"]
    assert [case.architecture for case in together] == ["bert", "gpt2"]
    assert "head on gpt2: checked" in capsys.readouterr().out


def test_a_method_that_nothing_supports_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformance, "cases", lambda *_: [])
    monkeypatch.setattr(conformance, "train_in_two_processes", lambda _: None)
    assert conformance.failures(["head"], tmp_path) == ["head: no architecture supports it"]


def test_each_mixture_is_possible_on_bert_and_each_pair_of_parts_is_in_one() -> None:
    for name, mixture in MIXTURES.items():
        assert refusals(mixture, ["bert"], blocks_of(name)) == {"bert": None}
    sets = [{*names} for mixture in MIXTURES.values() for names in mixture.strategies or ()]
    for two in itertools.combinations(STRATEGIES, 2):
        assert any(two[0] in names and two[1] in names for names in sets) == (
            not [*combination_problems(two)]
        )
