"""Blocks that are computed again: the same result bit for bit, in less memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import save_tiny
from iwlora.errors import IwloraError
from iwlora.training.dry_run.run_cost import estimate_run_cost
from iwlora.training.model.gradient_checkpointing import enable_gradient_checkpointing
from iwlora.training.run import train
from runs import recipe, weights, with_options

OPTIONS = {"iw-lora": {"alpha": 0.3, "measure": "in-flight", "max_batches": 4}}


@pytest.mark.parametrize("method", ["full", "lora", "iw-lora", "adalora", "parallel"])
def test_the_result_is_the_same_bit_for_bit(
    method: str, with_dropout: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    """Dropout draws its masks again, and what is measured in flight is read once."""
    trained = []
    for checkpointed in (False, True):
        epochs = 2 if method == "adalora" else 1  # it prunes within 12 steps
        asked = recipe(with_dropout, reviews, method, epochs=epochs)
        asked = with_options(asked, **OPTIONS.get(method, {}))
        asked = asked.with_train(gradient_checkpointing=checkpointed)
        train(asked, tmp_path / str(checkpointed))
        trained.append(weights(tmp_path / str(checkpointed)))
    assert all(torch.equal(trained[1][name], value) for name, value in trained[0].items())


@pytest.mark.quick
def test_the_dry_run_sees_fewer_activations(tmp_path: Path, reviews: dict[str, str]) -> None:
    model = save_tiny(tmp_path / "deep", "bert", num_hidden_layers=8)
    costs = [
        estimate_run_cost(
            recipe(model, reviews, "lora", epochs=1, gradient_checkpointing=checkpointed)
        ).memory
        for checkpointed in (False, True)
    ]
    kept, again = costs
    assert again.activations + again.workspace < 0.5 * (kept.activations + kept.workspace)
    assert again.state == kept.state


@pytest.mark.quick
def test_a_model_that_does_not_support_it_is_refused() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    class Unsupported(BertForSequenceClassification):
        supports_gradient_checkpointing = False

    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9
    )
    with pytest.raises(IwloraError, match="and Unsupported does not support it"):
        enable_gradient_checkpointing(Unsupported(config))
