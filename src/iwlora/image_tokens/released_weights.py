"""The transformers of MaskGIT and of Taming Transformers, from their released weights.

The names and shapes are those of the released code. They were never read from a released file,
only from files with random weights: see :func:`convert`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from iwlora.errors import IwloraError, raise_all
from iwlora.image_tokens.codebook import Codebook
from iwlora.image_tokens.image_codes import ImageCodes
from iwlora.inputs.tensors import load_arrays, load_numpy_arrays

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Source = Literal["maskgit", "taming"]
Arrays = Mapping[str, npt.NDArray[Any]]
Converted = tuple["PreTrainedConfig", dict[str, npt.NDArray[Any]]]

_OF_FLAX = re.compile(r"^(target/)?(params/)?")
_OF_TAMING = "transformer."


def convert(
    file: str | Path,
    folder: str | Path,
    source: Source,
    codes: int,
    heads: int | None = None,
    codebook: Codebook | None = None,
) -> Path:
    """Write the released transformer in a file as a model folder of transformers.

    Without a codebook the model computes the logits of codes, and a run on images is refused.

    Args:
        file: safetensors, or NumPy's ``.npz``, with the released names, joined by ``/`` for MaskGIT
            and ``.`` for Taming Transformers. Pickles must be converted elsewhere.
        folder: To write.
        source: maskgit: ``Transformer`` of Flax; taming: ``GPT`` of PyTorch.
        codes: K, the codes of the codebook; further ids are classes and the mask.
        heads: Of attention, which the weights of Taming Transformers do not say.
        codebook: What the codes of the transformer are, if it can be read: its VQ model, such as a
            VqCodebook.

    Raises:
        IwloraError: The file cannot be read, lacks weights, or has codes of another codebook.

    Source:
        github.com/google-research/maskgit, ``maskgit/nets/maskgit_transformer.py``;
        github.com/CompVis/taming-transformers, ``taming/modules/transformer/mingpt.py``.
    """
    from safetensors.numpy import save_file

    arrays = load_numpy_arrays(file) if str(file).endswith(".npz") else load_arrays(file)
    if source == "maskgit":
        config, weights = of_maskgit(arrays, codes)
    elif heads is None:
        raise IwloraError("heads: missing; the weights of Taming Transformers do not say it")
    else:
        config, weights = of_taming(arrays, codes, heads)
    if codebook is not None:
        _check_codebook(ImageCodes.of(config), codebook)
        ImageCodes.of_codebook(codebook).put_into(config)
        codebook.save_pretrained(folder)
    config.save_pretrained(folder)
    stored = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    save_file(stored, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    return Path(folder)


def _check_codebook(read: ImageCodes, codebook: Codebook) -> None:
    if (read.count, read.tokens) != (codebook.count, codebook.tokens):
        raise IwloraError(
            f"the transformer reads images of {read.tokens} codes out of {read.count:,}, and the "
            f"codebook has {codebook.tokens} out of {codebook.count:,}"
        )


def of_maskgit(arrays: Arrays, codes: int) -> Converted:
    """(configuration, weights) of BERT for the codes of MaskGIT's Flax parameters.

    Its ids are K codes, C classes and the mask. The class token of class c is the embedding of id
    K + c at position 0, which is the class prompt LayerNorm(E[c]) here. So the classes of the
    release are kept.
    """
    from transformers import BertConfig

    found = {_OF_FLAX.sub("", name.replace(".", "/")): array for name, array in arrays.items()}
    take = Taker(found)
    word = take("Embed_0/word_embeddings/embedding")
    position = take("Embed_0/position_embeddings/embedding")
    blocks = sum(bool(re.fullmatch(r"TransformerLayer_\d+/.*/query/kernel", n)) for n in found)
    query = take("TransformerLayer_0/Attention_0/self_attention/query/kernel")
    inner = take("TransformerLayer_0/Mlp_0/intermediate_output/kernel")
    take.check()
    (vocabulary, width), classes = word.shape, len(word) - codes - 1
    if classes < 1:
        raise IwloraError(
            f"codes={codes}: the file has {vocabulary} ids, which are those of the codes, of the "
            "classes and of the mask"
        )
    weights = {
        "bert.embeddings.word_embeddings.weight": word,
        "bert.embeddings.position_embeddings.weight": position,
        "bert.embeddings.token_type_embeddings.weight": np.zeros((1, width), word.dtype),
        "class_prompts.classes.weight": word[codes:-1] + position[0],
        "cls.predictions.bias": take("MlmLayer_0/mlm_bias/bias"),
    }
    for norm in ("bert.embeddings.LayerNorm", "class_prompts.norm"):
        weights |= take.norm("Embed_0/embeddings_ln", norm)
    weights |= take.dense("MlmLayer_0/mlm_dense", "cls.predictions.transform.dense")
    weights |= take.norm("MlmLayer_0/mlm_ln", "cls.predictions.transform.LayerNorm")
    for number in range(blocks):
        old, new = f"TransformerLayer_{number}", f"bert.encoder.layer.{number}"
        attention = f"{old}/Attention_0/self_attention"
        for part in ("query", "key", "value"):
            weights |= take.dense(f"{attention}/{part}", f"{new}.attention.self.{part}", width)
        weights |= take.dense(f"{attention}/out", f"{new}.attention.output.dense", width)
        weights |= take.norm(
            f"{old}/Attention_0/attention_output_ln", f"{new}.attention.output.LayerNorm"
        )
        weights |= take.dense(f"{old}/Mlp_0/intermediate_output", f"{new}.intermediate.dense")
        weights |= take.dense(f"{old}/Mlp_0/layer_output", f"{new}.output.dense")
        weights |= take.norm(f"{old}/Mlp_0/layer_output_ln", f"{new}.output.LayerNorm")
    take.check()
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=query.shape[1],
        intermediate_size=inner.shape[1],
        hidden_act="gelu_pytorch_tanh",
        max_position_embeddings=len(position),
        type_vocab_size=1,
        layer_norm_eps=1e-12,
        pad_token_id=None,
    )
    config.num_labels = classes
    ImageCodes(codes, len(position) - 1, "").put_into(config)
    return config, weights


def of_taming(arrays: Arrays, codes: int, heads: int) -> Converted:
    """(configuration, weights) of GPT-2 for the codes of a minGPT of Taming Transformers.

    Its class tokens are rows of the table of the codes. Here a class prompt is normalized, so that
    those of the release are not kept: the class prompts are new, and trained with each task.
    """
    from transformers import GPT2Config

    take = Taker({name.removeprefix(_OF_TAMING): array for name, array in arrays.items()})
    word, position = take("tok_emb.weight"), take("pos_emb")
    blocks = sum(bool(re.fullmatch(r"blocks\.\d+\.ln1\.weight", name)) for name in take.arrays)
    take.check()
    weights = {
        "transformer.wte.weight": word,
        "transformer.wpe.weight": position[0],
        "lm_head.weight": take("head.weight"),
        **take.same("ln_f", "transformer.ln_f"),
    }
    for number in range(blocks):
        old, new = f"blocks.{number}", f"transformer.h.{number}"
        parts = [f"{old}.attn.{part}" for part in ("query", "key", "value")]
        weights[f"{new}.attn.c_attn.weight"] = np.concatenate(
            [take(f"{part}.weight").T for part in parts], axis=1
        )
        weights[f"{new}.attn.c_attn.bias"] = np.concatenate([take(f"{p}.bias") for p in parts])
        for former, now in (("attn.proj", "attn.c_proj"), ("mlp.0", "mlp.c_fc")):
            weights |= take.transposed(f"{old}.{former}", f"{new}.{now}")
        weights |= take.transposed(f"{old}.mlp.2", f"{new}.mlp.c_proj")
        weights |= take.same(f"{old}.ln1", f"{new}.ln_1") | take.same(f"{old}.ln2", f"{new}.ln_2")
    take.check()
    width = word.shape[1]
    if width % heads or not 2 <= codes <= len(word):
        raise IwloraError(
            f"codes={codes} and heads={heads}: the file has {len(word)} ids and states of "
            f"{width} values"
        )
    config = GPT2Config(
        vocab_size=len(word),
        n_embd=width,
        n_layer=blocks,
        n_head=heads,
        n_inner=len(take("blocks.0.mlp.0.bias")),
        n_positions=position.shape[1],
        activation_function="gelu",
        layer_norm_epsilon=1e-5,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    ImageCodes(codes, position.shape[1], "").put_into(config)
    return config, weights


class Taker:
    """Takes arrays by their released names, and notes those that are missing."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays, self._missing = arrays, list[str]()

    def __call__(self, name: str) -> npt.NDArray[Any]:
        if name not in self.arrays:
            self._missing.append(name)
            return np.zeros((1, 1, 1), np.float32)
        return self.arrays[name]

    def check(self) -> None:
        """Raise ``IwloraError`` that names what is missing."""
        raise_all([f"the file has no weights {name}" for name in self._missing[:5]])

    def norm(self, old: str, new: str) -> dict[str, npt.NDArray[Any]]:
        """A normalization of Flax."""
        return {f"{new}.weight": self(f"{old}/scale"), f"{new}.bias": self(f"{old}/bias")}

    def dense(self, old: str, new: str, width: int | None = None) -> dict[str, npt.NDArray[Any]]:
        """A linear layer of Flax; with ``width`` one of attention, whose heads have an axis."""
        kernel, bias = self(f"{old}/kernel"), self(f"{old}/bias")
        if width is not None and kernel.size == width**2:
            kernel, bias = kernel.reshape(width, width), bias.reshape(width)
        return {f"{new}.weight": kernel.T, f"{new}.bias": bias}

    def same(self, old: str, new: str) -> dict[str, npt.NDArray[Any]]:
        """A layer of PyTorch."""
        return {f"{new}.{part}": self(f"{old}.{part}") for part in ("weight", "bias")}

    def transposed(self, old: str, new: str) -> dict[str, npt.NDArray[Any]]:
        """A linear layer of PyTorch as GPT-2 stores it."""
        return {f"{new}.weight": self(f"{old}.weight").T, f"{new}.bias": self(f"{old}.bias")}
