"""A model that skips its frozen blocks computes what it computes with them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from iwlora.methods import METHODS
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites
from iwlora.training.frozen_layers.leading_blocks import leading_blocks
from iwlora.training.frozen_layers.skipping import FrozenLayers
from iwlora.training.kernels import training_numerics
from iwlora.training.row_store.stored_rows import StoredRows

TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "bf16": 2e-2}
CASES = [
    *((name, "float64") for name in ("roberta", "deberta-v2", "t5", "bart", "gpt2", "llama")),
    ("bert", "float32"),
    ("deberta-v2", "float32"),
    ("bert", "bf16"),
]


class Case:
    """A classifier of three blocks with LoRA in the last one, which has left its initial value."""

    def __init__(self, architecture: str, numerics: str, folder: Path, method: str = "lora"):
        model = tiny_model(architecture, blocks=3)
        if numerics == "float64":
            model.double()
        upper = [s for s in sites(model, "all-linear") if s.depth == 2 or "decoder" in s.kind]
        self.model = METHODS[method]().attach(model, upper, seed=0).model
        self.model.eval()
        self._precision = "bf16" if numerics == "bf16" else "fp32"
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator(parameter.numel()))
                parameter.data.add_(0.05 * noise)
        self.batch = batch(model.config, [3, 7, 12, 5])
        with self.numerics():
            leading = leading_blocks(self.model, lambda: self.model(**self.batch))
        assert leading is not None
        assert len(leading.frozen) == 2
        rows = StoredRows(folder / "key", leading.width, leading.dtype)
        self.layers = FrozenLayers(leading, rows)

    def numerics(self) -> Any:
        return training_numerics(self.model, True, self._precision, torch.device("cpu"))

    def compute(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """The logits and all gradients."""
        self.model.zero_grad()
        with self.numerics():
            logits = self.model(**inputs).logits
        logits.square().sum().backward()
        return [logits.detach(), *(p.grad for p in self.model.parameters() if p.grad is not None)]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(config: Any, lengths: list[int]) -> dict[str, Tensor]:
    """Rows of random tokens, padded on the right, with the end that T5 and BART look for."""
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(5, 60, (length,), generator=generator(row))
        ids[row, length - 1] = config.eos_token_id or 4
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


def assert_equal(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("architecture", "numerics"), CASES)
def test_logits_and_gradients_are_those_of_the_plain_model(
    architecture: str, numerics: str, tmp_path: Path
) -> None:
    """Rows are stored from batches with other rows and other padding than those that read them."""
    case, tolerance = Case(architecture, numerics, tmp_path), TOLERANCES[numerics]
    expected = case.compute(case.batch)
    padding = torch.zeros(2, 3, dtype=torch.long)
    other = {name: torch.cat([x[[3, 0]], padding], 1) for name, x in case.batch.items()}
    with case.layers.skipped():
        case.compute(other)
        first = case.layers.computed_tokens
        assert_equal(case.compute(case.batch), expected, tolerance)
        assert case.layers.computed_tokens == first + 2 * 12  # two rows were not stored
        assert_equal(case.compute(case.batch), expected, tolerance)
        assert case.layers.computed_tokens == first + 2 * 12
    assert_equal(case.compute(case.batch), expected, 0)  # the model is as it was


@pytest.mark.quick
def test_wrong_activations_are_seen(tmp_path: Path) -> None:
    """The comparison above notices activations of another row."""
    case = Case("bert", "float32", tmp_path)
    expected = case.compute(case.batch)
    read = case.layers.rows.read
    case.layers.rows.read = lambda keys: read([keys[0]] * len(keys))  # type: ignore[method-assign]
    same_length = {name: x[:, :3] for name, x in case.batch.items()}
    with case.layers.skipped():
        case.compute(same_length)
        found = case.compute(same_length)
    assert not torch.allclose(found[0], expected[0], atol=1e-3)


def test_blocks_are_not_called_for_stored_rows(tmp_path: Path) -> None:
    case = Case("bert", "float32", tmp_path)
    calls: list[int] = []
    with case.layers.skipped():
        case.model(**case.batch)
        for depth, frozen in enumerate(case.layers.leading.frozen):
            for module in frozen.block.children():
                module.register_forward_hook(lambda *_, depth=depth: calls.append(depth))
        case.model(**case.batch)
        assert calls == []
    case.model(**case.batch)
    assert set(calls) == {0, 1}


def test_left_padding_has_rows_of_its_own(tmp_path: Path) -> None:
    """GPT-2 counts positions from the first token of the padding."""
    case = Case("gpt2", "float32", tmp_path)
    left = {name: x.clone() for name, x in case.batch.items()}
    for row, length in enumerate([3, 7, 12, 5]):
        for name in left:
            left[name][row] = left[name][row].roll(12 - length)
    case.model.eval()
    expected = case.model(**left).logits
    with case.layers.skipped():
        case.model(**case.batch)
        torch.testing.assert_close(case.model(**left).logits, expected)


def test_nothing_below_is_dropped_and_the_rest_is(tmp_path: Path) -> None:
    """In training the blocks behind have their dropout, and the frozen ones have none."""
    case = Case("bert", "float32", tmp_path)
    for module in case.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    seen: list[Tensor] = []
    last = case.layers.leading.frozen[-1].block
    last.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    case.model.eval()
    case.model(**case.batch)
    case.model.train()
    with case.layers.skipped():
        outputs = [case.model(**case.batch).logits for _ in range(2)]
    plain, *stored = (x[case.batch["attention_mask"].bool()] for x in (seen[0], *seen[-2:]))
    for values in stored:
        torch.testing.assert_close(values, plain)
    assert not torch.allclose(*outputs)
    assert all(module.training for module in case.model.modules())


def test_rows_alone_do_not_depend_on_their_batch(tmp_path: Path) -> None:
    stored = []
    for name, order in (("a", [0, 1, 2, 3]), ("b", [2])):
        case = Case("bert", "float32", tmp_path / name)
        layers = FrozenLayers(case.layers.leading, case.layers.rows, row_by_row=True)
        with layers.skipped():
            case.model(**{key: x[order] for key, x in case.batch.items()})
        (stored_rows,) = (tmp_path / name).glob("*/rows.bin")
        stored.append(stored_rows.read_bytes())
    assert stored[1] in stored[0]


def test_masks_that_are_no_padding_are_computed_each_time(tmp_path: Path) -> None:
    case = Case("bert", "float32", tmp_path)
    inputs = {**case.batch, "attention_mask": case.batch["attention_mask"].clone()}
    inputs["attention_mask"][2, 5] = 0
    expected = case.model(**inputs).logits
    with case.layers.skipped():
        for passes in (1, 2):
            torch.testing.assert_close(case.model(**inputs).logits, expected)
            assert case.layers.computed_tokens == passes * 4 * 12


def test_what_another_run_is_computing_is_waited_for(tmp_path: Path) -> None:
    """Runs of other draws compute at the same time."""
    run, same_draw = Case("bert", "float32", tmp_path), Case("bert", "float32", tmp_path)
    layers = FrozenLayers(run.layers.leading, run.layers.rows, draw=1)
    with layers.skipped(), same_draw.layers.skipped():
        waiting = threading.Thread(target=lambda: same_draw.model(**same_draw.batch))
        with run.layers.rows.in_turn(0):
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive()
            run.model(**run.batch)
        waiting.join(20)
    assert layers.computed_tokens == 4 * 12
    assert same_draw.layers.computed_tokens == 0
