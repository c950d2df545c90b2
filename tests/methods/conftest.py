"""What the tests of the methods share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from budgets import MODELS


@pytest.fixture(scope="package")
def deberta_v3_base() -> Any:
    """The shape of microsoft/deberta-v3-base, without its weights."""
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(MODELS["deberta-v3-base"]())
