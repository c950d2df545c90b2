"""The forms in which events are printed."""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone

import pytest

from iwlora.cli.terminal.event_log import event_printer, few_lines, print_json
from iwlora.results.events import Event, ignore

pytestmark = pytest.mark.quick


def test_a_json_object_for_each_event(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(Event("step", "step 1: loss nan", step=1, loss=float("nan"), metrics={"f1": 0.5}))
    (line,) = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    at = datetime.fromisoformat(record.pop("time"))
    assert abs((datetime.now(timezone.utc) - at).total_seconds()) < 60
    fields = {"step": 1, "loss": None, "metrics": {"f1": 0.5}}
    assert record == {"event": "step", **fields, "text": "step 1: loss nan"}


def test_lines_on_steps_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    report = few_lines(lambda: now)
    for second in range(100):
        now = float(second)
        report(Event("step", f"step {second}"))
    report(Event("scored", "epoch 1"))
    assert capsys.readouterr().out.split("\n") == ["step 30", "step 60", "step 90", "epoch 1", ""]


def test_the_options_choose() -> None:
    def lines(event: Event) -> None:
        raise AssertionError

    def chosen(quiet: bool, log_format: str) -> object:
        return event_printer(argparse.Namespace(quiet=quiet, log_format=log_format), lines)

    assert chosen(False, "text") is lines
    assert chosen(True, "text") is ignore
    assert chosen(False, "json") is print_json
