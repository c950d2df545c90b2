"""YAML as version 1.2 of its specification reads it."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import parse_yaml, to_yaml
from tricky_text import tricky


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1E3", 1000.0),
        ("2.0e-4", 2e-4),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5", -1.5),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("0", 0),
        ("-12", -12),
        ("+7", 7),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        # Text, whatever version 1.1 or a careless pattern would make of it:
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("y", "y"),
        ("falsehood", "falsehood"),
        ("true_label", "true_label"),
        ("nullable", "nullable"),
        ("0.5%", "0.5%"),
        ("1.33M", "1.33M"),
        ("2e-4x", "2e-4x"),
        ("3.1-model", "3.1-model"),
        ("5e", "5e"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("'2e-4'", "2e-4"),
        ("'no'", "no"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    parsed = parse_yaml(text, "test")
    assert parsed == value
    assert type(parsed) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(parse_yaml(".nan", "test"))


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "{a: 1, a: 1}", "x:\n  - {b: 1, c: 2, b: 3}", "1: a\n1: b"]
)
def test_a_key_given_twice(text: str) -> None:
    with pytest.raises(IwloraError, match=r"^f\.yaml is not valid YAML: given twice: [ab1]"):
        parse_yaml(text, "f.yaml")
    parse_yaml(text.replace("a", "z", 1).replace("b", "y", 1).replace("1:", "2:", 1), "f.yaml")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(plain | tricky | st.lists(tricky) | st.dictionaries(tricky, tricky))
def test_what_is_written_is_read_back(value: object) -> None:
    text = to_yaml(value)
    assert parse_yaml(text, "test") == value
    # Other programs read version 1.1: to them it must not say anything else either.
    assert yaml.safe_load(text) == value


@pytest.mark.parametrize(
    "value",
    [
        *("!!python/object/apply:os.system [x]", "!mine x", "!!timestamp 99999-99-99", "!!int x"),
        *("!!bool maybe", "!!binary ////", "!!float x", "!!set {a}", "!!omap [1, 2]", "!!int [1]"),
    ],
)
def test_a_tag_that_its_value_does_not_fit_is_refused(value: str) -> None:
    with pytest.raises(IwloraError, match=r"the tag .* is not accepted"):
        parse_yaml(f"model: {value}", "an example")


def test_a_tag_that_fits_is_read() -> None:
    text = "{a: !!int 3, b: !!str 3, c: !!seq [x], d: !!bool true}"
    assert parse_yaml(text, "an example") == {"a": 3, "b": "3", "c": ["x"], "d": True}
