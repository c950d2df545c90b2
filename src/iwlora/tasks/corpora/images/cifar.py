"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the official binary files, or the hub's copy of them.

A record of the binary files is the class id, a byte (of CIFAR-100 after that of its coarse class),
and 32 × 32 pixels: all red values, all green ones, all blue ones, each row by row. The official
Python files are pickles, which can run any code when they are loaded; they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError
from iwlora.inputs.images import open_image
from iwlora.inputs.mapped_files import mapped_bytes
from iwlora.inputs.places import check_folder, user_path
from iwlora.tasks.corpora.corpus import Corpus
from iwlora.tasks.corpora.images.rows import ImageRow, image_rows, row_of_pixels
from iwlora.tasks.kinds.images.kinds import ImageClassification
from iwlora.tasks.task import Task

SIDE = 32
"""Width and height of an image, in pixels."""


@dataclass(frozen=True, kw_only=True)
class CifarCorpus(Corpus):
    """One of the two tasks, and its official files."""

    folder: str
    files: Mapping[str, tuple[str, ...]]
    python_folder: str
    pickles: tuple[str, ...]
    """Files of the Python version, in their own folder."""
    label_bytes: int
    """Bytes before the pixels; the last one is the class."""
    hub_label: str

    @property
    def layout(self) -> str:
        """The first binary file."""
        return f"{self.folder}/{self.files['train'][0]}, the binary version"

    def load(self, name: str, data_dir: str | None) -> Task:
        """The task, from the folder ``data_dir`` or, where it is None, from the hub.

        Raises:
            IwloraError: A file is missing or malformed, or the hub cannot be reached.
        """
        if data_dir is None:
            rows = {split: self._of_hub(data) for split, data in self._hub_splits(name).items()}
        else:
            folder = self._folder(user_path(data_dir))
            rows = {split: self._of_files(folder, split) for split in self.splits}
        splits = {split: image_rows(self.text[0], of_split) for split, of_split in rows.items()}
        return Task(name, self.text, self.labels, self.metrics, kind=self.kind, splits=splits)

    def _folder(self, data_dir: Path) -> Path:
        """Where the binary files are: in their own folder in ``data_dir``, or in it."""
        check_folder(data_dir)
        folder = data_dir / self.folder if (data_dir / self.folder).is_dir() else data_dir
        first = self.files["train"][0]
        if (folder / first).is_file():
            return folder
        for place in (data_dir, data_dir / self.python_folder):
            if all((place / file).is_file() for file in self.pickles):
                raise IwloraError(
                    f"{place} has the Python version, whose files are pickles: loading them can "
                    f"run any code that is in them. Take the binary version, which has {first}"
                )
        raise IwloraError(f"task.data_dir={data_dir} has neither {self.layout}, nor {first}")

    def _of_files(self, folder: Path, split: str) -> Iterator[ImageRow]:
        size = self.label_bytes + 3 * SIDE * SIDE
        for file in self.files[split]:
            content = mapped_bytes(folder / file)
            if not len(content) or len(content) % size:
                raise IwloraError(
                    f"{folder / file} is damaged: it has {len(content):,} bytes, which are not "
                    f"whole records of {size:,} bytes"
                )
            records = content.reshape(-1, size)
            for number, record in enumerate(records):
                label = int(record[self.label_bytes - 1])
                if label >= len(self.labels):
                    raise IwloraError(
                        f"{folder / file}, record {number + 1}: class {label}; accepted are 0 to "
                        f"{len(self.labels) - 1}"
                    )
                pixels = record[self.label_bytes :].reshape(3, SIDE, SIDE).transpose(1, 2, 0)
                name = f"{Path(file).stem}-{number + 1}"
                yield row_of_pixels(pixels.copy(), name, label)

    def _hub_splits(self, name: str) -> dict[str, Any]:
        hub = self._load_from_hub(name)
        splits = {split: hub[split] for split in self.splits}
        if self.hub_label != "label":
            splits = {n: data.rename_column(self.hub_label, "label") for n, data in splits.items()}
        for data in splits.values():
            self._check_class_order(name, data)
        return splits

    def _of_hub(self, data: Any) -> Iterator[ImageRow]:
        import datasets

        undecoded = data.cast_column("img", datasets.Image(decode=False))
        for number, row in enumerate(undecoded):
            facts = open_image(row["img"]["bytes"])[1]
            stored = facts.stored(f"{number + 1}", row["img"]["bytes"])
            yield facts.digest, stored, row["label"]


_FINE = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus "
    "butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch "
    "crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo "
    "keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse "
    "mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy "
    "porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television "
    "tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)

TASKS: Mapping[str, CifarCorpus] = {
    "cifar10": CifarCorpus(
        summary="which of 10 classes has the image? 50,000 images of 32 × 32 pixels",
        text=("image",),
        labels=tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
        kind=ImageClassification(),
        metrics=ImageClassification.default_metrics,
        splits=("train", "test"),
        hub_id="uoft-cs/cifar10",
        hub_label="label",
        folder="cifar-10-batches-bin",
        files={
            "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        python_folder="cifar-10-batches-py",
        pickles=("data_batch_1", "batches.meta"),
        label_bytes=1,
    ),
    "cifar100": CifarCorpus(
        summary="which of 100 classes has the image? 50,000 images of 32 × 32 pixels",
        text=("image",),
        labels=tuple(_FINE.split()),
        kind=ImageClassification(),
        metrics=ImageClassification.default_metrics,
        splits=("train", "test"),
        hub_id="uoft-cs/cifar100",
        hub_label="fine_label",
        folder="cifar-100-binary",
        files={"train": ("train.bin",), "test": ("test.bin",)},
        python_folder="cifar-100-python",
        pickles=("train", "meta"),
        label_bytes=2,
    ),
}
