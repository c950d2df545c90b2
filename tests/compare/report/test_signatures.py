"""Reports say how scores were computed, and which runs computed them in another way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iwlora.compare.report.caveats import unequal_signatures
from iwlora.results.comparison import load
from report_pages import all_texts, content_of

pytestmark = pytest.mark.quick

CHINESE, DEFAULT = "nrefs:1|tok:zh|version:2.6.0", "nrefs:1|tok:13a|version:2.6.0"


def sign(folder: Path, signature: str, runs: str = "*/seed-*") -> None:
    for path in folder.glob(f"{runs}/result.json"):
        stored = json.loads(path.read_text()) | {"signatures": {"bleu": signature}}
        path.write_text(json.dumps(stored))


def test_the_signature_is_below_the_scores(folder: Path) -> None:
    sign(folder, CHINESE)
    assert unequal_signatures(load(folder)) == []
    for name, text in all_texts(content_of(folder)).items():
        assert "Computed as: bleu (" in text, name
        assert "tok:zh" in text, name


def test_runs_that_were_scored_in_another_way_are_named(folder: Path) -> None:
    sign(folder, CHINESE, "lora/seed-*")
    (caveat,) = unequal_signatures(load(folder))
    assert f"{CHINESE}: lora, seed 0; lora, seed 1; lora, seed 2" in caveat
    assert "not stored, by an older version: full, seed 0" in caveat
    sign(folder, DEFAULT)
    assert unequal_signatures(load(folder)) == []
