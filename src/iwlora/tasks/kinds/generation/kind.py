"""The base class of the kinds that generate text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, Literal

from pydantic import field_validator
from pydantic_core.core_schema import ValidationInfo
from typing_extensions import Self

from iwlora.errors import IwloraError
from iwlora.inputs.limits import Count, CountOrZero, Number
from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.collators import IGNORE_INDEX, DecoderCollator, EncoderDecoderCollator
from iwlora.tasks.floors.constant import most_frequent
from iwlora.tasks.floors.extracts import first_sentences, median_words
from iwlora.tasks.floors.floor import Floor, constant_floor
from iwlora.tasks.kinds.cells import parse_text
from iwlora.tasks.kinds.contract import (
    OTHER_REFERENCES,
    Batch,
    Collator,
    Dataset,
    Evaluation,
    Prediction,
    Tensor,
)
from iwlora.tasks.kinds.generation.encoding import SourceAndTarget
from iwlora.tasks.kinds.generation.text_loss import (
    perplexity_columns,
    perplexity_of,
    stored_loss,
)
from iwlora.tasks.metrics.text import SCORE_NAMES, TEXT_METRICS, TOKENIZERS, signatures
from iwlora.tasks.schema import TaskSchema
from iwlora.tasks.tokenization import end_of_text_token


class Generation(SourceAndTarget):
    """What sequence-to-sequence and instruction tasks share.

    The loss is the mean cross-entropy of the target's tokens.
    """

    text_columns: ClassVar[tuple[int, int]] = (1, 1)
    several_references: ClassVar[bool] = True
    floor_limits: ClassVar[tuple[int, int]] = (200, 200_000)

    beams: Count = 1
    """Beams of the beam search; 1: greedy decoding."""
    length_penalty: Number = 1.0
    """Beam scores are divided by length to this power."""
    min_target: CountOrZero = 0
    """Tokens of the shortest generated text."""
    no_repeat_ngram: CountOrZero = 0
    """No sequence of this many tokens occurs twice in a generated text, though it may repeat the
    prompt; 0: no such rule."""
    metric: Literal["rouge", "bleu", "exact_match", "perplexity"] = "rouge"
    """The primary metric. perplexity: that of the targets; no text is generated to be scored."""
    tokenizer: str = "auto"
    """What divides texts into tokens for ROUGE (rouge-score, unicode) or BLEU (sacreBLEU's 13a,
    intl, zh, ja-mecab, ko-mecab, char, none). auto: by the script of the references."""

    @field_validator("tokenizer")
    @classmethod
    def _fits_metric(cls, value: str, others: ValidationInfo) -> str:
        accepted = ("auto", *TOKENIZERS.get(str(others.data.get("metric")), ()))
        if value not in accepted:
            raise ValueError(
                f"with task.kind.metric={others.data.get('metric')} accepted: {', '.join(accepted)}"
            )
        return value

    @property
    def text_metric(self) -> str | None:
        """The metric of the generated texts; None if they are not scored."""
        return None if self.metric == "perplexity" else self.metric

    @property
    def scores_targets(self) -> bool:
        """Whether no text is generated to be scored."""
        return self.text_metric is None

    def scoring_targets(self) -> Self:
        """With the perplexity as metric."""
        return self.model_copy(update={"metric": "perplexity"})

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the generated texts, then the perplexity of the targets."""
        names = SCORE_NAMES[self.text_metric] if self.text_metric else ()
        return (*names, "perplexity")

    def parse_label(self, value: Any) -> str:
        """A text: of a list of texts the first, which is learned."""
        if not isinstance(value, (list, tuple)):
            return parse_text(value)
        if not value:
            raise ValueError("is empty")
        return parse_text(value[0])

    def other_references(self, value: Any) -> list[str]:
        """The texts in a list after the first."""
        return [parse_text(text) for text in value[1:]] if isinstance(value, (list, tuple)) else []

    def target_lengths(self, rows: Dataset, tokenizer: Any) -> tuple[Sequence[int], int]:
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

    @property
    def generated_tokens(self) -> int:
        """``max_target``, since no longer target is learned."""
        return self.max_target

    def collator(self, tokenizer: Any, model: Any) -> Collator:
        """Pads sources and targets on the right, and prompts on the left."""
        if model.config.is_encoder_decoder:
            return EncoderDecoderCollator(tokenizer, model)
        return DecoderCollator(tokenizer)

    def stop_tokens(self, tokenizer: Any, known: Any) -> list[int]:
        """The end of the text, and what ends the model's texts anyway."""
        ends = [end_of_text_token(tokenizer), *(known if isinstance(known, list) else [known])]
        return [token for token in dict.fromkeys(ends) if token is not None]

    def outputs(self, model: Any, tokenizer: Any, batch: Batch, final: bool) -> dict[str, Tensor]:
        """With labels each row's loss and number of tokens; when ``final`` the generated ids.

        Rows with labels get no text where generated texts are not scored.
        """
        outputs: dict[str, Tensor] = {}
        if "labels" in batch:
            outputs = self.row_losses(self.forward(model, batch).logits, batch["labels"])
        if final and (self.text_metric or "labels" not in batch):
            outputs["generated"] = self._generate(model, tokenizer, batch)
        return outputs

    def _generate(self, model: Any, tokenizer: Any, batch: Batch) -> Tensor:
        """Token ids of the generated texts, (rows, tokens), without their prompts.

        The decoding is greedy or a beam search, without sampling.
        """
        config = deepcopy(model.generation_config)
        config.update(
            max_length=None,
            max_new_tokens=self.max_target,
            min_length=0,
            min_new_tokens=self.min_target or None,
            num_beams=self.beams,
            length_penalty=self.length_penalty,
            early_stopping=self.beams > 1,
            no_repeat_ngram_size=0,
            use_cache=True,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=self.stop_tokens(tokenizer, config.eos_token_id),
        )
        prompt = batch.get("prompt_ids", batch["input_ids"])
        mask = batch["prompt_mask"] if "prompt_ids" in batch else batch["attention_mask"]
        unwrapped = getattr(model, "module", model)  # DistributedDataParallel wraps the model
        prompt_length = 0 if unwrapped.config.is_encoder_decoder else prompt.shape[1]
        generated: Tensor = unwrapped.generate(
            input_ids=prompt,
            attention_mask=mask,
            generation_config=config,
            logits_processor=_no_repeat_ngram(self.no_repeat_ngram, prompt_length),
        )
        return generated[:, prompt_length:]

    def predictions(self, evaluation: Evaluation, probabilities: bool = False) -> list[Prediction]:
        """The generated texts without special tokens; none while training goes on.

        For rows with labels also the perplexity of each target and its number of tokens, which
        are all there is where no texts are scored.
        """
        outputs = evaluation.outputs
        of_targets: list[Prediction] = [{} for _ in range(len(evaluation.rows))]
        if "loss" in outputs:
            of_targets = perplexity_columns(self.text_losses(evaluation))
        if self.text_metric is None and "loss" in outputs:
            return of_targets
        if "generated" not in outputs:
            return []
        generated = evaluation.outputs["generated"].tolist()
        ids = [[token for token in row if token >= 0] for row in generated]
        texts = zip(self._texts(evaluation, ids), of_targets, strict=True)
        return [{"prediction": text, **of_target} for text, of_target in texts]

    def _texts(self, evaluation: Evaluation, rows: Sequence[list[int]]) -> list[str]:
        """Token ids as texts, without special tokens; of replies in chats their content.

        The content of a reply lies between what the chat template opens and ends every reply with.
        """
        tokenizer, encoded = evaluation.processor, evaluation.encoded
        chats = self.chat_encoder(tokenizer)
        if chats and "is_chat" in encoded.column_names:
            pairs = zip(rows, encoded["is_chat"][:], strict=True)
            rows = [chats.template.content(ids) if is_chat else ids for ids, is_chat in pairs]
        return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]

    def score(self, evaluation: Evaluation, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The scores of the generated texts, if any; ``loss`` is the mean over target tokens."""
        scores = self.loss_scores(evaluation)
        if not predictions or self.text_metric is None:
            return scores
        texts = [row["prediction"] for row in predictions]
        references = _with_others(self.references(evaluation), evaluation.rows)
        return {**TEXT_METRICS[self.text_metric](texts, references, self._tokenizer), **scores}

    def floors(self, schema: TaskSchema, train: Dataset, scored: Dataset) -> list[Floor]:
        """The most frequent answer for exact match, the empty one for other scores of texts."""
        if self.text_metric is None or schema.metrics[0] == "perplexity":
            return []
        if self.text_metric == "exact_match":
            most = most_frequent(train["label"][:])
            return [constant_floor("most frequent answer", most, len(scored))]
        return [constant_floor("empty answer", "", len(scored))]

    def prediction_scores(
        self, schema: TaskSchema, references: Sequence[Any], predictions: Sequence[Any]
    ) -> dict[str, float]:
        """The scores of generated texts that the schema lists; without texts the perplexity."""
        if self.text_metric is None:
            return perplexity_of(predictions)
        names = [name for name in SCORE_NAMES[self.text_metric] if name in schema.metrics]
        return TEXT_METRICS[self.text_metric](predictions, references, self._tokenizer, names)

    def rescore(self, schema: TaskSchema, rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
        """The scores of the texts, and the perplexity, which older versions did not store."""
        scores = super().rescore(schema, rows)
        if self.text_metric and "perplexity" in rows[0]:
            scores |= perplexity_of([stored_loss(row) for row in rows])
        return scores

    def stored_pair(self, row: Mapping[str, str]) -> tuple[Any, Any]:
        """(the accepted texts, the text); where no text is scored the target's (loss, tokens)."""
        if self.text_metric is None:
            return "", stored_loss(row)
        return [row["label"], *from_json(row.get(OTHER_REFERENCES, "[]"))], row["prediction"]

    def signatures(self, rows: Dataset) -> dict[str, str]:
        """Those of sacreBLEU, and the like for ROUGE."""
        if self.text_metric is None:
            return {}
        return signatures(self.text_metric, _with_others(rows["label"][:], rows), self._tokenizer)

    @property
    def _tokenizer(self) -> str | None:
        return None if self.tokenizer == "auto" else self.tokenizer

    def references(self, evaluation: Evaluation) -> list[str]:
        """The labels; of chats the replies as the template has them, with their reasoning and tool
        calls."""
        labels, encoded = list(evaluation.labels), evaluation.encoded
        if "is_chat" not in encoded.column_names or not any(encoded["is_chat"][:]):
            return labels
        ids = [[token for token in row if token != IGNORE_INDEX] for row in encoded["labels"][:]]
        replies = zip(self._texts(evaluation, ids), labels, encoded["is_chat"][:], strict=True)
        return [reply if is_chat else label for reply, label, is_chat in replies]


def _with_others(labels: Sequence[str], rows: Dataset) -> list[list[str]]:
    """All accepted texts of each row, of which the label is the first."""
    if OTHER_REFERENCES not in rows.column_names:
        return [[label] for label in labels]
    pairs = zip(labels, rows[OTHER_REFERENCES][:], strict=True)
    return [[label, *others] for label, others in pairs]


class Seq2Seq(Generation):
    """A text from a text, scored by ROUGE unless ``metric`` says otherwise."""

    name: ClassVar[str] = "seq2seq"
    summary: ClassVar[str] = "a text from a text: summaries, translations"

    separator: str = "\n"

    def floors(self, schema: TaskSchema, train: Dataset, scored: Dataset) -> list[Floor]:
        """As for all generation, and what copies the source: its first sentences, and all of it."""
        floors = super().floors(schema, train, scored)
        if not floors:
            return []
        sources, words = scored[schema.text[0]][:], median_words(train["label"][:])
        first = [{"prediction": first_sentences(source, words)} for source in sources]
        whole = [{"prediction": source} for source in sources]
        extracts = [Floor("copy of the source", whole)]
        if first != whole:
            extracts.insert(0, Floor("first sentences of the source", first))
        return [*floors, *extracts]


def _no_repeat_ngram(size: int, prompt_length: int) -> list[Any]:
    """transformers' rule against repeated n-grams, applied to what follows the prompt."""
    from transformers import LogitsProcessorList, NoRepeatNGramLogitsProcessor

    class NoRepeatAfterPrompt(NoRepeatNGramLogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            return super().__call__(input_ids[:, prompt_length:], scores)

    return LogitsProcessorList([NoRepeatAfterPrompt(size)] if size else [])
