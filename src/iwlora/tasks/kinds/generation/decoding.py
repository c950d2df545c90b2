"""Decoding: greedy or beam search with the options of a generation task."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from iwlora.tasks.kinds.contract import Batch
from iwlora.tasks.tokenization import end_of_text_token

if TYPE_CHECKING:
    from torch import Tensor


def generate(
    model: Any, tokenizer: Any, batch: Batch, no_repeat_ngram: int, **options: Any
) -> Tensor:
    """Generate without sampling.

    Args:
        model: The model, or its wrapper for several processes.
        tokenizer: The tokenizer of the model.
        batch: What the collator of the kind returns.
        no_repeat_ngram: No sequence of this many tokens occurs twice in a generated text; it may
            repeat the prompt. 0: no such rule.
        options: Fields of transformers' ``GenerationConfig``.

    Returns:
        Token ids of the generated texts, (rows, tokens), without their prompts.
    """
    config = deepcopy(model.generation_config)
    stops = config.eos_token_id
    stops = stops if isinstance(stops, list) else [stops]
    config.update(
        max_length=None,
        min_length=0,
        no_repeat_ngram_size=0,
        use_cache=True,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted({*stops, end_of_text_token(tokenizer)} - {None}),
        **options,
    )
    prompt = batch.get("prompt_ids", batch["input_ids"])
    mask = batch["prompt_mask"] if "prompt_ids" in batch else batch["attention_mask"]
    unwrapped = getattr(model, "module", model)  # DistributedDataParallel wraps the model
    prompt_length = 0 if unwrapped.config.is_encoder_decoder else prompt.shape[1]
    generated: Tensor = unwrapped.generate(
        input_ids=prompt,
        attention_mask=mask,
        generation_config=config,
        logits_processor=_no_repeat_ngram(no_repeat_ngram, prompt_length),
    )
    return generated[:, prompt_length:]


def _no_repeat_ngram(size: int, prompt_length: int) -> list[Any]:
    """transformers' rule against repeated n-grams, applied to what follows the prompt."""
    from transformers import LogitsProcessorList, NoRepeatNGramLogitsProcessor

    class NoRepeatAfterPrompt(NoRepeatNGramLogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            return super().__call__(input_ids[:, prompt_length:], scores)

    return LogitsProcessorList([NoRepeatAfterPrompt(size)] if size else [])
