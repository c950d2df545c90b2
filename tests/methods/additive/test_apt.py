"""À-la-carte prompts: against one dense mask over tokens, prompts and memory, in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.testing import assert_close

from iwlora.errors import IwloraError
from iwlora.head import add_to_head
from iwlora.methods.additive.apt import Apt
from iwlora.methods.contract import seeded
from iwlora.methods.tiny_models import IMAGE_ARCHITECTURES, tiny_batch, tiny_model
from iwlora.sites import blocks
from iwlora.sites import sites as find_sites

pytestmark = pytest.mark.quick

TEXTS, IMAGES = ("bert", "roberta", "electra"), ("vit", "dinov2")
MUTANTS = (
    "memory is propagated",
    "prompts see each other",
    "tokens see prompts",
    "prompts see padding",
)
Source = Mapping[str, Tensor]
"""{name of a parameter: its value}: the prompts, the memory and the head."""


def attached(architecture: str, **options: Any) -> Any:
    """In float64, with weights so large that attention is far from uniform."""
    model = tiny_model(architecture).double()
    with torch.no_grad():
        for site in find_sites(model):
            site.layer.weight.mul_(10)  # type: ignore[union-attr, operator]
    return Apt(**options).attach(model, find_sites(model), seed=1)


def drawn_sources(model: Any, count: int) -> list[Source]:
    """Sources with 1, 2, ... prompts and 3, 4, ... keys of memory, each with a head of its own."""
    sources = []
    with seeded(3):
        for number in range(count):
            shapes = {n: list(p.shape) for n, p in model.named_parameters() if p.requires_grad}
            for name, shape in shapes.items():
                if name.endswith(".apt.prompts"):
                    shape[0] = 1 + number
                if name.endswith(".apt.memory"):
                    shape[1] = 3 + number
            drawn = {name: torch.randn(shape).double() for name, shape in shapes.items()}
            sources.append(drawn)
    return sources


def batch_of(architecture: str) -> dict[str, Tensor]:
    """Two rows; of texts, the second one is padded."""
    batch = tiny_batch(architecture)
    del batch["labels"]
    if "pixel_values" in batch:
        return {"pixel_values": batch["pixel_values"].double()}
    batch["attention_mask"][1, -3:] = 0
    return batch


def answers(model: Any, batch: Mapping[str, Tensor], sources: Sequence[Source]) -> list[Tensor]:
    """The logits of each source, in one pass of the tokens."""
    logits = []
    with Apt().one_pass(model), torch.no_grad():
        for source in sources:
            for name, value in source.items():
                model.get_parameter(name).data = value
            logits.append(model(**batch).logits)
    return logits


# The implementation to compare with: the rows [z; p_1; m_1; ...; p_n; m_n] and what each may read.


def dense(
    model: Any, batch: Mapping[str, Tensor], sources: Sequence[Source], mutant: str = ""
) -> list[Tensor]:
    """The logits of each source."""
    z = embedded(model, batch)
    tokens, rows = z.shape[1], len(z)
    parts = [[value_of(source, part) for part in ("prompts", "memory")] for source in sources]
    x, ends = z, []
    for prompts, memory in parts:
        start = x.shape[1]
        x = torch.cat([x, *(y.expand(rows, -1, -1) for y in (prompts, memory[0]))], dim=1)
        ends.append((start, start + len(prompts), x.shape[1]))
    visible = torch.zeros(rows, x.shape[1], x.shape[1], dtype=torch.bool)
    real = batch.get("attention_mask", torch.ones(rows, tokens)).bool()
    visible[:, :, :tokens] = real[:, None]
    for start, middle, end in ends:
        visible[:, start:end, start:end] = True
        if mutant == "prompts see padding":
            visible[:, start:middle, :tokens] = True
        if mutant == "tokens see prompts":
            visible[:, :tokens, start:middle] = True
        if mutant == "prompts see each other":
            for other, other_middle, _ in ends:
                visible[:, start:middle, other:other_middle] = True
    for layer, block in enumerate(blocks(model.base_model)):
        for (_, memory), (_, middle, end) in zip(parts, ends, strict=True):
            if mutant != "memory is propagated":
                x = torch.cat(
                    [x[:, :middle], memory[layer].expand(rows, -1, -1), x[:, end:]], dim=1
                )
        x = block_output(model, block, layer, x, visible)
    logits = []
    for source, (start, middle, _) in zip(sources, ends, strict=True):
        prompt = x[:, start:middle].mean(dim=1, keepdim=True)
        logits.append(head(model, source, torch.cat([prompt, x[:, 1:tokens]], dim=1)))
    return logits


def value_of(source: Source, part: str) -> Tensor:
    (value,) = [value for name, value in source.items() if name.endswith(f".apt.{part}")]
    return value


def embedded(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    backbone = model.base_model
    if "pixel_values" in batch:
        return backbone.embeddings(batch["pixel_values"])  # type: ignore[no-any-return]
    z = backbone.embeddings(batch["input_ids"])
    project = getattr(backbone, "embeddings_project", nn.Identity())
    return project(z)  # type: ignore[no-any-return]


def block_output(model: Any, block: Any, layer: int, x: Tensor, visible: Tensor) -> Tensor:
    linear = {s.kind: s.layer for s in find_sites(model) if s.depth == layer}
    gelu = nn.functional.gelu
    if hasattr(
        getattr(block.attention, "output", None), "LayerNorm"
    ):  # BERT: the sum is normalized
        attended = linear["attention_output"](attention(model, linear, x, visible))
        x = block.attention.output.LayerNorm(x + attended)
        inner = linear["ffn_down"](gelu(linear["ffn_up"](x)))
        return block.output.LayerNorm(x + inner)  # type: ignore[no-any-return]
    norms = [module for module in block.children() if isinstance(module, nn.LayerNorm)]
    scales = [getattr(block, f"layer_scale{n}", nn.Identity()) for n in (1, 2)]
    attended = linear["attention_output"](attention(model, linear, norms[0](x), visible))
    x = x + scales[0](attended)
    inner = linear["ffn_down"](gelu(linear["ffn_up"](norms[1](x))))
    return x + scales[1](inner)  # type: ignore[no-any-return]


def attention(model: Any, linear: Mapping[str, Any], x: Tensor, visible: Tensor) -> Tensor:
    """softmax(q Kᵀ / √d) V over the visible rows, one head at a time."""
    q, k, v = (
        linear[kind](x).chunk(model.config.num_attention_heads, -1)
        for kind in ("query", "key", "value")
    )
    heads = []
    for query, key, value in zip(q, k, v, strict=True):
        scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        heads.append(scores.masked_fill(~visible, -torch.inf).softmax(-1) @ value)
    return torch.cat(heads, -1)


def head(model: Any, source: Source, x: Tensor) -> Tensor:
    """The logits of the rows [p; z_1; ...] with the head of a source."""
    backbone, prefix = model.base_model, f"{model.base_model_prefix}."
    weights = {n: value for n, value in source.items() if not n.startswith(prefix)}

    def layer(name: str, y: Tensor) -> Tensor:
        return nn.functional.linear(y, weights[f"{name}.weight"], weights[f"{name}.bias"])

    if model.config.model_type == "bert":
        return layer("classifier", torch.tanh(backbone.pooler.dense(x[:, 0])))
    if model.config.model_type in ("roberta", "electra"):
        act = torch.tanh if model.config.model_type == "roberta" else nn.functional.gelu
        return layer("classifier.out_proj", act(layer("classifier.dense", x[:, 0])))
    x = backbone.layernorm(x)
    if model.config.model_type == "vit":
        return layer("classifier", x[:, 0])
    return layer("classifier", torch.cat([x[:, 0], x[:, 1:].mean(dim=1)], dim=1))


@pytest.mark.parametrize("architecture", TEXTS + IMAGES)
def test_it_equals_one_dense_mask_and_no_mutant_does(architecture: str) -> None:
    model, batch = attached(architecture).model, batch_of(architecture)
    for count in (1, 2, 3, 4):
        sources = drawn_sources(model, count)
        computed = answers(model, batch, sources)
        assert_close(computed, dense(model, batch, sources), rtol=1e-12, atol=1e-12)
    for mutant in MUTANTS:
        wrong = dense(model, batch, sources, mutant)
        has_effect = architecture in TEXTS or mutant != "prompts see padding"
        differences = [(a - b).abs().max().item() for a, b in zip(computed, wrong, strict=True)]
        assert (min(differences) > 1e-4) == has_effect, (mutant, differences)


@pytest.mark.parametrize("architecture", ["bert", "dinov2"])
def test_gradients_equal_those_of_the_dense_mask(architecture: str) -> None:
    result, batch = attached(architecture, prompts=2, memory=3), batch_of(architecture)
    source = {name: result.model.get_parameter(name) for name in result.trainable}
    with seeded(0):
        weights = torch.randn(2, 3).double()
    ours = (result.model(**batch).logits * weights).sum()
    theirs = (dense(result.model, batch, [source])[0] * weights).sum()
    first, second = (torch.autograd.grad(y, list(source.values())) for y in (ours, theirs))
    assert_close(first, second, rtol=1e-9, atol=1e-12)
    assert all(gradient.abs().max() > 0 for gradient in first)


@pytest.mark.parametrize("architecture", TEXTS + IMAGES)
def test_tokens_are_those_of_the_frozen_model_bit_for_bit(architecture: str) -> None:
    """Padded or not, in float32, with all sources."""
    padded = [batch_of(architecture)] if architecture in TEXTS else []
    for inputs in [tiny_batch(architecture), *padded]:
        frozen = tiny_model(architecture)
        model = Apt(prompts=3, memory=2).attach(tiny_model(architecture), [], seed=1).model
        expected, computed = outputs_of_blocks(frozen, inputs), outputs_of_blocks(model, inputs)
        assert len(expected) == len(blocks(frozen))
        for one, other in zip(expected, computed, strict=True):
            assert torch.equal(one, other)


def outputs_of_blocks(model: Any, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """The outputs for the tokens, of which there are 8 in a text and 17 in an image."""
    outputs: list[Tensor] = []

    def note(block: nn.Module, args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.shape[1] in (8, 17):
            outputs.append(hidden)

    for block in blocks(model.base_model):
        block.register_forward_hook(note, prepend=True)
    with torch.no_grad():
        model(**inputs)
    return outputs


@pytest.mark.parametrize("architecture", TEXTS + IMAGES)
def test_of_the_memory_only_keys_and_values_are_computed(architecture: str) -> None:
    model = Apt(prompts=3, memory=2).attach(tiny_model(architecture), [], seed=1).model
    finished: list[int] = []
    for block in blocks(model.base_model):
        block.register_forward_hook(
            lambda _, args, output: finished.append(args[0].shape[1]), prepend=True
        )
    model(**tiny_batch(architecture))
    tokens = finished[0]
    assert Counter(finished) == {tokens: len(finished) // 2, 3: len(finished) // 2}


@pytest.mark.parametrize("architecture", TEXTS + IMAGES)
def test_dropout_reaches_the_prompts_and_not_the_tokens(architecture: str) -> None:
    """Whatever the mode in which the method is attached."""
    inputs = tiny_batch(architecture)
    expected = outputs_of_blocks(tiny_model(architecture), inputs)
    for was_training in (False, True):
        model = dropping(tiny_model(architecture)).train(was_training)
        Apt(prompts=3, memory=2).attach(model, [], seed=1)
        assert model.training == was_training
        for mode in (was_training, True):
            for one, other in zip(
                expected, outputs_of_blocks(model.train(mode), inputs), strict=True
            ):
                assert torch.equal(one, other)
        # The dropout of the head would hide that of the prompts.
        base = model.base_model
        with torch.no_grad():
            drawn = [base(**without_labels(inputs))[0][:, 0] for _ in range(2)]
            assert not torch.equal(*drawn)
            assert not [m for block in blocks(base) for m in block.modules() if m.training]
            model.eval()
            assert torch.equal(*(base(**without_labels(inputs))[0][:, 0] for _ in range(2)))


def dropping(model: Any) -> Any:
    """The model with dropout, also in attention."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
        for name in ("dropout_prob", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.5)
    return model


