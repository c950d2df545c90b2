"""Sequence packing: several short rows in one long row, without attention between them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from itertools import chain
from typing import Any

from iwlora.errors import IwloraError
from iwlora.tasks.kinds.contract import Collator, Dataset, model_inputs
from iwlora.tasks.tokenization import encode_in_chunks

# The largest change of logits, relative to the largest logit, that the order of sums explains.
_TOLERANCE = 1e-3


def pack(rows: Dataset, max_length: int) -> Dataset:
    """Whole rows joined into as few rows of ``max_length`` tokens as best-fit packing finds.

    ``position_ids`` restart at 0 with every row. From that transformers' decoders know where a row
    ends and keep it apart from the next; :func:`check_isolation` verifies it.
    """
    lengths = rows["length"][:]
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room, bin), sorted
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        best_fit = bisect_left(free, (lengths[row], -1))
        if best_fit < len(free):
            room, bin_index = free.pop(best_fit)
        else:
            room, bin_index = max_length, len(bins)
            bins.append([])
        bins[bin_index].append(row)
        insort(free, (room - lengths[row], bin_index))

    def encode_chunk(start: int, stop: int) -> Mapping[str, Any]:
        packs = [rows.select(members)[:] for members in bins[start:stop]]
        names = [name for name in ("input_ids", "labels", "weights") if name in rows.column_names]
        return {
            **{name: [list(chain(*members[name])) for members in packs] for name in names},
            "position_ids": [[k for n in members["length"] for k in range(n)] for members in packs],
        }

    return encode_in_chunks(len(bins), encode_chunk)


def check_isolation(model: Any, rows: Dataset, collate: Collator) -> None:
    """Raise ``IwloraError`` where a packed row attends to the one before it.

    Two forward passes on one packed row: other tokens in its first part must not change the logits
    of its second part.
    """
    import torch

    packed = next((row for row in rows if row["position_ids"].count(0) > 1), None)
    if packed is None:
        return
    begin, stop = packed["position_ids"].index(0, 1), len(packed["position_ids"])
    device, training = next(model.parameters()).device, model.training
    batch = {key: value.to(device) for key, value in model_inputs(collate([packed])).items()}
    changed = {key: value.clone() for key, value in batch.items()}
    changed["input_ids"][:, :begin] = batch["input_ids"][:, begin - 1]
    model.eval()
    with torch.no_grad():
        before, after = (model(**b).logits[:, begin:stop].float() for b in (batch, changed))
    model.train(training)
    if (before - after).abs().max() > _TOLERANCE * before.abs().max():
        raise IwloraError(
            "task.kind.packing=true: this model, with this method, lets a packed row attend to the "
            "one before it; set task.kind.packing=false"
        )
