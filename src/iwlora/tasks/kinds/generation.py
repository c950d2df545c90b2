"""Text from text: summaries, translations, and what an instruction asks for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from iwlora.errors import IwloraError
from iwlora.tasks.kinds.base import Answer, Kind, Outputs, Rows, inputs_of, plain_text
from iwlora.tasks.kinds.generation_padding import PadPrompts, PadTargets
from iwlora.tasks.kinds.prompts import decoder_rows, encoder_decoder_rows, plain_messages, reply
from iwlora.tasks.kinds.sequence_packing import check_apart
from iwlora.tasks.padding import IGNORED

if TYPE_CHECKING:
    import datasets
    import pyarrow
    from torch import Tensor

    from iwlora.tasks.task import Task

Count = Annotated[int, Field(ge=1, strict=True)]
Size = Annotated[int, Field(ge=0, strict=True)]


class Generation(Kind):
    """What the kinds that write text share.

    An encoder-decoder reads the source and learns the target; a decoder reads the source as a
    prompt, then ``separator``, and learns the target and the end of the text. The loss is the
    mean cross-entropy of the target's tokens.
    """

    columns: ClassVar[tuple[int, int]] = (1, 1)

    prefix: str = ""
    """Before every source, such as ``"summarize: "``."""
    separator: str = ""
    """Between source and target, for decoders."""
    max_target: Count = 64
    """Tokens of a target that are learned, and most tokens of an answer."""
    beams: Count = 1
    """Beams of the search; 1: the likeliest token at each step."""
    length_penalty: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """Beam scores are divided by length to this power."""
    min_target: Size = 0
    """Least tokens of an answer."""
    no_repeat_ngram: Size = 0
    """No sequence of so many tokens twice in an answer; 0: any."""
    packing: Annotated[bool, Field(strict=True)] = False
    """Decoders: several rows in one of ``train.max_length`` tokens, none seeing another."""
    metric: Literal["rouge", "bleu", "exact_match"] = "exact_match"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of the answers, then the perplexity of the targets."""
        from iwlora.tasks.metrics.text import NAMES

        return (*NAMES[self.metric], "perplexity")

    def label(self, value: Any) -> str:
        """The target."""
        return plain_text(value)

    def types(self) -> tuple[pyarrow.DataType, pyarrow.DataType, pyarrow.DataType]:
        """Three texts."""
        import pyarrow

        return pyarrow.string(), pyarrow.string(), pyarrow.string()

    def auto_class(self, config: Any) -> Any:
        """An encoder-decoder or a decoder; an encoder writes nothing."""
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

        if config.is_encoder_decoder:
            return AutoModelForSeq2SeqLM
        if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            raise IwloraError(
                f"a model of type {config.model_type} is an encoder and writes no text; take an "
                "encoder-decoder such as T5 or BART, or a decoder such as Llama"
            )
        return AutoModelForCausalLM

    def configure(self, config: Any, labels: Sequence[str]) -> None:
        """With ``packing`` no cache: before it transformers does not look where rows begin."""
        if self.packing:
            config.use_cache = False

    def check_model(
        self, model: Any, rows: datasets.Dataset, collate: Callable[[Rows], dict[str, Tensor]]
    ) -> None:
        """No packed row sees another."""
        if self.packing:
            check_apart(model, rows, collate)

    def encode(
        self,
        task: Task,
        rows: datasets.Dataset,
        tokenizer: Any,
        max_length: int,
        config: Any,
        training: bool,
    ) -> datasets.Dataset:
        """``input_ids`` and ``labels``; for decoders, rows to answer have ``prompt_ids`` too."""
        if config.is_encoder_decoder:
            return encoder_decoder_rows(self, task, rows, tokenizer, max_length)
        return decoder_rows(self, task, rows, tokenizer, max_length, training)

    def collator(self, tokenizer: Any, model: Any) -> Callable[[Rows], dict[str, Tensor]]:
        """Padded sources and targets; prompts to answer are padded on the left."""
        if model.config.is_encoder_decoder:
            return PadTargets(tokenizer, model)
        return PadPrompts(tokenizer)

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """Cross-entropy in nats, summed over target tokens."""
        return _token_losses(outputs.logits, labels).sum()

    def count(self, labels: Tensor) -> Tensor:
        """The target tokens."""
        return (labels != IGNORED).sum()

    def outputs(
        self, model: Any, tokenizer: Any, batch: Mapping[str, Tensor], final: bool
    ) -> dict[str, Tensor]:
        """With labels the loss of each row and its tokens; when ``final`` what is written."""
        found: dict[str, Tensor] = {}
        if "labels" in batch:
            losses = _token_losses(model(**inputs_of(batch)).logits, batch["labels"])
            found = {"loss": losses.sum(-1), "count": (batch["labels"] != IGNORED).sum(-1)}
        if final:
            found["written"] = self._write(model, tokenizer, batch)
        return found

    def _write(self, model: Any, tokenizer: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Token ids of the answers, without their prompts."""
        from copy import deepcopy

        settings = deepcopy(model.generation_config)
        ends = settings.eos_token_id
        ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
        settings.update(
            max_new_tokens=self.max_target,
            min_new_tokens=self.min_target or None,
            max_length=None,
            min_length=0,
            num_beams=self.beams,
            length_penalty=self.length_penalty,
            no_repeat_ngram_size=0,
            use_cache=True,
            early_stopping=self.beams > 1,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=sorted({*ends, end_of(tokenizer)} - {None}),
        )
        prompt = batch.get("prompt_ids", batch["input_ids"])
        mask = batch["prompt_mask"] if "prompt_ids" in batch else batch["attention_mask"]
        inner = getattr(model, "module", model)  # what a wrapper for several processes holds
        before = 0 if inner.config.is_encoder_decoder else prompt.shape[1]
        written: Tensor = inner.generate(
            input_ids=prompt,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=self._processors(before),
        )
        return written[:, before:]

    def _processors(self, before: int) -> list[Any]:
        """What keeps an answer from repeating itself; it may repeat its prompt."""
        from transformers import LogitsProcessorList, NoRepeatNGramLogitsProcessor

        class NoRepeat(NoRepeatNGramLogitsProcessor):
            def __call__(self, input_ids: Any, scores: Any) -> Any:
                return super().__call__(input_ids[:, before:], scores)

        size = self.no_repeat_ngram
        return LogitsProcessorList([NoRepeat(size)] if size else [])

    def targets_cut(self, rows: datasets.Dataset, tokenizer: Any) -> tuple[Sequence[int], int]:
        """The targets' tokens, of which ``max_target`` are learned."""
        if "label" not in rows.column_names:
            return (), 0
        found = tokenizer(rows["label"][:], add_special_tokens=False)["input_ids"]
        return [len(ids) for ids in found], self.max_target

    def answers(
        self,
        task: Task,
        rows: datasets.Dataset,
        encoded: datasets.Dataset,
        outputs: Outputs,
        tokenizer: Any,
        shares: bool = False,
    ) -> list[Answer]:
        """What is written, special tokens left out; nothing during training."""
        if "written" not in outputs:
            return []
        written = outputs["written"]
        ids = [[token for token in row if token >= 0] for row in written.tolist()]
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [{"prediction": text.strip()} for text in texts]

    def score(
        self, task: Task, rows: datasets.Dataset, outputs: Outputs, answers: Sequence[Answer]
    ) -> dict[str, float]:
        """The scores of the answers, if there are any; ``loss`` is the mean over tokens."""
        from iwlora.tasks.metrics.text import TEXT_METRICS

        loss = float(outputs["loss"].astype(float).sum() / max(outputs["count"].sum(), 1))
        if not math.isfinite(loss):
            raise IwloraError("the loss is not finite: the model diverged; lower train.lr")
        found = {"perplexity": math.exp(min(loss, 700.0)), "loss": loss}
        if not answers:
            return found
        texts = [answer["prediction"] for answer in answers]
        return {**TEXT_METRICS[self.metric](texts, rows["label"][:]), **found}


class Seq2Seq(Generation):
    """A text from a text, scored by ROUGE."""

    name: ClassVar[str] = "seq2seq"
    summary: ClassVar[str] = "a text from a text: summaries, translations"

    separator: str = "\n"
    metric: Literal["rouge", "bleu", "exact_match"] = "rouge"


class Instruction(Generation):
    """What follows a prompt, or the assistant's turns of a chat, rendered by the tokenizer's own
    template; scored by exact match and perplexity.

    Of a chat that is learned every assistant turn counts, of one that is scored the last.
    """

    name: ClassVar[str] = "instruction"
    summary: ClassVar[str] = "a completion after a prompt, or a chat (column of messages)"
    columns: ClassVar[tuple[int, int]] = (1, 2)

    def text(self, value: Any) -> str:
        """A prompt, or messages as a list of {role, content} or JSON, which are kept as JSON."""
        given = plain_messages(value)
        return plain_text(value) if given is None else json.dumps(given, ensure_ascii=False)

    def further(self, value: Any) -> str:
        """What the prompt is about, after an empty line; it may be empty."""
        return "" if value is None or not str(value).strip() else plain_text(value)

    def label(self, value: Any) -> str:
        """The completion: a text, or a list of the one message of the assistant."""
        if not isinstance(value, (list, tuple)):
            return plain_text(value)
        messages = plain_messages(value)
        if messages is None or len(messages) > 1:
            raise ValueError(f"holds {len(value)} messages; one, the assistant's, is wanted")
        return reply(messages)

    def check(self, row: Sequence[Any]) -> None:
        """A chat that ends with an answer has no other one beside it."""
        messages = plain_messages(row[0])
        answered = messages is not None and messages[-1]["role"] == "assistant"
        if answered and messages and reply(messages) != row[-1]:
            raise ValueError("the chat ends with an answer, and the label is another one")

    def derived(self, text: str) -> str:
        """Of messages the last turn, which is the assistant's."""
        messages = plain_messages(text)
        return str(super().derived(text)) if messages is None else reply(messages)


def end_of(tokenizer: Any) -> int | None:
    """The token that ends a text."""
    found: int | None = tokenizer.eos_token_id
    if found is None:
        found = tokenizer.sep_token_id
    return found


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each token in float32, (rows, tokens); 0 where the label is ignored."""
    from torch.nn.functional import cross_entropy

    flat = cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view(labels.shape)
