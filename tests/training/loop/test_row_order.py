"""The order of rows: a permutation that depends on seed and epoch, with little padding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iwlora.tasks.kinds.classification import Classification
from iwlora.training.load import LoadedRecipe
from iwlora.training.loop.row_order import EpochSampler
from iwlora.training.recipe import build

sizes = st.integers(1, 700)
batch_sizes = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)
epochs = st.integers(0, 5)


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, int, int, int, list[int] | None]:
    """(size, batch size, seed, epoch, lengths or None)."""
    size = draw(sizes)
    few = draw(st.integers(1, 100))
    lengths = np.random.default_rng(draw(seeds)).integers(1, few + 1, size).tolist()
    return (
        size,
        draw(batch_sizes),
        draw(seeds),
        draw(epochs),
        draw(st.sampled_from([None, lengths])),
    )


def order(
    size: int, batch_size: int, seed: int, epoch: int, lengths: list[int] | None
) -> list[int]:
    sampler = EpochSampler(size, batch_size, seed, lengths)
    sampler.set_epoch(epoch)
    assert len(sampler) == size
    return list(sampler)


def batches(rows: list[int], batch_size: int) -> list[list[int]]:
    """The batches that the order is cut into."""
    return [rows[k : k + batch_size] for k in range(0, len(rows), batch_size)]


def padding(rows: list[int], batch_size: int, lengths: list[int]) -> int:
    """Tokens added when every batch is padded to its longest row."""
    return sum(
        max(lengths[i] for i in batch) * len(batch) - sum(lengths[i] for i in batch)
        for batch in batches(rows, batch_size)
    )


@settings(deadline=None)
@given(cases())
def test_every_example_comes_once(case: tuple[int, int, int, int, list[int] | None]) -> None:
    assert sorted(order(*case)) == list(range(case[0]))


@settings(deadline=None)
@given(cases(), seeds)
def test_the_order_is_a_function_of_seed_and_epoch(
    case: tuple[int, int, int, int, list[int] | None], disturbance: int
) -> None:
    rows = order(*case)
    np.random.seed(disturbance)
    torch.manual_seed(disturbance)
    assert order(*case) == rows
    size, batch_size, seed, epoch, lengths = case
    through = EpochSampler(size, batch_size, seed, lengths)
    for before in range(epoch):  # earlier epochs leave nothing behind
        through.set_epoch(before)
        list(through)
    through.set_epoch(epoch)
    assert list(through) == rows


@settings(deadline=None)
@given(seeds, epochs, st.booleans())
def test_other_seeds_and_epochs_give_other_orders(seed: int, epoch: int, grouped: bool) -> None:
    lengths = [1 + row % 30 for row in range(200)] if grouped else None
    rows = [
        tuple(order(200, 8, s, e, lengths))
        for s, e in ((seed, epoch), (seed, epoch + 1), (seed + 1, epoch), (seed + 1, epoch + 1))
    ]
    assert len(set(rows)) == 4


@settings(deadline=None)
@given(cases())
def test_only_the_last_batch_is_of_mixed_neighborhood(
    case: tuple[int, int, int, int, list[int] | None],
) -> None:
    size, batch_size, *_, lengths = case
    cut = batches(order(*case), batch_size)
    assert [len(batch) for batch in cut[:-1]] == [batch_size] * (len(cut) - 1)
    assert len(cut[-1]) == (size % batch_size or batch_size)
    if lengths is not None:
        for batch in cut:  # a batch is a run of rows sorted by length
            assert [lengths[i] for i in batch] == sorted(lengths[i] for i in batch)


@settings(deadline=None)
@given(seeds, st.integers(2, 32))
def test_lengths_save_padding(seed: int, batch_size: int) -> None:
    lengths = np.random.default_rng(seed).geometric(1 / 30, 600).tolist()
    grouped = padding(order(600, batch_size, seed, 0, lengths), batch_size, lengths)
    shuffled = padding(order(600, batch_size, seed, 0, None), batch_size, lengths)
    assert grouped < shuffled / 2


@settings(deadline=None)
@given(seeds)
def test_lengths_do_not_sort_the_epoch(seed: int) -> None:
    """Batches come in random order: no correlation of length and place, up to chance."""
    lengths = np.random.default_rng(seed).integers(1, 100, 800).tolist()
    rows = order(800, 8, seed, 0, lengths)
    means = [np.mean([lengths[i] for i in batch]) for batch in batches(rows, 8)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5  # 5 standard errors
    assert means != sorted(means)


@pytest.mark.parametrize("grouped", [True, False])
def test_what_is_measured_are_the_batches_that_training_sees_first(grouped: bool) -> None:
    lengths = np.random.default_rng(0).integers(4, 60, 70).tolist()
    rows = datasets.Dataset.from_dict({"row": list(range(70)), "length": lengths})
    recipe = build(
        {
            "model": "builtin/minilm",
            "task": "builtin/entailment",
            "method": "iw-lora",
            "train": {"batch_size": 8, "seed": 3, "group_by_length": grouped},
        }
    )
    nothing: Any = None
    loaded = LoadedRecipe(
        recipe,
        task=cast("Any", SimpleNamespace(kind=Classification())),
        processor=nothing,
        model=nothing,
        sites=[],
        encoded={"train": rows},
        collate=lambda batch: {"row": [row["row"] for row in batch]},
    )
    batches = [batch["row"] for batch in loaded.training_batches()]
    expected = list(EpochSampler(70, 8, 3, lengths if grouped else None))
    assert batches == [expected[i : i + 8] for i in range(0, 70, 8)]
