"""The backbone that the sources of a pool share, read from the disk once."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from iwlora.tasks.kinds import Kind
from iwlora.training.model.backbone import load_backbone


class SharedBackbone:
    """Gives each source a copy of its own, since an adapter changes the model that it is put on.

    So two copies are in memory at a time. A quantized model, which cannot be copied everywhere, is
    read for each source.
    """

    def __init__(self) -> None:
        self._kept: tuple[Any, PreTrainedModel, Any] | None = None

    def load(
        self,
        model: str,
        labels: Sequence[str] = (),
        kind: Kind | None = None,
        trust_remote_code: bool = False,
        loading: Mapping[str, Any] | None = None,
    ) -> tuple[PreTrainedModel, Any]:
        """As :func:`iwlora.training.model.backbone.load_backbone`."""
        if "quantization_config" in (loading or {}):
            return load_backbone(model, labels, kind, trust_remote_code, loading)
        key = (model, tuple(labels), kind and kind.name, dict(loading or {}))
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, *load_backbone(model, labels, kind, trust_remote_code, loading))
        _, loaded, processor = self._kept
        return copy.deepcopy(loaded), copy.deepcopy(processor)
