"""Language modeling: every token of plain texts is learned from those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from iwlora.errors import IwloraError
from iwlora.tasks.collators import IGNORE_INDEX, DecoderCollator
from iwlora.tasks.kinds.contract import (
    Batch,
    Collator,
    Dataset,
    EncodingInput,
    Evaluation,
    Prediction,
    Tensor,
)
from iwlora.tasks.kinds.generation.sequence_packing import pack
from iwlora.tasks.kinds.generation.text_loss import (
    TextLoss,
    TextLosses,
    perplexity_columns,
    perplexity_of,
    stored_loss,
)
from iwlora.tasks.schema import TaskSchema
from iwlora.tasks.tokenization import (
    begin_of_text_tokens,
    check_max_length,
    encode_in_chunks,
    end_of_text_token,
)

_TEXTS_AT_A_TIME = 256  # they may be whole books
_SCORED_TOKENS = 4096  # at a time: the model computes a probability of each word for each of them


class LanguageModeling(TextLoss):
    """The next token of a text, scored by the perplexity of all tokens.

    A text has the begin-of-text token that the tokenizer puts before it, if any, and the
    end-of-text token. Its tokens are read in windows of ``train.max_length``, of which each begins
    with the last token of the one before: so every token is learned, or scored, once.
    """

    name: ClassVar[str] = "language-modeling"
    summary: ClassVar[str] = "the next token of plain texts, without labels"
    text_columns: ClassVar[tuple[int, int]] = (1, 1)
    learns_texts: ClassVar[bool] = True
    overflow: ClassVar[str] = "are read in further windows"
    floor_limits: ClassVar[tuple[int, int]] = (200, 200_000)
    default_metrics: ClassVar[tuple[str, ...]] = ("perplexity",)

    @property
    def scores_targets(self) -> bool:
        """Always: the texts are the targets."""
        return True

    def label_from_text(self, text: Any) -> str:
        """None: the text, which is learned, is not stored twice."""
        return ""

    def auto_class(self, config: Any) -> Any:
        """``AutoModelForCausalLM``; models that read the tokens after a token are refused."""
        from transformers import AutoModelForCausalLM
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

        take = "use a decoder such as GPT-2 or Llama"
        if config.is_encoder_decoder:
            raise IwloraError(
                f"a model of type {config.model_type} is an encoder-decoder, which writes a target "
                f"for a source and does not go on with a text; {take}, or give sources and targets "
                "(task.kind=seq2seq)"
            )
        if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            raise IwloraError(
                f"a model of type {config.model_type} is an encoder, which reads the whole text "
                f"and does not go on with it; {take}, or give labels (task.label=COLUMN) for "
                "another kind of task"
            )
        return AutoModelForCausalLM

    def encode(self, data: EncodingInput) -> Dataset:
        """The windows of all texts; ``row`` is the number of the text."""
        tokenizer, length, texts = data.processor, data.max_length, data.texts[0]
        if length < 2:
            raise IwloraError(f"train.max_length={length}: at least 2 tokens are needed")
        check_max_length(tokenizer, length, 1)
        begin, end = begin_of_text_tokens(tokenizer), end_of_text_token(tokenizer)
        ends = [] if end is None else [end]
        divided = 0

        def encode_chunk(start: int, stop: int) -> Mapping[str, Any]:
            nonlocal divided
            columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], "row": []}
            # Without ``verbose`` a tokenizer does not warn of texts that one window cannot hold.
            encoded = tokenizer(texts[start:stop], add_special_tokens=False, verbose=False)
            for row, ids in enumerate(encoded["input_ids"], start):
                whole = [*begin, *ids, *ends]
                parts = windows(len(whole), length)
                divided += len(parts) > 1
                for first, last in parts:
                    if data.training and last - first == 1:
                        continue  # nothing is before its only token
                    columns["input_ids"].append(whole[first:last])
                    columns["labels"].append([IGNORE_INDEX, *whole[first + 1 : last]])
                    columns["row"].append(row)
            return columns

        encoded = encode_in_chunks(len(data.rows), encode_chunk, _TEXTS_AT_A_TIME)
        if divided:
            use = "trained on" if data.training else "scored"
            data.notes.append(
                f"{divided:,} of {len(data.rows):,} texts that are {use} are longer than "
                f"train.max_length={length} and are read in windows of so many tokens: each token "
                "counts once, and what is before its window is not seen"
            )
        return pack(encoded, length) if self.packing and data.training else encoded

    def collator(self, tokenizer: Any, model: Any) -> Collator:
        """Pads windows on the right."""
        return DecoderCollator(tokenizer)

    def evaluation_rows(self, max_length: int) -> int:
        """Windows that are scored at a time: fewer long ones, for all of their tokens count."""
        return min(super().evaluation_rows(max_length), max(_SCORED_TOKENS // max_length, 1))

    def outputs(self, model: Any, tokenizer: Any, batch: Batch, final: bool) -> dict[str, Tensor]:
        """The loss and the number of tokens of each window."""
        return self.row_losses(self.forward(model, batch).logits, batch["labels"])

    def text_losses(self, evaluation: Evaluation) -> TextLosses:
        """The loss of each text, summed over its windows, and its tokens."""
        losses, counts = [0.0] * len(evaluation.rows), [0] * len(evaluation.rows)
        of_windows = super().text_losses(evaluation)
        for row, (loss, count) in zip(evaluation.encoded["row"][:], of_windows, strict=True):
            losses[row] += loss
            counts[row] += count
        return list(zip(losses, counts, strict=True))

    def predictions(self, evaluation: Evaluation, probabilities: bool = False) -> list[Prediction]:
        """The perplexity of each text, and its number of tokens."""
        return perplexity_columns(self.text_losses(evaluation))

    def score(self, evaluation: Evaluation, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The perplexity and the loss over the tokens of all texts."""
        return self.loss_scores(evaluation)

    def prediction_scores(
        self, schema: TaskSchema, references: Sequence[Any], predictions: TextLosses
    ) -> dict[str, float]:
        """The same from the losses of some texts."""
        return perplexity_of(predictions)

    def stored_pair(self, row: Mapping[str, str]) -> tuple[Any, Any]:
        """No reference, and (loss, tokens) of the text."""
        return "", stored_loss(row)


def windows(tokens: int, length: int) -> list[tuple[int, int]]:
    """(first, stop) of the windows of a text, each of which begins with the last token before it.

    The first token of a window is read and not predicted, so each token of a text but the first is
    predicted in one window.

    Args:
        tokens: Of the text, at least 1.
        length: The most tokens of a window, at least 2.

    Example:
        >>> windows(6, 3), windows(3, 3)
        ([(0, 3), (2, 5), (4, 6)], [(0, 3)])
    """
    starts = range(0, max(tokens - 1, 1), length - 1)
    return [(start, min(start + length, tokens)) for start in starts]
