"""Extractive question answering: the answer is a span of a passage (SQuAD)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from iwlora.inputs.limits import Count, Number
from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.floors.floor import Floor, constant_floor
from iwlora.tasks.kinds.answer_spans import best_span, encode_windows
from iwlora.tasks.kinds.cells import parse_text
from iwlora.tasks.kinds.contract import Batch, Dataset, EncodingInput, Evaluation, Kind, Prediction
from iwlora.tasks.metrics.logits import finite_logits
from iwlora.tasks.metrics.squad import normalization_for, squad_scores
from iwlora.tasks.schema import TaskSchema
from iwlora.tasks.tokenization import check_fast, check_max_length

if TYPE_CHECKING:
    from torch import Tensor

_ANSWERS = {"text": list[str], "answer_start": list[int]}


class QuestionAnswering(Kind):
    """Two logits per token, for start and end, learned by the mean of two cross-entropies.

    A long passage is read in windows of ``train.max_length`` tokens, the question included. In a
    window without the answer the target is the first token. The prediction is the span with the
    largest start + end logit over all windows. With ``no_answer`` it is "" where start + end of
    the first token exceed those of the best span by more than ``threshold``.
    """

    name: ClassVar[str] = "question-answering"
    summary: ClassVar[str] = "a span of a passage: question, passage, and its answers"
    text_columns: ClassVar[tuple[int, int]] = (2, 2)
    column_types: ClassVar[tuple[Any, Any, Any]] = (str, _ANSWERS, _ANSWERS)
    overflow: ClassVar[str] = "are read in additional windows"

    doc_stride: Count = 128
    """Passage tokens that two neighboring windows share; at most half of those in a window."""
    max_answer: Count = 30
    """Tokens of the longest answer."""
    max_question: Count = 64
    """Tokens after which a question is cut off."""
    n_best: Count = 20
    """Starts and ends of a window that are considered."""
    no_answer: Annotated[bool, Field(strict=True)] = False
    """Whether a question may have no answer, as in SQuAD 2.0."""
    threshold: Number = 0.0
    """With ``no_answer``: by how much the scores of the first token must exceed those of the best
    span, so that there is no answer."""

    floor_limits: ClassVar[tuple[int, int]] = (4000, 5_000_000)
    not_averaged: ClassVar[str] = (
        "it compares the scores of spans between the windows of a passage, and a mean of "
        "probabilities in one window says nothing of another"
    )
    default_metrics: ClassVar[tuple[str, ...]] = ("f1", "exact_match")
    """SQuAD's scores."""

    def parse_text(self, value: Any) -> str:
        """A text with the spaces at its ends: answers are located by their character position."""
        stripped = parse_text(value)
        return value if isinstance(value, str) else stripped

    def parse_label(self, value: Any) -> dict[str, list[Any]]:
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
        return {"text": [self.parse_text(text) for text in texts], "answer_start": list(starts)}

    def complete_label(self, texts: Sequence[Any], label: Any) -> dict[str, list[Any]]:
        """The answers with the start of each: where it is not given, its first occurrence."""
        _, passage = texts
        starts = []
        for answer, start in zip(label["text"], label["answer_start"], strict=True):
            position = passage.find(answer) if start < 0 else start
            if position < 0 or not passage.startswith(answer, position):
                raise ValueError(f"the answer {answer!r} is not in the passage at {max(start, 0)}")
            starts.append(position)
        return {"text": list(label["text"]), "answer_start": starts}

    auto_class_name: ClassVar[str] = "AutoModelForQuestionAnswering"

    def checkpoint_key_mapping(self, config: Any) -> dict[str, str] | None:
        """Checkpoints of decoders such as Llama store ``model.``; this head expects
        ``transformer.``."""
        import transformers
        from transformers.models.auto import modeling_auto

        names = modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES
        head = getattr(transformers, names.get(config.model_type, ""), None)
        differs = getattr(head, "base_model_prefix", "") == "transformer"
        return {r"^model\.": "transformer."} if differs else None

    def encode(self, data: EncodingInput) -> Dataset:
        """The windows of all passages.

        ``row`` is the index of the question. ``starts`` and ``ends`` are the character positions
        of each passage token, -1 for other tokens. ``labels`` are (start token, end token).
        """
        tokenizer, max_length = data.processor, data.max_length
        check_max_length(tokenizer, max_length, 2)
        check_fast(tokenizer)
        question = min(self.max_question, max_length // 2)
        passage = max_length - question - tokenizer.num_special_tokens_to_add(pair=True)
        stride = min(self.doc_stride, passage // 2)
        return encode_windows(data, question, stride)

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Cross-entropy of starts and of ends in nats, summed over both."""
        return _losses(outputs, labels).sum()

    def outputs(self, model: Any, tokenizer: Any, batch: Batch, final: bool) -> dict[str, Tensor]:
        """Start and end logits, and with labels the mean of the two losses of each window."""
        output = self.forward(model, batch)
        outputs = {"start": output.start_logits.float(), "end": output.end_logits.float()}
        if "labels" in batch:
            outputs["loss"] = _losses(output, batch["labels"]).mean(-1)
        return outputs

    def predictions(self, evaluation: Evaluation, probabilities: bool = False) -> list[Prediction]:
        """The best span of each question, its start + end logit, and by how much the score of
        "no answer" exceeds it."""
        rows, encoded = evaluation.rows, evaluation.encoded
        starts, ends = (finite_logits(evaluation.outputs[name]) for name in ("start", "end"))
        best: list[tuple[float, str]] = [(float("-inf"), "")] * len(rows)
        no_answer = [float("inf")] * len(rows)
        passages = rows[evaluation.schema.text[1]][:]
        columns = (encoded[name] for name in ("row", "starts", "ends"))
        for window, (row, firsts, lasts) in enumerate(zip(*columns, strict=True)):
            no_answer[row] = min(no_answer[row], starts[window, 0] + ends[window, 0])
            score, begin, stop = best_span(
                starts[window], ends[window], firsts, lasts, self.n_best, self.max_answer
            )
            if score > best[row][0]:
                best[row] = (score, passages[row][begin:stop].strip())
        return [
            {
                "prediction": "" if self.no_answer and empty - score > self.threshold else text,
                "score": float(score),
                "no_answer_score": float(empty - score),
            }
            for (score, text), empty in zip(best, no_answer, strict=True)
        ]

    def score(self, evaluation: Evaluation, predictions: Sequence[Prediction]) -> dict[str, float]:
        """SQuAD's scores; ``loss`` is the mean over windows."""
        references = [label["text"] for label in evaluation.labels]
        scores = squad_scores([row["prediction"] for row in predictions], references)
        return scores | {"loss": float(finite_logits(evaluation.outputs["loss"]).mean())}

    def floors(self, schema: TaskSchema, train: Dataset, scored: Dataset) -> list[Floor]:
        """The empty answer, which is right where there is none."""
        return [constant_floor("empty answer", "", len(scored))]

    def prediction_scores(
        self, schema: TaskSchema, references: Sequence[Sequence[str]], predictions: Sequence[str]
    ) -> dict[str, float]:
        """All but the loss."""
        return squad_scores(predictions, references)

    def stored_pair(self, row: Mapping[str, str]) -> tuple[Any, str]:
        """(the accepted answers, the answer)."""
        return from_json(row["label"]), row["prediction"]

    def signatures(self, rows: Dataset) -> dict[str, str]:
        """How answers are normalized before they are compared."""
        references = [label["text"] for label in rows["label"][:]]
        return {"f1": f"normalization:{normalization_for(references)}"}

    def readable_label(self, schema: TaskSchema, label: Any) -> Any:
        """The accepted answers."""
        return label["text"]


def _losses(outputs: Any, labels: Tensor) -> Tensor:
    """Cross-entropy of the start and of the end in each window, (windows, 2)."""
    import torch

    logits = torch.stack((outputs.start_logits, outputs.end_logits), dim=-1).float()
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")