def without_labels(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if name != "labels"}


@pytest.mark.parametrize("architecture", ["electra", "vit"])
def test_the_prompt_starts_at_the_first_token(architecture: str) -> None:
    result, batch = attached(architecture, prompts=2), batch_of(architecture)
    prompts = result.model.base_model.apt.prompts
    noise = prompts.detach().clone()
    assert 0.01 < noise.std() < 0.03
    result.initialize([batch, None])
    first = embedded(result.model, batch)[:, 0].mean(dim=0)
    assert_close(prompts.detach(), noise + first)


def test_what_it_does_not_know_is_refused() -> None:
    for architecture in ("deberta-v2", "gpt2", "llama", *IMAGE_ARCHITECTURES):
        if architecture not in IMAGES:
            model = tiny_model(architecture, blocks=1)
            with pytest.raises(IwloraError, match="DINOv2 only; take lora or head"):
                Apt().check_model(model, [])
    from transformers import BertForTokenClassification

    readers = BertForTokenClassification(tiny_model("bert").config)
    with pytest.raises(IwloraError, match="head of BertForTokenClassification reads every token"):
        Apt().check_model(readers, [])
    for path in ("bert.encoder.layer.0.output.dense", "bert.embeddings", "bert.encoder"):
        model = tiny_model("bert")
        add_to_head(model, [path], pretrained=True)
        with pytest.raises(IwloraError, match=f"and {path} would train; remove it"):
            Apt().check_model(model, [])
    model = tiny_model("bert")
    add_to_head(model, ["bert.pooler"], pretrained=True)
    Apt().check_model(model, [])
    with pytest.raises(IwloraError, match="memory=1025 was given; accepted are 1 to 1,024"):
        Apt().sized(1025).attach(model, [], seed=0)
    with pytest.raises(ValidationError, match="less than or equal to 1024"):
        Apt(prompts=10**9)
