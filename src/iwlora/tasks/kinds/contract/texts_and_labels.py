"""How a kind of task parses texts and labels, encodes labels, and shows them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from iwlora.tasks.kinds.cells import parse_text
from iwlora.tasks.schema import TaskSchema

if TYPE_CHECKING:
    import datasets


class TextsAndLabels(BaseModel):
    """The part of the contract on the cells of rows; the default is one text as a label."""

    text_columns: ClassVar[tuple[int, int]] = (1, 2)
    """The smallest and the largest number of text columns."""
    column_types: ClassVar[tuple[Any, Any, Any]] = (str, str, str)
    """The types of a text, of a parsed label and of an encoded label, for ``arrow_type``."""
    several_label_columns: ClassVar[bool] = False
    """Whether a task may have several label columns, one per class."""
    same_rows: ClassVar[tuple[str, ...]] = ()
    """Other kinds that can learn the rows of a named task of this kind."""
    one_class: ClassVar[bool] = False
    """Whether each row has exactly one class, so that classes can be weighted and balanced."""
    several_references: ClassVar[bool] = False
    """Whether a label may be a list of texts, each of which is a correct prediction."""
    learns_texts: ClassVar[bool] = False
    """Whether the texts themselves are what is learned, so that there is no label."""
    min_classes: ClassVar[int] = 0
    """The smallest number of classes."""

    @property
    def has_classes(self) -> bool:
        """Whether a label holds class names, which are encoded as class ids."""
        return bool(self.column_types[1] != self.column_types[2])

    def parse_text(self, value: Any) -> Any:
        """The text in a cell of the first text column.

        Raises:
            ValueError: The cell holds something else; the message completes "column X ...".
        """
        return parse_text(value)

    def parse_second_text(self, value: Any) -> Any:
        """The text in a cell of the second text column, as ``parse_text``."""
        return self.parse_text(value)

    def text_parsers(self, folder: Path) -> Sequence[Callable[[Any], Any]]:
        """What parses the cells of the text columns of a table, in the order of the columns.

        Files that cells name lie in the folder.
        For images it returns pairs: the digest, and what is in the column ``IMAGE``.
        """
        return self.parse_text, self.parse_second_text

    def shown_texts(self, rows: datasets.Dataset, column: str) -> Sequence[Any]:
        """A text column as the file of predictions shows it; of images the names."""
        texts: Sequence[Any] = rows[column]
        return texts

    def parse_label(self, value: Any) -> Any:
        """The label in a cell of the label column, with class names; raises as ``parse_text``."""
        return parse_text(value)

    def label_from_text(self, text: Any) -> Any:
        """The label of a file without a label column; ``ValueError`` where the kind needs one."""
        raise ValueError("needs a label column; give task.label=COLUMN")

    def complete_label(self, texts: Sequence[Any], label: Any) -> Any:
        """The label, completed by what the texts say; ``ValueError`` where the two disagree."""
        return label

    def class_names(self, label: Any) -> Sequence[str]:
        """The class names in a parsed label, where the task has classes."""
        return (label,) if isinstance(label, str) else label

    def encode_label(self, label: Any, ids: Mapping[str, int]) -> Any:
        """A parsed label with class ids in place of class names."""
        return ids[label] if isinstance(label, str) else [ids[name] for name in label]

    def strata(self, labels: Sequence[Any], most: int) -> Sequence[Sequence[int]]:
        """The classes of each row, which rows that are held out must represent.

        Args:
            labels: The encoded label of each row.
            most: The largest number of classes, for kinds that choose it.

        Returns:
            The class ids of each row, -1 for no class; 0 for all rows of a kind without classes.
        """
        if not self.has_classes:
            return [(0,)] * len(labels)
        return [(row,) if isinstance(row, int) else sorted(set(row)) or (-1,) for row in labels]

    def notation(self, value: Any) -> str:
        """How a label's cell is written, which must be the same in all rows of all files."""
        return ""

    def other_references(self, value: Any) -> list[str]:
        """The accepted texts in a label's cell besides the first, which ``parse_label`` returns.

        They are in the column ``OTHER_REFERENCES`` of the rows, if any row has one.
        """
        return []

    def target_lengths(self, rows: datasets.Dataset, tokenizer: Any) -> tuple[Sequence[int], int]:
        """(tokens of each target, how many of them are learned), where targets are texts."""
        return (), 0

    def readable_label(self, schema: TaskSchema, label: Any) -> Any:
        """A label as the file of predictions shows it: class names instead of ids."""
        if not self.has_classes:
            return label
        return schema.labels[label] if isinstance(label, int) else [schema.labels[k] for k in label]
