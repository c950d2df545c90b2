"""A task: its schema, its kind and its splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from iwlora.errors import BadRow
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.contract import Dataset, EncodingInput, Kind
from iwlora.tasks.schema import TaskSchema

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


STUDY = "study"
"""The split of training rows that no run trains on, and that every run is scored on."""


@dataclass(frozen=True)
class Task(TaskSchema):
    """A schema, the kind of the task, and its data.

    Args:
        kind: How rows are encoded, learned and scored.
        splits: ``train`` and ``validation``, and where the task has them ``test`` (labeled),
            ``validation_mismatched`` (MNLI), ``selection`` (a part of train that chooses the
            checkpoint) and ``study`` (a part of train that is scored). Every split has the text
            columns and ``label``, with the types that
            ``kind.arrow_types()`` gives. Empty for the task of a finished run.
        notes: Remarks about the data that a user should read, such as the rows that were left out.
        label_columns: The columns of the user's file that hold the label; none where it is in the
            text.
        bad_rows: The rows that cannot be used, which ``splits`` do not have.

    Example:
        >>> from iwlora.tasks.splits import dataset_from_rows
        >>> split = dataset_from_rows(["sentence"], [("good", 1), ("bad", 0)])
        >>> task = Task("demo", ("sentence",), ("negative", "positive"), ("accuracy",),
        ...             splits={"train": split, "validation": split})
        >>> task.reported
        ('validation',)
    """

    kind: Kind = field(default_factory=Classification)
    splits: Mapping[str, Dataset] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    label_columns: tuple[str, ...] = ("label",)
    bad_rows: tuple[BadRow, ...] = ()

    @property
    def reported(self) -> tuple[str, ...]:
        """The splits that are scored: the labeled test split if there is one, else validation.

        MNLI has two of these, ``validation`` (matched) and ``validation_mismatched``. Study rows
        come first where there are any: the verdict of a comparison rests on the first split.
        """
        study = (STUDY,) if STUDY in self.splits else ()
        if "test" in self.splits:
            return (*study, "test")
        return (*study, *(name for name in self.splits if name.startswith("validation")))

    @property
    def monitored(self) -> str | None:
        """The split that is scored after each epoch. It is never a reported split."""
        candidates = ("selection", "validation")
        return next((s for s in candidates if s in self.splits and s not in self.reported), None)

    def ranked(self, tokenizer: PreTrainedTokenizerBase) -> Task:
        """The task with its primary metric first, where the scored rows decide which it is."""
        rows = self.splits[self.reported[0]]
        metrics, notes = self.kind.ranked(self.metrics, rows, tokenizer)
        return replace(self, metrics=metrics, notes=(*self.notes, *notes))

    def encode(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        config: Any = None,
        notes: list[str] | None = None,
    ) -> dict[str, Dataset]:
        """Tokenize every split for a model.

        Args:
            tokenizer: The tokenizer of the model.
            max_length: The longest encoded row, in tokens.
            config: The transformers configuration of the model; kinds with a head on the sequence
                do not need it.
            notes: Remarks about the encoded rows are added to it.

        Raises:
            IwloraError: The tokenizer or the model does not support ``max_length``.
        """
        remarks = [] if notes is None else notes
        return {
            name: self.kind.encode(
                EncodingInput(self, split, tokenizer, max_length, config, name == "train", remarks)
            )
            for name, split in self.splits.items()
        }
