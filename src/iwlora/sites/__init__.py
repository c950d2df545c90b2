"""The sites of a model: which weight matrices can be adapted, and what their weights are."""

from iwlora.sites.blocks import blocks, end_of_block, unwrap
from iwlora.sites.convolutions import not_an_update
from iwlora.sites.coverage import coverage
from iwlora.sites.find import abbreviate_names, sites, used_by_kernels
from iwlora.sites.site import Site, is_linear
from iwlora.sites.weights import dense_weight, differentiable_weight, outputs_first, plain_weight

__all__ = [
    "Site",
    "abbreviate_names",
    "blocks",
    "coverage",
    "dense_weight",
    "differentiable_weight",
    "end_of_block",
    "is_linear",
    "not_an_update",
    "outputs_first",
    "plain_weight",
    "sites",
    "unwrap",
    "used_by_kernels",
]
