from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from image_drawings import CODES, save_images, save_model
from iwlora.errors import BadRowsError, IwloraError
from iwlora.image_tokens.codebooks.load import load_codebook
from iwlora.image_tokens.codebooks.patches import PatchCodebook
from iwlora.image_tokens.image_codes import training_images
from iwlora.image_tokens.masking import masked_count, step_ratio
from iwlora.image_tokens.models import MODELS
from iwlora.tasks import Task, TaskSpec, load
from iwlora.tasks.kinds.contract import EncodingInput
from iwlora.tasks.kinds.images.tokens import ImageTokens
from iwlora.training.loop.row_order import DrawnRows, EpochSampler


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def encoded(images: Path, model: Path) -> tuple[Task, dict[str, Any], Any]:
    task = load(TaskSpec(train=str(images), kind={"name": "image-tokens"}), seed=0)
    loaded = MODELS["bert"].from_pretrained(model)
    rows = task.encode(load_codebook(model), 128, loaded.config)  # type: ignore[arg-type]
    return task, rows, task.kind.collator(None, loaded)


@pytest.mark.quick
def test_a_step_masks_one_share_of_each_image(images: Path, model: Path) -> None:
    _, rows, collate = encoded(images, model)
    order = EpochSampler(24, batch_size=8, seed=5)
    order.set_epoch(1)
    drawn = DrawnRows(rows["train"], order)
    for step, start in enumerate(range(0, 24, 8)):
        places = order.epoch_rows(1)[start : start + 8]
        whole = collate([drawn[place] for place in places])
        halves = [collate([drawn[place] for place in part]) for part in (places[:4], places[4:])]
        assert torch.equal(whole["input_ids"], torch.cat([half["input_ids"] for half in halves]))
        count = masked_count(9, step_ratio((5, 1, step)))
        is_masked = whole["input_ids"][:, 1:] == CODES
        assert is_masked.sum(1).tolist() == [count] * 8
        assert torch.equal(is_masked, whole["labels"] != -100)
        codes = torch.tensor([rows["train"][place]["labels"] for place in places])
        seen = whole["input_ids"][:, 1:]
        assert torch.equal(torch.where(is_masked, whole["labels"], seen), codes)
    before = collate([drawn[place] for place in range(24)])
    order.set_epoch(2)
    assert not torch.equal(
        before["labels"], collate([drawn[place] for place in range(24)])["labels"]
    )


def test_training_images_have_the_numbers_that_they_have_in_their_class(
    images: Path, model: Path
) -> None:
    task, rows, collate = encoded(images, model)
    assert isinstance(task.kind, ImageTokens)
    assert task.kind.training_images == (12, 12)
    labels, numbers = task.splits["train"]["label"][:], rows["train"]["instance"][:]
    assert all(numbers[row] == labels[:row].count(label) for row, label in enumerate(labels))
    batch = collate([rows["train"][row] for row in (23, 0, 11)])
    assert batch["instances"].tolist() == [numbers[row] for row in (23, 0, 11)]
    assert "instances" not in collate([rows["validation"][0]])
    config = MODELS["bert"].from_pretrained(model).config
    task.kind.configure(config, (*task.labels, "ring"))
    assert training_images(config) == (12, 12, 0)


def test_scored_masks_depend_on_the_image_alone(images: Path, model: Path) -> None:
    task, rows, _ = encoded(images, model)
    scored = rows["validation"]
    assert scored["row"][:] == [row for row in range(8) for _ in range(4)]
    counts = [sum(label != -100 for label in labels) for labels in scored["labels"][:]]
    assert [sorted(counts[k : k + 4], reverse=True) for k in range(0, 32, 4)] == [
        counts[k : k + 4] for k in range(0, 32, 4)
    ]
    config = MODELS["bert"].from_pretrained(model).config
    last = task.splits["validation"].select([7])
    data = EncodingInput(task, last, load_codebook(model), 128, config)
    assert task.kind.encode(data)["input_ids"][:] == scored["input_ids"][28:]


def test_the_loss_is_that_of_smoothed_targets() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(2, 3, 5)), np.array([[1, -100, 4], [-100, 0, -100]])
    expected = 0.0
    for row, place in ((0, 0), (0, 2), (1, 1)):
        log_p = logits[row, place] - np.log(np.exp(logits[row, place]).sum())
        target = np.full(5, 0.1 / 5)
        target[labels[row, place]] += 0.9
        expected -= float(target @ log_p)
    given = SimpleNamespace(logits=torch.tensor(logits))
    kind = ImageTokens()
    assert kind.loss(given, torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-6)
    assert kind.count(torch.tensor(labels)) == 3
    plain = ImageTokens(label_smoothing=0.0).loss(given, torch.tensor(labels)).item()
    assert plain != pytest.approx(expected, rel=1e-3)


def test_what_is_no_square_image_or_another_codebook_is_refused(
    images: Path, model: Path, tmp_path: Path
) -> None:
    bad = save_images(tmp_path / "bad")
    Image.new("RGB", (12, 13)).save(bad / "train" / "disc" / "1.png")
    (bad / "train" / "disc" / "3.png").write_bytes(b"GIF89a")
    with pytest.raises(BadRowsError) as refused:
        load(TaskSpec(train=str(bad), kind={"name": "image-tokens"}), seed=0)
    assert "holds an image of 12 × 13 pixels, which is not square" in str(refused.value)
    assert "3.png: column 'image' names" in str(refused.value)
    other = PatchCodebook(np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1), side=3)
    task = load(TaskSpec(train=str(images), kind={"name": "image-tokens"}), seed=0)
    config = MODELS["bert"].from_pretrained(model).config
    with pytest.raises(IwloraError, match="the codes are of another codebook"):
        task.encode(other, 128, config)  # type: ignore[arg-type]
    with pytest.raises(IwloraError, match="does not read the codes of images; accepted types"):
        task.kind.auto_class(SimpleNamespace(model_type="vit"))
    with pytest.raises(IwloraError, match="has 14 classes"):
        task.kind.configure(config, [str(label) for label in range(14)])
