"""The comparison on images: the same work on both sides, and its tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from iwlora.methods import METHODS
from iwlora.sites import sites
from iwlora.tasks.corpora.images.shapes import LABELS, SIZE
from iwlora.tasks.kinds.images.kinds import ImageClassification
from iwlora.training.model.backbone import load_backbone


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def test_both_sides_train_the_same_parameters(script: Any, tmp_path: Path) -> None:
    images, plain = script("images"), script("plain_peft_images")
    images.SIZE = (30, 20)
    images.write_images(tmp_path / "images", 10)
    images.write_model(tmp_path / "model", 1)
    given = [f"--data={tmp_path / 'images'}", f"--model={tmp_path / 'model'}", "--out=none"]
    trainer = plain.make_trainer(plain.parse_options(given), str(tmp_path / "plain"))
    theirs = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    kind = ImageClassification()
    model, _ = load_backbone(str(tmp_path / "model"), images.LABELS, kind)
    attached = METHODS["lora"]().sized(images.RANK).attach(model, sites(model), seed=0)
    ours = sum(p.numel() for p in attached.model.parameters() if p.requires_grad)
    assert theirs == ours
    assert len(trainer.train_dataset) == 10
    options = argparse.Namespace(out=str(tmp_path), model=str(tmp_path / "model"))
    images.TIMED = 2
    parts = images.shares(options).splitlines()
    assert [line.split("|")[1].strip() for line in parts[2:]] == [
        "decoding",
        "flip-and-crop",
        "randaugment",
        "resizing and cropping",
        "normalizing",
        "the model, forward and backward",
    ]


def test_the_small_vit_is_trained_and_written_whole(script: Any, tmp_path: Path) -> None:
    small = script("small_vit")
    side = torch.linspace(-1, 1, 201, dtype=torch.float64).numpy()
    u, v = side[None].repeat(201, 0), side[:, None].repeat(201, 1)
    for inside in small.SHAPES.values():
        points = inside(u, v)
        assert points.any()
        assert not (points & (u**2 + v**2 > 1 + 1e-9)).any()  # in the unit circle
    assert not {*small.SHAPES} & {*LABELS}
    small.main(
        [
            f"--out={tmp_path / 'model'}",
            f"--work={tmp_path / 'work'}",
            *("--rows=12", "--epochs=3", "--width=32", "--blocks=1"),
        ]
    )
    model, processor = load_backbone(str(tmp_path / "model"), LABELS, ImageClassification())
    assert (len(model.config.id2label), processor.size["height"]) == (len(LABELS), SIZE)
    random, _ = load_backbone(str(tmp_path / "work" / "random"), LABELS, ImageClassification())
    pairs = zip(sites(model), sites(random), strict=True)
    assert not any(torch.equal(a.layer.weight, b.layer.weight) for a, b in pairs)  # type: ignore[arg-type]


def test_ratios_are_paired_by_seed(script: Any) -> None:
    images = script("images")
    run = {"run_seconds": 1.0, "processor_seconds": 9.0, "accuracy": 0.5}
    records = {
        arm: [{**run, "examples_per_second": speed * (1 + seed)} for seed in range(2)]
        for arm, speed in zip(images.ARMS, (2.0, 5.0, 3.0), strict=True)
    }
    lines = images.speeds(records).splitlines()[2:]
    ratios = [line.split("|")[3].strip().partition(" ")[0] for line in lines]
    assert ratios == ["1.00", "2.50", "1.50"]
