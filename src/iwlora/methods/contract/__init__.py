"""The contract of a fine-tuning method, and the record of a method attached to a model."""

from __future__ import annotations

from iwlora.methods.contract.attached import (
    Attached,
    Batch,
    BlockReads,
    Initialize,
    Loss,
    ParameterGroup,
)
from iwlora.methods.contract.attaching import (
    check_unattached,
    mark_attached,
    not_measured,
    seeded,
    split_head,
    train_only,
)
from iwlora.methods.contract.method import Method

__all__ = [
    "Attached",
    "Batch",
    "BlockReads",
    "Initialize",
    "Loss",
    "Method",
    "ParameterGroup",
    "check_unattached",
    "mark_attached",
    "not_measured",
    "seeded",
    "split_head",
    "train_only",
]
