"""Codebooks of trained VQ models, from encoding to generated images; their networks are random."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.janus import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from commands import call, check_plain
from image_drawings import drawn, save_images
from iwlora.errors import IwloraError
from iwlora.image_tokens.codebooks.load import load_codebook
from iwlora.image_tokens.codebooks.vq_model import VqCodebook

CODES, SIZE, PATCH = 20, 12, 2


def save_janus(folder: Path) -> JanusVQVAE:
    """A tiny VQ model with random weights, as transformers saves it."""
    sizes = {"embed_dim": 4, "num_embeddings": CODES, "latent_channels": 32, "num_patches": 3}
    layers = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1}
    torch.manual_seed(0)
    network = JanusVQVAE(JanusVQVAEConfig(**sizes, **layers))
    network.save_pretrained(folder)
    return network


@pytest.fixture(scope="module")
def janus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("janus")
    save_janus(folder)
    return folder


@pytest.mark.quick
def test_codes_and_images_are_those_of_the_network(tmp_path: Path) -> None:
    network = save_janus(tmp_path / "janus")
    network.quantize.quant_state_dims = [SIZE // PATCH] * 2
    codebook = VqCodebook(tmp_path / "janus", SIZE)
    assert (codebook.count, codebook.tokens, codebook.size) == (CODES, 36, SIZE)
    image = drawn(3, True)
    pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1)[None] / 127.5 - 1).float()
    with torch.inference_mode():
        codes = network.encode(pixels).image_tokens
        expected = network.decode(codes[None])[0].permute(1, 2, 0)
    assert codebook.encode(image) == codes.tolist()
    light = ((expected + 1) / 2 * 255).clamp(0, 255).round().numpy()
    np.testing.assert_array_equal(codebook.decode(codes.tolist()), light)
    dark = VqCodebook(tmp_path / "janus", SIZE, darkest=0)
    with torch.inference_mode():
        assert dark.encode(image) == network.encode((pixels + 1) / 2).image_tokens.tolist()
    for bad, problem in (([0] * 35, "35 codes were given"), ([CODES] * 36, "another codebook")):
        with pytest.raises(IwloraError, match=problem):
            codebook.decode(bad)


@pytest.mark.parametrize("options", [{}, {"norm_type": "spatial"}])
def test_codes_and_images_are_those_of_diffusers(options: dict[str, str], tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="pip install 'iwlora[vq]'")
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"]}
    network = diffusers.VQModel(
        **{name: 2 * types for name, types in blocks.items()},
        **{"block_out_channels": [32, 32], "num_vq_embeddings": CODES, **options},
    ).eval()
    network.quantize.embedding.weight.data = torch.randn(CODES, 3)
    network.save_pretrained(tmp_path)
    codebook, image = VqCodebook(tmp_path, SIZE), drawn(3, True)
    pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1)[None] / 127.5 - 1).float()
    with torch.inference_mode():
        codes = network.quantize(network.encode(pixels).latents)[2][2].tolist()
        expected = network(pixels).sample[0].permute(1, 2, 0)
    assert codebook.encode(image) == codes
    assert len(codes) == codebook.tokens == 36
    light = ((expected + 1) / 2 * 255).clamp(0, 255).round().numpy()
    np.testing.assert_array_equal(codebook.decode(codes), light)


def test_a_copy_has_the_same_digest_and_another_size_another(janus: Path, tmp_path: Path) -> None:
    codebook = VqCodebook(janus, SIZE)
    codebook.save_pretrained(tmp_path)
    loaded = load_codebook(tmp_path)
    assert loaded.digest == codebook.digest
    assert loaded.encode(drawn(3, True)) == codebook.encode(drawn(3, True))
    others = {VqCodebook(janus, 8).digest, VqCodebook(janus, SIZE, darkest=0).digest}
    assert len({codebook.digest, *others}) == 3


def test_a_run_learns_its_codes_and_generates_images(
    janus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, run, out = tmp_path / "model", tmp_path / "run", tmp_path / "out"
    small = ("--width=8", "--heads=1", "--blocks=1")
    made = call(capsys, "codes", "--vq", janus, "--size", SIZE, "--out", model, *small)
    assert made.code == 0, made.err
    images = save_images(tmp_path / "images", train=3, validation=1)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"model: {model}\ntask: {{train: {images}, kind: image-tokens}}\nmethod: full\n"
        "train: {epochs: 1, lr: 1.0e-2, batch_size: 6, precision: fp32}\n"
    )
    trained = call(capsys, "train", recipe, "--out", run, "--quiet")
    assert trained.code == 0, trained.err
    assert call(capsys, "verify", run).code == 0
    done = call(capsys, "generate", run, "--count", 2, "--out", out)
    assert done.code == 0, done.err
    with Image.open(out / "00000.png") as image:
        assert image.size == (SIZE, SIZE)
    exported = call(capsys, "export", run, "--to", tmp_path / "exported")
    assert exported.code == 0, exported.err
    assert load_codebook(tmp_path / "exported").digest == load_codebook(model).digest


def test_what_is_no_vq_model_is_refused(
    janus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads((janus / "config.json").read_text())
    weights = (janus / "model.safetensors").read_bytes()
    for number, (changes, kept, problem) in enumerate(
        (
            ({"_class_name": "VQModel"}, weights, "num_vq_embeddings=None"),
            ({"model_type": "chameleon_vqgan"}, weights, "accepted types of VQ models: janus"),
            ({"num_embeddings": 1}, weights, "num_embeddings=1"),
            ({"num_embeddings": 30}, weights, "cannot load the VQ model"),
            ({"channel_multiplier": 4}, weights, "channel_multiplier=4"),
            ({"base_channels": 2**20}, weights, "describes a model of"),
            ({"num_res_blocks": 10**9}, weights, "describes a model of"),
            ({}, weights[:-9], "is damaged"),
            ({}, None, "has none of model.safetensors"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(whole | changes))
        if kept is not None:
            (folder / "model.safetensors").write_bytes(kept)
        with pytest.raises(IwloraError, match=problem):
            VqCodebook(folder, SIZE)
    for options, problem in (
        (("--vq", janus), "--vq needs --size"),
        (("--vq", janus, "--size", 13), "multiples of 2"),
        (("--vq", janus, "--size", 12, "--codes", 4), "--codes and --vq were given together"),
        (("--vq", janus, "--size", 12, "--darkest", 1), "darkest=1; accepted: -1 or 0"),
        ((), "neither images nor --vq"),
    ):
        refused = call(capsys, "codes", *options, "--out", tmp_path / "new")
        assert refused.code == 2
        check_plain(refused)
        assert problem in refused.err, refused.err
        assert not (tmp_path / "new").exists()
