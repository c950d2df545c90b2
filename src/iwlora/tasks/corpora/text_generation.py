"""Summaries and translations: XSum, CNN/DailyMail, WMT16 English-Romanian.

The official files as they are unpacked, or the hub's copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.tasks.corpora import summarization, translation
from iwlora.tasks.corpora.hub import fetch
from iwlora.tasks.kinds.generation import Seq2Seq
from iwlora.tasks.task import Task, columns

if TYPE_CHECKING:
    import datasets

Pair = tuple[str, str]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TextTask:
    """One task: ``read(folder, split)`` gives the pairs of its official files."""

    summary: str
    hub_id: str
    config: str | None
    text: str
    target: str
    kind: Seq2Seq
    read: Callable[[Path, str], Iterator[Pair]]
    layout: str
    of_hub: Callable[[Mapping[str, Any]], Mapping[str, str]] = dict
    files: tuple[str, ...] = SPLITS

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of the kind."""
        return self.kind.metrics


TASKS: Mapping[str, TextTask] = {
    "xsum": TextTask(
        summary="one sentence that sums up a BBC article; 204,045 articles",
        hub_id="EdinburghNLP/xsum",
        config=None,
        text="document",
        target="summary",
        kind=Seq2Seq(beams=6, min_target=10, max_target=62, no_repeat_ngram=3),
        read=summarization.xsum,
        layout=f"{summarization.XSUM_SPLIT} and {summarization.XSUM_FOLDER}/",
    ),
    "cnn_dailymail": TextTask(
        summary="the highlights of a news article; 287,113 articles",
        hub_id="abisee/cnn_dailymail",
        config="3.0.0",
        text="article",
        target="highlights",
        kind=Seq2Seq(beams=4, length_penalty=2.0, min_target=55, max_target=142, no_repeat_ngram=3),
        read=summarization.cnn_dailymail,
        layout="cnn/stories/, dailymail/stories/ and all_train.txt",
    ),
    "wmt16/en-ro": TextTask(
        summary="translate from English to Romanian; 610,320 sentences",
        hub_id="wmt/wmt16",
        config="ro-en",
        text="en",
        target="ro",
        kind=Seq2Seq(beams=4, max_target=128, metric="bleu"),
        read=partial(translation.wmt16, source="en", target="ro"),
        layout="*.ro-en.en, *.ro-en.ro and newstest2016-enro-src.en.sgm",
        of_hub=lambda row: row["translation"],
    ),
}


def load(name: str, data_dir: str | None = None) -> Task:
    """The task ``name`` from the folder ``data_dir`` or, where it is None, from the hub.

    Scored on the test split. Raises ``IwloraError`` that names the file.
    """
    task = TASKS[name]
    names = (task.text,)
    if data_dir is None:
        hub = fetch(name, task.hub_id, task.config, task.layout)
        splits = {split: _of_hub(task, hub[split]) for split in SPLITS}
    else:
        folder = Path(data_dir).expanduser()
        splits = {}
        for split in SPLITS:
            pairs = list(task.read(folder, split))
            if not pairs:
                raise IwloraError(f"task.data_dir={data_dir} holds no rows of {split}")
            splits[split] = columns(names, pairs, task.kind)
    return Task(name, names, (), splits, task.metrics, kind=task.kind)


def _of_hub(task: TextTask, rows: Any) -> datasets.Dataset:
    pairs = (task.of_hub(row) for row in rows)
    return columns(
        (task.text,),
        [(pair[task.text].strip(), pair[task.target].strip()) for pair in pairs],
        task.kind,
    )
