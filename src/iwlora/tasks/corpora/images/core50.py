"""CORe50 (Lomonaco and Maltoni 2017, arXiv:1705.03550): 50 objects in 11 sessions, by its folders.

The official folders are ``s1/o1/`` to ``s11/o50/``: a session, and an object in it. Objects that
are numbered one behind the other are five of one category. The sessions 3, 7 and 10 are for the
test, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from iwlora.errors import BadRow, IwloraError
from iwlora.inputs.images import ENDINGS
from iwlora.inputs.places import check_folder, entries, user_path
from iwlora.tasks.corpora.corpus import Corpus, Row, parse_records
from iwlora.tasks.corpora.images.rows import image_rows
from iwlora.tasks.kinds.images.kinds import ImageClassification
from iwlora.tasks.kinds.images.rows import stored_image
from iwlora.tasks.splits import left_out_notes
from iwlora.tasks.task import Task

SESSIONS = {"train": (1, 2, 4, 5, 6, 8, 9, 11), "test": (3, 7, 10)}
_OBJECTS = 50
_OF_CATEGORY = 5
CATEGORIES = (
    *("plug adapter", "mobile phone", "scissors", "light bulb", "can"),
    *("glasses", "ball", "marker", "cup", "remote control"),
)


@dataclass(frozen=True, kw_only=True)
class Core50Corpus(Corpus):
    """The task to recognize the objects, or their categories."""

    objects_of_class: int

    @property
    def layout(self) -> str:
        """The folder of the first object."""
        return "s1/o1/ and the other folders of core50_128x128"

    def load(self, name: str, data_dir: str | None) -> Task:
        """The task, from the folder ``data_dir``.

        Raises:
            BadRowsError: No image of a split can be used.
            IwloraError: A folder is missing.
        """
        if data_dir is None:
            raise IwloraError(f"{name}: give task.data_dir=FOLDER, a folder that has {self.layout}")
        folder, bad = user_path(data_dir), list[BadRow]()
        check_folder(folder)
        splits = {}
        for split in self.splits:
            rows = parse_records(
                (split, folder),
                "file",
                self._files(folder, split),
                lambda row: (*stored_image(str(folder), row[0]), row[1]),
                bad,
            )
            splits[split] = image_rows(self.text[0], rows)
        schema = (name, self.text, self.labels, self.metrics)
        notes = left_out_notes(bad, splits)
        return Task(*schema, kind=self.kind, splits=splits, notes=notes, bad_rows=tuple(bad))

    def _files(self, folder: Path, split: str) -> Iterator[tuple[str, Row]]:
        """(name in the folder, (the same, class id)) of each image."""
        for session in SESSIONS[split]:
            for number in range(_OBJECTS):
                place = folder / f"s{session}" / f"o{number + 1}"
                if not place.is_dir():
                    raise IwloraError(f"{place} is missing; task.data_dir must have {self.layout}")
                for file in entries(place):
                    if file.name.lower().endswith(ENDINGS):
                        name = file.relative_to(folder).as_posix()
                        yield name, (name, number // self.objects_of_class)


def _corpus(summary: str, labels: tuple[str, ...], objects_of_class: int) -> Core50Corpus:
    return Core50Corpus(
        summary=summary,
        text=("image",),
        labels=labels,
        kind=ImageClassification(),
        metrics=ImageClassification.default_metrics,
        splits=("train", "test"),
        hub_id="",
        objects_of_class=objects_of_class,
    )


TASKS: Mapping[str, Core50Corpus] = {
    "core50/objects": _corpus(
        "which of 50 objects is it? 120,000 images of 8 sessions",
        tuple(f"{CATEGORIES[k // _OF_CATEGORY]} {k % _OF_CATEGORY + 1}" for k in range(_OBJECTS)),
        1,
    ),
    "core50/categories": _corpus(
        "of which of 10 categories is the object? 120,000 images of 8 sessions",
        CATEGORIES,
        _OF_CATEGORY,
    ),
}
