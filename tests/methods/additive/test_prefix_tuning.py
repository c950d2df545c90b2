"""Prefix tuning: PEFT's own, what it computes, and where it cannot go."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu, layer_norm, linear
from torch.testing import assert_close

import iwlora
from commands import write_recipe
from iwlora.cli import main
from iwlora.errors import IwloraError
from iwlora.methods.additive.prefix_tuning import Prefix
from iwlora.methods.tiny_models import ARCHITECTURES, tiny_config, tiny_model
from iwlora.sites import sites

pytestmark = pytest.mark.quick

TOKENS = 3


def batch(rows: int = 4) -> tuple[Tensor, Tensor]:
    """(ids, attention mask), the second row two words shorter."""
    ids = torch.randint(6, 60, (rows, 7), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    ids[1, -2:], mask[1, -2:] = 0, 0
    return ids, mask


def descend(model: Any) -> None:
    """Two steps of a training loop that knows no method."""
    ids, mask = batch()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(2):
        logits = model(input_ids=ids, attention_mask=mask).logits
        cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama"])
def test_it_trains_as_pefts_own_does(architecture: str, tmp_path: Path) -> None:
    model = tiny_model(architecture)
    attached = Prefix(num_virtual_tokens=TOKENS).attach(model, sites(model), seed=7)
    plain = tiny_model(architecture)
    torch.manual_seed(7)
    theirs = get_peft_model(plain, PrefixTuningConfig("SEQ_CLS", num_virtual_tokens=TOKENS))
    assert {name for name, p in theirs.named_parameters() if p.requires_grad} == set(
        attached.trainable
    )
    descend(attached.model)
    descend(theirs)
    expected = dict(theirs.named_parameters())
    for name in attached.trainable:
        assert torch.equal(attached.model.get_parameter(name), expected[name])
    attached.save(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_model(architecture, head_seed=9), tmp_path / "adapter")
    ids, mask = batch()
    with torch.no_grad():
        assert_close(
            loaded(ids, mask).logits, theirs.eval()(input_ids=ids, attention_mask=mask).logits
        )


def with_prefixes(p: dict[str, Tensor], prefix: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Logits of the tiny BERT whose layers attend to ``prefix`` (tokens, 2 · layers, 2, 8) too."""
    rows, length = ids.shape
    at = "bert.embeddings"
    x = p[f"{at}.word_embeddings.weight"][ids] + p[f"{at}.token_type_embeddings.weight"][0]
    x = x + p[f"{at}.position_embeddings.weight"][TOKENS : TOKENS + length]

    def affine(place: str, x: Tensor) -> Tensor:
        return linear(x, p[f"{place}.weight"], p[f"{place}.bias"])

    def norm(place: str, x: Tensor) -> Tensor:
        return layer_norm(x, (16,), p[f"{place}.weight"], p[f"{place}.bias"], 1e-12)

    x = norm(f"{at}.LayerNorm", x)
    hidden = torch.cat([torch.ones(rows, TOKENS), mask], 1)[:, None, None] == 0
    for block in range(2):
        at = f"bert.encoder.layer.{block}"
        q, k, v = (
            affine(f"{at}.attention.self.{name}", x).view(rows, length, 2, 8).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        before = prefix[:, 2 * block : 2 * block + 2].permute(1, 2, 0, 3)[:, None]
        k, v = (
            torch.cat([own.expand(rows, -1, -1, -1), of_words], 2)
            for own, of_words in zip(before, (k, v), strict=True)
        )
        shares = (q @ k.mT / 8**0.5).masked_fill(hidden, -torch.inf).softmax(-1)
        mixed = (shares @ v).transpose(1, 2).reshape(x.shape)
        x = norm(
            f"{at}.attention.output.LayerNorm", x + affine(f"{at}.attention.output.dense", mixed)
        )
        inner = gelu(affine(f"{at}.intermediate.dense", x))
        x = norm(f"{at}.output.LayerNorm", x + affine(f"{at}.output.dense", inner))
    return affine("classifier", torch.tanh(affine("bert.pooler.dense", x[:, 0])))


def test_each_layer_attends_to_its_prefix() -> None:
    model = tiny_model("bert").double()
    plain = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    attached = Prefix(num_virtual_tokens=TOKENS).attach(model, sites(model), seed=0)
    prefix = attached.model.get_parameter(attached.adapter[0]).double()
    attached.model.double()
    ids, mask = batch()
    with torch.no_grad():
        outcome = attached.model(input_ids=ids, attention_mask=mask).logits
        by_hand = with_prefixes(plain, prefix.view(TOKENS, 4, 2, 8), ids, mask)
        assert_close(outcome, by_hand, rtol=1e-8, atol=1e-8)
        other = with_prefixes(plain, -prefix.view(TOKENS, 4, 2, 8), ids, mask)
    assert (other - outcome).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("architecture", "positions"), [("bert", 64), ("roberta", 63), ("gpt2", 64)]
)
def test_no_more_words_than_positions_are_left(architecture: str, positions: int) -> None:
    model = tiny_model(architecture)
    attached = Prefix(num_virtual_tokens=TOKENS).attach(model, sites(model), seed=0)
    ids = torch.full((1, positions - TOKENS), 6)
    attached.model(input_ids=ids)
    with pytest.raises(
        IwloraError, match=rf"{positions - 2} tokens and 3 virtual .* {positions} pos"
    ):
        attached.model(input_ids=torch.full((1, positions - TOKENS + 1), 6))


