"""Patterns, templates and compressed data of others are stopped when they take too much."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from commands import call, run_settings, write_recipe
from iwlora.errors import IwloraError
from iwlora.inputs import limits
from iwlora.inputs.limits import (
    LimitExceeded,
    compile_pattern,
    full_matches,
    memory_limit,
    time_limit,
)
from iwlora.tasks.kinds.cells import unread_numbers_note
from iwlora.tasks.kinds.generation.chat_template import ChatTemplate

pytestmark = pytest.mark.quick

CATASTROPHES = ["(a+)+$", "(a|a)*b", "(a|aa)+$", "([a-z]+)*1", "(.*.*.*.*.*)x"]
TEXT = "a" * 60 + "!"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PATTERN_SECONDS", 0.1)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("pattern", CATASTROPHES)
def test_a_catastrophic_pattern_is_stopped(pattern: str) -> None:
    begin = time.process_time()
    with pytest.raises(LimitExceeded, match=r"matching the regular expression .* takes more than"):
        full_matches(pattern, [TEXT * 4])
    assert time.process_time() - begin < 1


@pytest.mark.parametrize("pattern", [".*", "a{61}|a+!", r"\w+", "b", ""])
def test_other_patterns_match_as_ever(pattern: str) -> None:
    texts = [TEXT, "", "a", "b", "ab"]
    assert full_matches(pattern, texts) == {t for t in texts if re.fullmatch(pattern, t)}


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "a{99999999999999}", "(" * 5000 + ")" * 5000])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(IwloraError, match="is no regular expression"):
        compile_pattern(pattern)


@pytest.mark.usefixtures("short")
def test_a_recipe_with_such_a_pattern(
    tiny_bert: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**run_settings(tiny_bert, reviews), "targets": "(([a-z.0-9_]+)+)+!"}
    recipe = write_recipe(tmp_path / "r.yaml", settings)
    outcome = call(capsys, "train", recipe, "--out", tmp_path / "out")
    assert outcome.code == 2, outcome
    assert "takes more than 0.1 seconds" in outcome.err
    assert "Traceback" not in outcome.err


# --- limits themselves ---


def test_what_is_quick_is_not_stopped_and_leaves_nothing_behind() -> None:
    before = signal.getsignal(signal.SIGPROF)
    for _ in range(50):
        with time_limit("this", 5):
            pass
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
    assert signal.getsignal(signal.SIGPROF) == before


def test_an_error_in_the_block_is_its_own() -> None:
    with pytest.raises(KeyError), time_limit("this", 5), memory_limit("this", 2**30):
        raise KeyError
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)


def test_what_swallows_errors_is_stopped_all_the_same() -> None:
    def stubborn() -> None:
        while True:
            try:
                while True:
                    pass
            except Exception:
                continue

    told = r"this takes more than 0\.05 seconds"
    with pytest.raises(LimitExceeded, match=told), time_limit("this", 0.05):
        stubborn()


def test_another_thread_has_no_limit() -> None:
    def work() -> None:
        with time_limit("this", 0.01):
            matched.extend(full_matches("(a+)+$", ["a" * 18 + "!", "aa"]))

    matched: list[str] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert matched == ["aa"]


def test_memory_is_limited_and_given_back() -> None:
    told = r"this takes more than 0\.125 GiB of memory"
    with pytest.raises(LimitExceeded, match=told), memory_limit("this", 2**27):
        bytearray(2**28)
    assert len(bytearray(2**28)) == 2**28
    with memory_limit("this", 2**27):
        assert len(bytearray(2**24)) == 2**24


def test_time_in_the_kernel_counts() -> None:
    in_the_kernel = iter(lambda: os.urandom(2**16), b"")
    begin = time.process_time()
    with pytest.raises(LimitExceeded, match="this takes more than"), time_limit("this", 0.05):
        deque(in_the_kernel, maxlen=0)
    assert time.process_time() - begin < 1


# --- templates ---

LOOP = "{% for i in range(99999) %}" * 3 + "x" + "{% endfor %}" * 3
DOUBLING = (
    "{% set n = namespace(s='xxxxxxxxxxxxxxxx') %}"
    "{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}"
)


@pytest.fixture
def tokenizer(tiny_bert: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("template", "told"),
    [
        (LOOP, "seconds"),
        (LOOP.replace("x", "", 1), "seconds"),
        (DOUBLING, "(seconds|memory)"),
        ("{{ 'x' * 10000000000 }}", "GiB of memory"),
    ],
    ids=["output without end", "loop without end", "doubling", "one large text"],
)
def test_a_template_without_end_is_stopped(tokenizer: Any, template: str, told: str) -> None:
    tokenizer.chat_template = template
    begin = time.process_time()
    with pytest.raises(LimitExceeded, match=f"chat template takes more than .* {told}"):
        ChatTemplate(tokenizer).render([{"role": "user", "content": "Hello"}])
    assert time.process_time() - begin < 2


# --- our own patterns ---


def test_our_patterns_take_time_in_proportion() -> None:
    long = "1" * 200_000 + "x"
    with time_limit("reading labels", 2):
        assert unread_numbers_note([long]) is None
