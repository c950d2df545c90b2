"""Several rows in one, none seeing another."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.tasks.tokenization import in_chunks

if TYPE_CHECKING:
    import datasets
    from torch import Tensor

# How far logits may move, as a part of the largest, by nothing but another order of sums.
_NOISE = 1e-3


def packed(rows: datasets.Dataset, max_length: int) -> datasets.Dataset:
    """Rows joined, each whole, into as few of ``max_length`` tokens as best fit finds.

    ``position_ids`` begin anew with every row: that tells transformers' decoders where one ends,
    so that no row sees another, as :func:`check_apart` makes sure.
    """
    lengths = rows["length"][:]
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room, bin), sorted
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        found = bisect_left(free, (lengths[row], -1))
        if found < len(free):
            room, number = free.pop(found)
        else:
            room, number = max_length, len(bins)
            bins.append([])
        bins[number].append(row)
        insort(free, (room - lengths[row], number))

    def chunk(start: int, stop: int) -> Mapping[str, Any]:
        packs = [rows.select(members) for members in bins[start:stop]]
        return {
            **{
                name: [[item for ids in pack[name] for item in ids] for pack in packs]
                for name in ("input_ids", "labels")
            },
            "position_ids": [[k for n in pack["length"] for k in range(n)] for pack in packs],
        }

    return in_chunks(len(bins), chunk)


def check_apart(
    model: Any,
    rows: datasets.Dataset,
    collate: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Tensor]],
) -> None:
    """Raise ``IwloraError`` where a packed row sees the one before it.

    Other tokens in the first of two rows must not move what the model says of the second.
    """
    import torch

    from iwlora.tasks.kinds.base import inputs_of

    pack = next((row for row in rows if row["position_ids"].count(0) > 1), None)
    if pack is None:
        return
    begin = pack["position_ids"].index(0, 1)
    device, training = next(model.parameters()).device, model.training
    batch = {key: value.to(device) for key, value in inputs_of(collate([pack])).items()}
    other = {key: value.clone() for key, value in batch.items()}
    other["input_ids"][:, :begin] = batch["input_ids"][:, begin - 1]
    stop = len(pack["position_ids"])
    model.eval()
    with torch.no_grad():
        ours, theirs = (model(**one).logits[:, begin:stop].float() for one in (batch, other))
    model.train(training)
    if (ours - theirs).abs().max() > _NOISE * ours.abs().max():
        raise IwloraError(
            "task.kind.packing=true: this model, with this method, lets a packed row see the one "
            "before it; set task.kind.packing=false"
        )