def test_grouped_heads_have_fewer_parameters() -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
    )
    model = LlamaForSequenceClassification(config)
    predicted = Prefix(num_virtual_tokens=TOKENS).parameters(model, [])
    assert predicted == TOKENS * 3 * 2 * 2 * 8
    assert (
        Prefix(num_virtual_tokens=TOKENS).attach(model, sites(model), seed=0).count() == predicted
    )


REFUSED = {
    "deberta-v2": "DebertaV2ForSequenceClassification does not accept .*; take lora or parallel$",
    "t5": "the encoder of T5ForSequenceClassification.*; take lora or parallel$",
    "bart": "the encoder of BartForSequenceClassification.*; take lora or parallel$",
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_unsupported_architectures_are_reported(architecture: str) -> None:
    model = tiny_model(architecture)
    if architecture not in REFUSED:
        Prefix().check_model(model, sites(model))
        return
    for ask in (Prefix().check_model, lambda *at: Prefix().attach(*at, seed=0)):
        with pytest.raises(IwloraError, match=REFUSED[architecture]):
            ask(model, sites(model))


def test_a_cache_that_peft_does_not_know_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5.24 has renamed the argument; PEFT 0.21 looks for the former name."""
    model = tiny_model("gpt2")

    def forward(input_ids: Any, cache: Any = None) -> None:
        """As the renamed argument stands in the signature."""

    for each in (model, model.transformer):
        monkeypatch.setattr(each, "forward", forward)
    with pytest.raises(IwloraError, match=r"calls its past_key_values cache; pip install 'tr"):
        Prefix().check_model(model, sites(model))


def test_span_answers_need_token_types() -> None:
    """PEFT's model for question answering takes them, and does not pass them on."""
    from transformers import AutoModelForQuestionAnswering

    config = tiny_config("bert")
    model = AutoModelForQuestionAnswering.from_config(config).eval()
    with pytest.raises(IwloraError, match=r"not pass token_type_ids on; take lora or parallel$"):
        Prefix().check_model(model, sites(model))
    peft_model = get_peft_model(
        model, PrefixTuningConfig(task_type="QUESTION_ANS", num_virtual_tokens=TOKENS)
    )
    ids, types = batch()[0], torch.tensor([[0, 0, 0, 1, 1, 1, 1]]).expand(4, -1)
    with torch.no_grad():
        without, given = peft_model(input_ids=ids), peft_model(input_ids=ids, token_type_ids=types)
    assert torch.equal(without.start_logits, given.start_logits), "PEFT passes them: allow it again"
    config.type_vocab_size = 1
    model = AutoModelForQuestionAnswering.from_config(config)
    Prefix().check_model(model, sites(model))


def test_a_run_and_a_comparison_refuse_it_before_anything_is_trained(
    tiny_deberta: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {"model": str(tiny_deberta), "task": reviews, "method": "prefix"}
    settings["train"] = {"max_length": 32}
    with pytest.raises(IwloraError, match=REFUSED["deberta-v2"]):
        iwlora.train(iwlora.build_recipe(settings), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    arms = {"methods": ["lora", "prefix"], "seeds": [0, 1]}
    file = write_recipe(tmp_path / "r.yaml", {"model": settings["model"], "task": reviews, **arms})
    assert main(["compare", str(file), "--out", str(tmp_path / "comparison")]) == 2
    assert re.search(REFUSED["deberta-v2"], capsys.readouterr().err.strip())
    assert not list(tmp_path.glob("comparison/**/status.json"))
