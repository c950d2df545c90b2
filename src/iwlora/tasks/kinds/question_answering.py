"""Answers that are a span of a passage (SQuAD)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.tasks.kinds.answer_spans import best_span, windows
from iwlora.tasks.kinds.base import Answer, Kind, Outputs, Rows, finite, inputs_of, plain_text
from iwlora.tasks.tokenization import check_length

if TYPE_CHECKING:
    import datasets
    import pyarrow
    from torch import Tensor

    from iwlora.tasks.task import Task

Count = Annotated[int, Field(ge=1, strict=True)]


class QuestionAnswering(Kind):
    """Two logits a token, for start and end, learned by the mean of two cross-entropies.

    A passage that is too long is read in windows of ``train.max_length`` tokens, question
    included. A window that does not hold the answer points at its first token. The answer is the
    span with the largest start + end over all windows. With ``no_answer`` it is "" where the
    first token of a window beats every span by more than ``threshold``.
    """

    name: ClassVar[str] = "question-answering"
    summary: ClassVar[str] = "a span of a passage: question, passage, and its answers"
    columns: ClassVar[tuple[int, int]] = (2, 2)
    beyond: ClassVar[str] = "are beyond, read in further windows"

    doc_stride: Count = 128
    """Passage tokens that two windows in a row share; at most half of those in a window."""
    max_answer: Count = 30
    """Tokens of the longest answer."""
    max_question: Count = 64
    """Tokens of a question that are read."""
    n_best: Count = 20
    """Starts and ends of a window that are considered."""
    no_answer: Annotated[bool, Field(strict=True)] = False
    """Whether a question may have no answer, as in SQuAD 2.0."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] = 0.0

    @property
    def metrics(self) -> tuple[str, ...]:
        """SQuAD's scores."""
        return ("f1", "exact_match")

    def text(self, value: Any) -> str:
        """A text, blanks at its ends kept: answers are counted from its beginning."""
        plain = plain_text(value)
        return value if isinstance(value, str) else plain

    def label(self, value: Any) -> dict[str, list[Any]]:
        """The answers: one text, a list, or SQuAD's {text: [...], answer_start: [...]}."""
        if isinstance(value, Mapping):
            texts, starts = value.get("text", []), value.get("answer_start", [])
            if not (isinstance(texts, (list, tuple)) and isinstance(starts, (list, tuple))):
                raise ValueError("is no {text: [...], answer_start: [...]}")
            if not all(type(start) is int for start in starts):
                raise ValueError("has a start that is no whole number")
            if len(texts) != len(starts):
                raise ValueError(f"has {len(texts)} answers and {len(starts)} starts")
        else:
            texts = list(value) if isinstance(value, (list, tuple)) else [value]
            texts = [text for text in texts if text not in (None, "")]
            starts = [-1] * len(texts)
        if not texts and not self.no_answer:
            raise ValueError("has no answer; task.kind.no_answer=true allows that")
        return {"text": [self.text(text) for text in texts], "answer_start": list(starts)}

    def check(self, row: Sequence[Any]) -> None:
        """Every answer stands in the passage, at its start where that is given."""
        _, passage, label = row
        for number, (text, start) in enumerate(
            zip(label["text"], label["answer_start"], strict=True)
        ):
            at = passage.find(text) if start < 0 else start
            if at < 0 or not passage.startswith(text, at):
                raise ValueError(f"the answer {text!r} is not in the passage at {max(start, 0)}")
            label["answer_start"][number] = at

    def types(self) -> tuple[pyarrow.DataType, pyarrow.DataType, pyarrow.DataType]:
        """Text, answers, answers."""
        import pyarrow

        answers = pyarrow.struct(
            [
                ("text", pyarrow.list_(pyarrow.string())),
                ("answer_start", pyarrow.list_(pyarrow.int64())),
            ]
        )
        return pyarrow.string(), answers, answers

    def auto_class(self, config: Any) -> Any:
        """A model with a head for starts and ends."""
        from transformers import AutoModelForQuestionAnswering

        return AutoModelForQuestionAnswering

    def renamed(self, config: Any) -> dict[str, str] | None:
        """Decoders such as Llama are called ``model`` in their checkpoints, not below this head."""
        import transformers
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES as NAMES,
        )

        head = getattr(transformers, NAMES.get(config.model_type, ""), None)
        other = getattr(head, "base_model_prefix", "") == "transformer"
        return {r"^model\.": "transformer."} if other else None

    def encode(
        self,
        task: Task,
        rows: datasets.Dataset,
        tokenizer: Any,
        max_length: int,
        config: Any,
        training: bool,
    ) -> datasets.Dataset:
        """The windows: ``row`` is that of the question, ``starts`` and ``ends`` where each token
        of the passage stands in it, -1 for other tokens; ``labels`` are (start, end) tokens."""
        check_length(tokenizer, max_length, 2)
        if not tokenizer.is_fast:
            raise IwloraError(
                f"{type(tokenizer).__name__} does not tell where its tokens stand in a passage; "
                "take a model with a fast tokenizer"
            )
        question = min(self.max_question, max_length // 2)
        room = max_length - question - tokenizer.num_special_tokens_to_add(pair=True)
        stride = min(self.doc_stride, room // 2)
        return windows(rows, task.text, tokenizer, max_length, question, stride, training)

    def collator(self, tokenizer: Any, model: Any) -> Callable[[Rows], dict[str, Tensor]]:
        """Padded token ids, and the labels as they are."""
        from iwlora.tasks.padding import padding

        return padding(tokenizer)

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Cross-entropy of starts and of ends in nats, summed over both."""
        from torch.nn.functional import cross_entropy

        starts, ends = outputs.start_logits.float(), outputs.end_logits.float()
        return cross_entropy(starts, labels[:, 0], reduction="sum") + cross_entropy(
            ends, labels[:, 1], reduction="sum"
        )

    def outputs(
        self, model: Any, tokenizer: Any, batch: Mapping[str, Tensor], final: bool
    ) -> dict[str, Tensor]:
        """Start and end logits, and with labels the mean of the two losses of each window."""
        from torch.nn.functional import cross_entropy

        found = model(**inputs_of(batch))
        starts, ends = found.start_logits.float(), found.end_logits.float()
        outputs = {"start": starts, "end": ends}
        if "labels" in batch:
            labels = batch["labels"]
            both = (
                cross_entropy(logits, labels[:, k], reduction="none")
                for k, logits in enumerate((starts, ends))
            )
            outputs["loss"] = sum(both) / 2
        return outputs

    def answers(
        self,
        task: Task,
        rows: datasets.Dataset,
        encoded: datasets.Dataset,
        outputs: Outputs,
        tokenizer: Any,
        shares: bool = False,
    ) -> list[Answer]:
        """The best span of each question, its start + end, and how far no answer is above it."""
        starts, ends = finite(outputs["start"]), finite(outputs["end"])
        best: list[tuple[float, str]] = [(float("-inf"), "")] * len(rows)
        none = [float("inf")] * len(rows)
        passages = rows[task.text[1]][:]
        for window, (row, begins, stops) in enumerate(
            zip(encoded["row"], encoded["starts"], encoded["ends"], strict=True)
        ):
            none[row] = min(none[row], starts[window, 0] + ends[window, 0])
            score, begin, stop = best_span(
                starts[window], ends[window], begins, stops, self.n_best, self.max_answer
            )
            if score > best[row][0]:
                best[row] = (score, passages[row][begin:stop].strip())
        return [
            {
                "prediction": "" if self.no_answer and below - score > self.threshold else text,
                "score": float(score),
                "no_answer_score": float(below - score),
            }
            for (score, text), below in zip(best, none, strict=True)
        ]

    def score(
        self, task: Task, rows: datasets.Dataset, outputs: Outputs, answers: Sequence[Answer]
    ) -> dict[str, float]:
        """SQuAD's scores; ``loss`` is the mean over windows."""
        from iwlora.tasks.metrics.text import squad_scores

        golds = [label["text"] for label in rows["label"]]
        scores = squad_scores([answer["prediction"] for answer in answers], golds)
        return scores | {"loss": float(finite(outputs["loss"]).mean())}

    def gold(self, task: Task, label: Any) -> Any:
        """The accepted answers."""
        return label["text"]
