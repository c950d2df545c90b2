"""DeBERTa's attention with near positions only gives what transformers gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import tiny_config
from iwlora.training.kernels.deberta import near_positions
from passes import near, outcome

pytestmark = pytest.mark.quick
DEBERTAS: Mapping[str, dict[str, Any]] = {
    "version 3": {"share_att_key": True, "norm_rel_ebd": "layer_norm"},
    "apart": {"share_att_key": False},
    "one way": {"share_att_key": True, "pos_att_type": ["c2p"]},
    "no buckets": {"share_att_key": True, "position_buckets": -1},
}


@pytest.mark.parametrize("case", DEBERTAS)
def test_debertas_near_positions_are_all_that_count(case: str) -> None:
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = tiny_config("deberta-v2")
    options = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["c2p", "p2c"]}
    for name, value in {**options, **DEBERTAS[case]}.items():
        setattr(config, name, value)
    model = AutoModelForSequenceClassification.from_config(config).double().eval()
    embedding = model.get_input_embeddings()
    for tokens in (3, 8, 14):  # below the table's reach, at it, and beyond
        embedded = embedding(torch.randint(5, 20, (2, tokens))).detach()

        def passes(embedded: Tensor = embedded) -> dict[str, Tensor]:
            return outcome(Embedded(model), embedded)

        expected = passes()
        table = next(value for name, value in expected.items() if "rel_embeddings" in name)
        with near_positions(model):
            actual = passes()
        assert near(actual, expected, 1e-12)
        assert table.any()


class Embedded(nn.Module):
    """A model that reads vectors, and answers with its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(inputs_embeds=x).logits
        return logits
