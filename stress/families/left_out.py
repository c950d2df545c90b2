"""The families that are left out, each with its reason."""

from __future__ import annotations

from families.outcomes import LeftOut

_INCOMPLETE = "transformers builds no model from the default configuration of its class"
_SIZES = "its sizes depend on each other in a way that names of fields do not show"
_INPUTS = "transformers computes nothing from texts alone"


def _transformers(families: str, message: str, reason: str) -> LeftOut:
    return LeftOut(families, message, reason, result="not computed")


LEFT_OUT: tuple[LeftOut, ...] = (
    _transformers("layoutlmv2", "requires the detectron2 library", "needs the package detectron2"),
    _transformers("gemma3n", "requires the timm library", "needs the package timm"),
    _transformers("cohere_compass_text", "KeyError: 'full_attention'", _INCOMPLETE),
    _transformers("blt", "'BltConfig' object has no attribute", _INCOMPLETE),
    _transformers("dbrx", "'DbrxAttentionConfig' object has no attribute", _INCOMPLETE),
    _transformers("lfm2_moe", "'NoneType' object is not subscriptable", _INCOMPLETE),
    _transformers("qwen4_exp(_text)?", "'NoneType' and 'NoneType'", _INCOMPLETE),
    _transformers("gemma4_assistant", "hidden_size_per_layer_input must be 0", _INCOMPLETE),
    _transformers("musicgen(_melody)?", "object has no attribute 'dropout'", _INCOMPLETE),
    _transformers("emu3|mllama", "Unrecognized configuration class", _INCOMPLETE),
    _transformers("gemma4_unified_assistant", "layer types producing a cache", _INCOMPLETE),
    _transformers("dots3_note(_text)?", "SWA head_dim must equal", _SIZES),
    _transformers("xlstm", "matC_old has wrong shape", _SIZES),
    _transformers("zamba", "issue with your definition of `tie_weights_keys`", _SIZES),
    _transformers("reformer", "config.axial_pos_embds factors", _SIZES),
    _transformers("layoutlmv3", "must match the size of tensor b", _SIZES),
    _transformers("rwkv", "modified by an inplace operation", "transformers cannot train it"),
    _transformers("xmod", "Input language unknown", _INPUTS),
    _transformers("git", "Expected input batch_size", _INPUTS),
    _transformers("voxtral_realtime", "input_features or encoder_inputs_embeds", _INPUTS),
    _transformers("bros", "You have to specify bbox", _INPUTS),
    _transformers("lxmert", "`visual_feats` cannot be `None`", _INPUTS),
    LeftOut(
        "ibert|squeezebert",
        "has no linear layer inside a repeated block",
        "its matrices are layers of its own: integer arithmetic, convolutions",
    ),
    LeftOut(
        ".*audio|.*asr|.*speech.*|.*flamingo.*|voxtral|moss_.*",
        "transformers has no AutoModelForCausalLM of this type",
        "a decoder that reads speech: no class of transformers for decoders loads it",
    ),
    LeftOut(
        "modernvbert",
        "another module ends like it: model.vision_model.head",
        "PEFT cannot tell its classifier from the head of its vision tower",
    ),
    LeftOut(
        "phimoe",
        "mlp.router",
        "its routers have a gradient only from the noise of training",
        result="wrong",
    ),
    LeftOut(
        "laguna|inkling2_text",
        "of the exported adapter in PEFT",
        "PEFT renames tensors of the adapter, warns, and does not load these",
        result="wrong",
    ),
)
