"""The package of the study: what it declares exists and can be used by name."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import iwlora_study
from iwlora.methods import METHODS, Method
from study_methods import PROJECT, declared, load


def test_declared_methods_are_methods_of_that_name() -> None:
    files = {path.stem for path in Path(iwlora_study.__file__).parent.glob("[!_]*.py")}
    for name, value in declared().items():
        method = load(name)
        assert issubclass(method, Method)
        assert method.name == name
        assert METHODS.get(name) in (None, method)  # None where the package is not installed
        files.discard(value.split(":")[0].rpartition(".")[2])
    for stem in files:  # shared by candidates: no method is left undeclared
        module = importlib.import_module(f"iwlora_study.{stem}")
        own = [value for value in vars(module).values() if isinstance(value, type)]
        left = [
            m.name
            for m in own
            if issubclass(m, Method) and m.__module__ == module.__name__ and hasattr(m, "name")
        ]
        if left:
            pytest.fail(f"{stem}.py: {left} not in {PROJECT}")
