"""A forward pass that takes what frozen blocks compute from a store, and skips these blocks."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from iwlora.errors import IwloraError
from iwlora.training.frozen_layers.leading_blocks import FrozenBlock, LeadingBlocks
from iwlora.training.row_store.stored_rows import KEY_BYTES, StoredRows


class _Reached(Exception):
    """The last frozen block is done; what is behind it is not needed."""

    def __init__(self, activations: Tensor) -> None:
        super().__init__()
        self.activations = activations


class FrozenLayers:
    """The frozen blocks of a model, and what they computed for rows.

    Inside :meth:`skipped` the model's own forward pass runs, but its frozen blocks return stored
    activations: masks, positions and everything behind them are computed by the model's own code.
    A row that is not stored is computed first, with the rest of its batch that is not stored,
    without dropout. Generation, which continues a row token by token, calls the blocks.

    Args:
        leading: the frozen blocks.
        rows: what they computed before.
        draw: runs with the same one meet the same rows, and compute them in turn.
        row_by_row: compute each row alone, so that its activations do not depend on its batch, not
            even in their last bit.
        notes: what the user should know.
    """

    def __init__(
        self,
        leading: LeadingBlocks,
        rows: StoredRows,
        draw: int = 0,
        row_by_row: bool = False,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.leading, self.rows, self.notes = leading, rows, notes
        self._draw, self._row_by_row = draw, row_by_row
        self.computed_tokens = 0
        """Padded tokens that were computed, because they were not stored."""
        self.computed_seconds = 0.0
        self._parameters = list(inspect.signature(type(leading.encoder).forward).parameters)[1:]
        self._computing = False
        self._injected: Tensor | None = None
        self._last = leading.frozen[-1].block

    @contextmanager
    def skipped(self) -> Iterator[None]:
        """Inside the block, the model does not compute its frozen blocks for stored rows."""
        encoder = self.leading.encoder
        with ExitStack() as stack:
            handle = encoder.register_forward_pre_hook(self._before, with_kwargs=True)
            stack.callback(handle.remove)
            handle = encoder.register_forward_hook(self._after, always_call=True)
            stack.callback(handle.remove)
            for frozen in self.leading.frozen:
                stack.enter_context(self._replaced(frozen))
            yield

    @contextmanager
    def _replaced(self, frozen: FrozenBlock) -> Iterator[None]:
        own = vars(frozen.block)
        before = own.get("forward")
        own["forward"] = partial(self._block, frozen, frozen.block.forward)
        try:
            yield
        finally:
            own.pop("forward")
            if before is not None:
                own["forward"] = before

    def _before(self, encoder: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Get the activations of the batch that the encoder is about to read."""
        if self._computing:
            return
        inputs = {**dict(zip(self._parameters, args, strict=False)), **kwargs}
        if inputs.get("past_key_values") is None and _read(inputs) is not None:
            self._injected = self._activations(inputs)

    def _after(self, *_: Any) -> None:
        if not self._computing:
            self._injected = None

    def _block(self, frozen: FrozenBlock, forward: Any, *args: Any, **kwargs: Any) -> Any:
        """A frozen block: as it is, or the stored activations with what it passes on."""
        leading, reads = self.leading, self.leading.reads
        if self._injected is None or (reads and not reads.of_tokens(frozen.block)):
            output = forward(*args, **kwargs)
            if self._computing and frozen.block is self._last:
                computed = output if frozen.is_single else output[0]
                raise _Reached(torch.cat([computed, reads.taken()], -1) if reads else computed)
            return output
        activations = self._injected
        if reads:
            widths = [leading.width - leading.read_width, leading.read_width]
            activations, read = activations.split(widths, dim=-1)
            names = inspect.signature(forward).parameters
            reads.give(frozen.block, read, {**dict(zip(names, args, strict=False)), **kwargs})
        if frozen.is_single:
            return activations
        if frozen.makes_extras:
            with torch.no_grad():
                return (activations, *forward(*args, **kwargs)[1:])
        given: dict[int | str, Any] = dict(enumerate(args))
        given.update(kwargs)
        return (activations, *(None if s is None else given[s] for s in frozen.extras))

    def _activations(self, inputs: Mapping[str, Any]) -> Tensor:
        """What the last frozen block computes for a batch: (rows, tokens, width).

        They are 0 for padding. Of images the tokens are the patches.
        """
        tokens = _tokens_of_rows(inputs)
        if tokens is None:  # masks that are no padding: what a row reads is not known
            return self._compute(inputs, None)
        keys = _keys(inputs, tokens)
        stored = self.rows.read(keys)
        if any(values is None for values in stored):
            with self.rows.in_turn(self._draw):
                stored = self._completed(inputs, tokens, keys)
        rows = [values for values in stored if values is not None]
        read = _read(inputs)
        if inputs.get("input_ids") is None:
            return torch.stack(rows).to(read.device)
        batch = torch.zeros((*read.shape, self.leading.width), dtype=self.leading.dtype)
        for row, values in enumerate(rows):
            batch[row, tokens[row]] = values
        return batch.to(read.device)

    def _completed(
        self, inputs: Mapping[str, Any], tokens: Sequence[slice], keys: Sequence[bytes]
    ) -> list[Tensor | None]:
        """The activations of all rows; those that are still not stored are computed and stored."""
        stored = self.rows.read(keys)
        missing = [row for row, values in enumerate(stored) if values is None]
        groups = [[row] for row in missing] if self._row_by_row else [missing] if missing else []
        new: dict[bytes, Tensor] = {}
        for group in groups:
            computed = self._compute(inputs, group)
            for row, values in zip(group, computed, strict=True):
                stored[row] = new[keys[row]] = values[tokens[row]]
        if new:
            self.rows.add(new)
        return stored

    def _compute(self, inputs: Mapping[str, Any], rows: Sequence[int] | None) -> Tensor:
        """Run the encoder up to the last frozen block, without dropout.

        Gives the activations of some rows on the CPU, or of all on their device.
        """
        started = time.perf_counter()
        encoder, read = self.leading.encoder, _read(inputs)
        if rows is not None and len(rows) < len(read):
            chosen = torch.tensor(rows, device=read.device)
            tensors = _tensors(inputs).items()
            inputs = {**inputs, **{n: x[chosen] for n, x in tensors if len(x) == len(read)}}
        training = [module for module in encoder.modules() if module.training]
        self._computing = True
        try:
            encoder.eval()
            with torch.no_grad():
                encoder(**inputs)
        except _Reached as reached:
            activations = reached.activations.to("cpu" if rows is not None else read.device)
            self.computed_tokens += activations.shape[0] * activations.shape[1]
            self.computed_seconds += time.perf_counter() - started
            return activations
        finally:
            self._computing = False
            for module in training:
                module.training = True
        raise IwloraError(
            f"{type(encoder).__name__} did not call a block that train.cache_frozen is to skip; "
            "take train.cache_frozen=false"
        )


