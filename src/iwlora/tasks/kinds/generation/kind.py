"""The base class of the kinds that generate text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.tasks.collators import IGNORE_INDEX, DecoderCollator, EncoderDecoderCollator
from iwlora.tasks.kinds.cells import parse_text
from iwlora.tasks.kinds.contract import Batch, Collator, Evaluation, Kind, Prediction, model_inputs
from iwlora.tasks.kinds.generation.decoding import generate
from iwlora.tasks.kinds.generation.encoding import DecoderEncoder, encode_for_encoder_decoder
from iwlora.tasks.kinds.generation.sequence_packing import check_isolation
from iwlora.tasks.schema import TaskSchema

if TYPE_CHECKING:
    import datasets
    import pyarrow
    from torch import Tensor

Count = Annotated[int, Field(ge=1, strict=True)]
Size = Annotated[int, Field(ge=0, strict=True)]


class Generation(Kind):
    """What sequence-to-sequence and instruction tasks share.

    An encoder-decoder reads the source and learns the target. A decoder reads the source as a
    prompt, then ``separator``, and learns the target and the end-of-text token. The loss is the
    mean cross-entropy of the target's tokens.
    """

    text_columns: ClassVar[tuple[int, int]] = (1, 1)

    prefix: str = ""
    """Text before every source, such as ``"summarize: "``."""
    separator: str = ""
    """Text between source and target, for decoders."""
    max_target: Count = 64
    """Tokens of a target that are learned, and of the longest generated text."""
    beams: Count = 1
    """Beams of the beam search; 1: greedy decoding."""
    length_penalty: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """Beam scores are divided by length to this power."""
    min_target: Size = 0
    """Tokens of the shortest generated text."""
    no_repeat_ngram: Size = 0
    """No sequence of this many tokens occurs twice in a generated text; 0: no such rule."""
    packing: Annotated[bool, Field(strict=True)] = False
    """Decoders: several rows in one of ``train.max_length`` tokens; no row attends to another."""
    metric: Literal["rouge", "bleu", "exact_match"] = "exact_match"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the generated texts, then the perplexity of the targets."""
        from iwlora.tasks.metrics.text import SCORE_NAMES

        return (*SCORE_NAMES[self.metric], "perplexity")

    def parse_label(self, value: Any) -> str:
        """The target."""
        return parse_text(value)

    def arrow_types(self) -> tuple[pyarrow.DataType, pyarrow.DataType, pyarrow.DataType]:
        """Three texts."""
        import pyarrow

        return pyarrow.string(), pyarrow.string(), pyarrow.string()

    def target_lengths(self, rows: datasets.Dataset, tokenizer: Any) -> tuple[Sequence[int], int]:
        """The tokens of each target, of which ``max_target`` are learned."""
        if "label" not in rows.column_names:
            return (), 0
        targets = tokenizer(rows["label"][:], add_special_tokens=False)["input_ids"]
        return [len(ids) for ids in targets], self.max_target

    def auto_class(self, config: Any) -> Any:
        """``AutoModelForSeq2SeqLM`` or ``AutoModelForCausalLM``; encoders are refused."""
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

        if config.is_encoder_decoder:
            return AutoModelForSeq2SeqLM
        if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            raise IwloraError(
                f"a model of type {config.model_type} is an encoder and cannot generate text; use "
                "an encoder-decoder such as T5 or BART, or a decoder such as Llama"
            )
        return AutoModelForCausalLM

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """Packing needs ``use_cache=False``: with a cache transformers ignores ``position_ids``."""
        if self.packing:
            config.use_cache = False

    def check_model(self, model: Any, rows: datasets.Dataset, collate: Collator) -> None:
        """Raise ``IwloraError`` where a packed row attends to another one."""
        if self.packing:
            check_isolation(model, rows, collate)

    def encode(
        self,
        schema: TaskSchema,
        rows: datasets.Dataset,
        tokenizer: Any,
        max_length: int,
        config: Any,
        training: bool,
    ) -> datasets.Dataset:
        """``input_ids`` and ``labels``; for decoders, rows that are scored have ``prompt_ids``."""
        if not config.is_encoder_decoder:
            encoder = DecoderEncoder(
                tokenizer, max_length, self.max_target, self.prefix, self.separator, self.packing
            )
            return encoder.encode(rows, schema.text, training)
        if self.packing:
            raise IwloraError(
                "task.kind.packing=true is for decoders, and this model is an encoder-decoder; "
                "remove it"
            )
        return encode_for_encoder_decoder(
            rows, schema.text, tokenizer, max_length, self.max_target, self.prefix
        )

    def collator(self, tokenizer: Any, model: Any) -> Collator:
        """Pads sources and targets on the right, and prompts on the left."""
        if model.config.is_encoder_decoder:
            return EncoderDecoderCollator(tokenizer, model)
        return DecoderCollator(tokenizer)

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, summed over target tokens."""
        return _token_losses(outputs.logits, labels).sum()

    def count(self, labels: Tensor) -> Tensor:
        """The number of target tokens."""
        return (labels != IGNORE_INDEX).sum()

    def outputs(self, model: Any, tokenizer: Any, batch: Batch, final: bool) -> dict[str, Tensor]:
        """With labels each row's loss and number of tokens; when ``final`` the generated ids."""
        outputs: dict[str, Tensor] = {}
        if "labels" in batch:
            losses = _token_losses(model(**model_inputs(batch)).logits, batch["labels"])
            count = (batch["labels"] != IGNORE_INDEX).sum(-1)
            outputs = {"loss": losses.sum(-1), "count": count}
        if final:
            outputs["generated"] = generate(
                model,
                tokenizer,
                batch,
                self.no_repeat_ngram,
                max_new_tokens=self.max_target,
                min_new_tokens=self.min_target or None,
                num_beams=self.beams,
                length_penalty=self.length_penalty,
                early_stopping=self.beams > 1,
            )
        return outputs

    def predictions(self, evaluation: Evaluation, probabilities: bool = False) -> list[Prediction]:
        """The generated texts without special tokens; none while training goes on."""
        if "generated" not in evaluation.outputs:
            return []
        generated = evaluation.outputs["generated"].tolist()
        ids = [[token for token in row if token >= 0] for row in generated]
        texts = evaluation.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [{"prediction": text.strip()} for text in texts]

    def score(self, evaluation: Evaluation, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The scores of the generated texts, if any; ``loss`` is the mean over target tokens."""
        from iwlora.tasks.metrics.text import TEXT_METRICS

        outputs = evaluation.outputs
        loss = float(outputs["loss"].astype(float).sum() / max(outputs["count"].sum(), 1))
        if not math.isfinite(loss):
            raise IwloraError("the loss is not finite: the model diverged; lower train.lr")
        scores = {"perplexity": math.exp(min(loss, 700.0)), "loss": loss}
        if not predictions:
            return scores
        texts = [row["prediction"] for row in predictions]
        return {**TEXT_METRICS[self.metric](texts, evaluation.labels), **scores}


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each token in float32, (rows, tokens); 0 where the label is ignored."""
    from torch.nn.functional import cross_entropy

    losses = cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return losses.view(labels.shape)
