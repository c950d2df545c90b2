"""The memory of each GPU that training a 7B model takes, computed from its configuration.

    python benchmarks/memory_7b.py
    python benchmarks/memory_7b.py --rows 4 --tokens 1024 --rank 64 --processes 4

Weights, gradients and Adam's moments are counted on the meta device. What autograd keeps for the
backward pass is counted on models of one and two blocks of full width, on the CPU under bfloat16
autocast, and extrapolated to all blocks and tokens. CUDA's context, fragmentation and the buffers
of NCCL are not included.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from iwlora.methods.low_rank.lora import Lora
from iwlora.sites import blocks, sites

GB = 1e9
COUNTED_TOKENS = 32
# Bytes of a weight: 4 bits, a scale of 8 bits for 64 weights, one of 32 bits for 256 scales.
QUANTIZED = (4 + 8 / 64 + 32 / (64 * 256)) / 8
ADAM = 4 + 4 + 8  # bytes of a trained parameter, its gradient and its two moments


def config(layers: int = 32) -> LlamaConfig:
    """Llama 2 7B."""
    return LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_attention_heads=32,
        num_hidden_layers=layers,
    )


class SavedForBackward(NamedTuple):
    """Bytes that autograd keeps: activations of a token, and weights cast to bfloat16."""

    activations: float
    casts: float


def saved_by_layers(layers: int, rank: int | None) -> SavedForBackward:
    """What a forward pass keeps with LoRA, or without ``rank`` with full fine-tuning."""
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config(layers))
        if rank is not None:
            model = Lora(rank=rank).attach(model, sites(model), seed=0).model
    model.to_empty(device="cpu")  # the values do not matter
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
    return SavedForBackward(sizes[False] / COUNTED_TOKENS, sizes[True])


def saved_by_model(rank: int | None) -> SavedForBackward:
    """The same for all 32 blocks, from what a second block adds to one."""
    one, two = saved_by_layers(1, rank), saved_by_layers(2, rank)
    return SavedForBackward(*(a + 31 * (b - a) for a, b in zip(one, two, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1, help="rows of a micro-batch")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a row")
    parser.add_argument(
        "--rank", type=int, default=16, help="of LoRA, on all matrices of the blocks"
    )
    parser.add_argument(
        "--processes", type=int, default=8, help="GPUs that share the model with FSDP2"
    )
    options = parser.parse_args()
    with torch.device("meta"):
        model = LlamaForCausalLM(config())
    adapted = sites(model)
    weights = sum(p.numel() for p in model.parameters())
    matrices = sum(site.d_in * site.d_out for site in adapted)
    block = sum(p.numel() for p in blocks(model)[0].parameters())
    added = Lora(rank=options.rank).parameters(model, adapted)
    n, tokens = options.processes, options.rows * options.tokens
    full, lora = saved_by_model(None), saved_by_model(options.rank)
    print(
        f"{weights / 1e9:.2f}B weights, {matrices / 1e9:.2f}B of them in the blocks' matrices; "
        f"LoRA of rank {options.rank} has {added / 1e6:.0f}M; {options.rows} × {options.tokens} "
        "tokens at once\n"
    )
    print("| GB on each GPU | weights | training state | bf16 copies | activations | all |")
    print("|---|---|---|---|---|---|")
    sharded = 4 * weights / n + 2 * 4 * block  # and a block in use, and the next one
    quantized = QUANTIZED * matrices + 4 * (weights - matrices)
    for name, held, trained, casts, activations in (
        ("full, DDP", 4 * weights, 12 * weights, full.casts, full.activations),
        (f"full, FSDP2 over {n}", sharded, 12 * weights / n, full.casts, full.activations),
        ("LoRA, DDP", 4 * weights, ADAM * added, lora.casts, lora.activations),
        (f"LoRA, FSDP2 over {n}", sharded, ADAM * added, lora.casts, lora.activations),
        ("LoRA, quantize=4bit", quantized, ADAM * added, 0.0, lora.activations),
    ):
        parts = (held, trained, casts, activations * tokens)
        numbers = " | ".join(f"{part / GB:.1f}" for part in (*parts, sum(parts)))
        print(f"| {name} | {numbers} |")


if __name__ == "__main__":
    main()