def _read(inputs: Mapping[str, Any]) -> Any:
    """The token ids or the pixels of the rows; None where the model reads neither."""
    ids = inputs.get("input_ids")
    return inputs.get("pixel_values") if ids is None else ids


def _tokens_of_rows(inputs: Mapping[str, Any]) -> list[slice] | None:
    """Where each row has its tokens between the padding; None where that is not known."""
    if inputs.get("input_ids") is None:  # images have no padding
        alone = _tensors(inputs).keys() == {"pixel_values"}
        return [slice(None)] * len(inputs["pixel_values"]) if alone else None
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    if not isinstance(mask, Tensor) or ids.dim() != 2:
        return None
    if any(x.shape != ids.shape for x in _tensors(inputs).values()):
        return None
    rows = mask.cpu().bool()
    counts, starts = rows.sum(1).tolist(), rows.int().argmax(1).tolist()
    slices = [slice(start, start + count) for start, count in zip(starts, counts, strict=True)]
    whole = all(bool(row[part].all()) for row, part in zip(rows, slices, strict=True))
    return slices if whole and all(counts) else None


def _keys(inputs: Mapping[str, Any], tokens: Sequence[slice]) -> list[bytes]:
    """What identifies each row: its place in the batch, token ids and their types; or pixels."""
    read = {name: x.cpu().numpy() for name, x in sorted(_tensors(inputs).items())}
    keys = []
    for row, part in enumerate(tokens):
        digest = hashlib.blake2b(repr((part.start, *read)).encode(), digest_size=KEY_BYTES)
        for values in read.values():
            digest.update(values[row, part].tobytes())
        keys.append(digest.digest())
    return keys


def _tensors(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The inputs that have values for rows, unlike the number of items in the batch."""
    return {n: x for n, x in inputs.items() if isinstance(x, Tensor) and x.dim() > 0}
