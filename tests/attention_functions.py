"""Tests of prefixes on T5, whose attention calls no exchangeable function in old transformers."""

from __future__ import annotations

import inspect

import pytest
from transformers.models.t5.modeling_t5 import T5Attention

CALLED = "ALL_ATTENTION_FUNCTIONS"

t5_calls_attention_functions = pytest.mark.skipif(
    CALLED not in inspect.unwrap(T5Attention.forward).__code__.co_names,
    reason="T5 calls no attention functions in this version of transformers",
)
