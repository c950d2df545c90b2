"""Prompts that read stored keys and values compute what they compute beside the tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from iwlora.methods.additive.token_keys import TokenKeys
from iwlora.training.frozen_layers.leading_blocks import leading_blocks
from iwlora.training.frozen_layers.skipping import FrozenLayers
from iwlora.training.row_store.stored_rows import StoredRows
from methods.additive.test_apt import IMAGES, TEXTS, attached, batch_of

pytestmark = pytest.mark.quick


def computed(result: Any, batch: dict[str, Tensor]) -> list[Tensor]:
    """The logits and all gradients."""
    result.model.zero_grad()
    logits = result.model(**batch).logits
    logits.square().sum().backward()
    return [logits.detach(), *(result.model.get_parameter(n).grad for n in result.trainable)]


def kept(result: Any, batch: dict[str, Tensor], folder: Path) -> FrozenLayers:
    leading = leading_blocks(result.model, lambda: result.model(**batch), result.reads)
    assert leading is not None
    assert len(leading.frozen) == 2
    assert leading.width == (1 + 2 * 2) * result.model.config.hidden_size
    return FrozenLayers(leading, StoredRows(folder, leading.width, leading.dtype))


@pytest.mark.parametrize("architecture", TEXTS + IMAGES)
def test_logits_and_gradients_are_those_of_the_whole_model(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, batch = attached(architecture, prompts=2, memory=3), batch_of(architecture)
    result.model.eval()
    plain = computed(result, batch)
    layers = kept(result, batch, tmp_path / "rows")
    with layers.skipped():
        for _ in range(2):
            assert_close(computed(result, batch), plain, rtol=1e-9, atol=1e-12)
    assert layers.computed_tokens == batch.get("input_ids", torch.ones(2, 17)).numel()
    again = kept(result, batch, tmp_path / "rows")
    give = TokenKeys.give

    def of_another_block(self: Any, block: Any, taken: Tensor, arguments: Any) -> None:
        give(self, block, taken.roll(taken.shape[-1] // 2, dims=-1), arguments)

    with again.skipped():
        assert_close(computed(result, batch), plain, rtol=1e-9, atol=1e-12)
        assert again.computed_tokens == 0
        monkeypatch.setattr(TokenKeys, "give", of_another_block)
        assert (computed(result, batch)[0] - plain[0]).abs().max() > 1e-4
    assert_close(computed(result, batch), plain, rtol=0, atol=0)
