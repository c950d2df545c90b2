"""The check that a method trains on stored activations of frozen blocks as on the whole model."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from torch import Tensor, nn
from transformers import default_data_collator as collate

from iwlora.errors import IwloraError
from iwlora.methods.contract import Method
from iwlora.sites import Site
from iwlora.sites import sites as find_sites
from iwlora.testing.case import BATCH, Case
from iwlora.training.frozen_layers.leading_blocks import free_blocks, leading_blocks
from iwlora.training.frozen_layers.skipping import FrozenLayers
from iwlora.training.row_store.stored_rows import StoredRows

STEPS = 3
TOLERANCE = 1e-4
COMPUTED_EACH_TIME = ("convnext",)
"""Architectures whose blocks compute maps in place of tokens, which are not kept."""


def frozen_blocks_once_equal_plain(case: Case) -> None:
    """In the last blocks, the method trains with frozen blocks computed once as on all blocks.

    The blocks are those that a comparison expects from what the method declares. One that trains
    in the first block too, such as all normalizations, has nothing to skip. A mixture whose groups
    need several blocks gets all, and has something to skip if its first group is not tuned.
    """
    expected, _ = _trained(case, case.folder / "all-blocks", None)
    for turn in ("first", "again"):
        logits, layers = _trained(case, case.folder / f"{turn}-skipping", case.folder / "frozen")
        model, count = case.model(), len(layers.leading.frozen) if layers else 0
        declared = free_blocks(model, case.method, _chosen_sites(model, case.method))
        if case.architecture in COMPUTED_EACH_TIME:
            declared = 0
        if count != declared:
            raise AssertionError(f"{count} blocks are frozen, and by its names {declared}")
        if layers is None:
            return
        if (layers.computed_tokens == 0) != (turn == "again"):
            raise AssertionError(f"{layers.computed_tokens} tokens were computed the {turn} time")
        difference = (logits - expected).abs().max().item()
        if not difference <= TOLERANCE:
            raise AssertionError(f"the logits differ by {difference} with frozen blocks skipped")


def _trained(case: Case, folder: Path, kept: Path | None) -> tuple[Tensor, FrozenLayers | None]:
    """The logits after a training of the last blocks; and what it skipped, kept in ``kept``."""
    model = case.model()
    attached = case.attach(model, _chosen_sites(model, case.method))
    batch, layers = collate(case.rows[:BATCH]), None
    leading = leading_blocks(attached.model, lambda: attached.model(**batch)) if kept else None
    if kept and leading:
        layers = FrozenLayers(leading, StoredRows(kept, leading.width, leading.dtype))
    with layers.skipped() if layers else nullcontext():
        case.fit(attached, folder, max_steps=STEPS)
        return case.logits(attached.model), layers


def _chosen_sites(model: nn.Module, method: Method) -> list[Site]:
    """The sites of the last blocks, or all where the method cannot do with these."""
    sites = find_sites(model)
    last = max(site.depth for site in sites)
    of_last = [site for site in sites if site.depth == last]
    try:
        method.check_model(model, of_last)
    except IwloraError:
        return sites
    return of_last
