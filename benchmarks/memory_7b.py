"""What training a 7B model takes of each GPU's memory, computed from its configuration.

    python benchmarks/memory_7b.py
    python benchmarks/memory_7b.py --rows 4 --tokens 1024 --rank 64 --processes 4

Weights, gradients and Adam's moments are counted on the meta device. What autograd keeps for the
backward pass is counted on models of one and of two blocks of full width, on the CPU under bfloat16
autocast, and continued to all blocks and tokens. CUDA's own context, fragmentation and the buffers
of NCCL come on top.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from iwlora.methods import METHODS
from iwlora.sites import blocks, sites

GB = 1e9
COUNTED_TOKENS = 32
# Bytes a weight: 4 bits, a scale of 8 bits for 64, and one of 32 bits for 256 of those.
PACKED = (4 + 8 / 64 + 32 / (64 * 256)) / 8
ADAM = 4 + 4 + 8  # bytes of a trained parameter: itself, its gradient, two moments


def config(layers: int = 32) -> LlamaConfig:
    """Llama 2 7B."""
    return LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_attention_heads=32,
        num_hidden_layers=layers,
    )


class Kept(NamedTuple):
    """Bytes that autograd keeps: a token's activations, and weights in the type of products."""

    activations: float
    casts: float


def kept(layers: int, rank: int | None) -> Kept:
    """What a forward pass keeps; without ``rank`` everything trains, else LoRA."""
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config(layers))
        if rank is not None:
            model = METHODS["lora"](rank=rank).attach(model, sites(model), seed=0).model
    model.to_empty(device="cpu")  # what is computed does not matter
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    shapes = {tuple(p.shape) for p in model.parameters() if p.dim() == 2}
    seen: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in parameters:
            seen.setdefault(storage, tensor)
        return tensor

    ids = torch.arange(COUNTED_TOKENS)[None]
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        logits = model(input_ids=ids).logits
        loss = cross_entropy(logits[0].float(), ids[0])
    assert loss.requires_grad
    sizes = {True: 0.0, False: 0.0}
    for tensor in seen.values():
        is_weight = tuple(tensor.shape) in shapes or tuple(reversed(tensor.shape)) in shapes
        sizes[is_weight] += tensor.untyped_storage().nbytes()
    return Kept(sizes[False] / COUNTED_TOKENS, sizes[True])


def whole(rank: int | None) -> Kept:
    """The same of all 32 blocks, by what a second block adds to one."""
    one, two = kept(1, rank), kept(2, rank)
    return Kept(*(a + 31 * (b - a) for a, b in zip(one, two, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1, help="rows that a process computes at once")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a row")
    parser.add_argument(
        "--rank", type=int, default=16, help="of LoRA, on all matrices of the blocks"
    )
    parser.add_argument("--processes", type=int, default=8, help="GPUs that FSDP2 spreads over")
    given = parser.parse_args()
    with torch.device("meta"):
        model = LlamaForCausalLM(config())
    places = sites(model)
    weights = sum(p.numel() for p in model.parameters())
    matrices = sum(site.d_in * site.d_out for site in places)
    block = sum(p.numel() for p in blocks(model)[0].parameters())
    added = METHODS["lora"](rank=given.rank).parameters(model, places)
    n, tokens = given.processes, given.rows * given.tokens
    full, lora = whole(None), whole(given.rank)
    print(
        f"{weights / 1e9:.2f}B weights, {matrices / 1e9:.2f}B of them in the blocks' matrices; "
        f"LoRA of rank {given.rank} has {added / 1e6:.0f}M; {given.rows} × {given.tokens} "
        "tokens at once\n"
    )
    print("| GB on each GPU | weights | training state | bf16 copies | activations | all |")
    print("|---|---|---|---|---|---|")
    spread = 4 * weights / n + 2 * 4 * block  # a block in use, and the one that is fetched
    packed = PACKED * matrices + 4 * (weights - matrices)
    for name, held, trained, casts, activations in (
        ("full, DDP", 4 * weights, 12 * weights, full.casts, full.activations),
        (f"full, FSDP2 over {n}", spread, 12 * weights / n, full.casts, full.activations),
        ("LoRA, DDP", 4 * weights, ADAM * added, lora.casts, lora.activations),
        (f"LoRA, FSDP2 over {n}", spread, ADAM * added, lora.casts, lora.activations),
        ("LoRA, quantize=4bit", packed, ADAM * added, 0.0, lora.activations),
    ):
        parts = (held, trained, casts, activations * tokens)
        numbers = " | ".join(f"{part / GB:.1f}" for part in (*parts, sum(parts)))
        print(f"| {name} | {numbers} |")


if __name__ == "__main__":
    main()
