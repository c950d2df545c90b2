"""Images that are kept make the batches that opening them makes, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import iwlora
from iwlora.errors import IwloraError
from iwlora.inputs.images import open_image
from iwlora.methods.tiny_models import IMAGE_SIZE, tiny_model
from iwlora.results import layout
from iwlora.tasks.kinds.contract import DRAW, IMAGE
from iwlora.tasks.kinds.images import collator
from iwlora.tasks.kinds.images.collator import DIGEST, ImageCollator, works_in_halves
from iwlora.training.row_store.kept_images import KeptImages
from runs import recipe, weights

PROCESSORS = ("ViT", "DeiT", "Bit", "Beit", "ConvNext")


def picture(number: int) -> Any:
    random = np.random.default_rng(number)
    return Image.fromarray(random.integers(0, 256, (30 + number, 41, 3), dtype=np.uint8))


def rows_in(folder: Path, count: int, drawn: bool) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        path = folder / f"{number}.png"
        picture(number).save(path)
        content = path.read_bytes()
        facts = open_image(content)[1]
        row = {DIGEST: facts.digest, IMAGE: facts.stored(path.name, None, str(folder))}
        rows.append({**row, "labels": number % 2, **({DRAW: (0, 1, number)} if drawn else {})})
    return rows


@pytest.mark.parametrize("drawn", [False, True], ids=["plain", "augmented"])
def test_kept_images_make_equal_batches(drawn: bool, tmp_path: Path) -> None:
    rows, processor = rows_in(tmp_path, 5, drawn), transformers.ViTImageProcessorPil()
    opening = ImageCollator(processor, "randaugment")
    decoded, resized = (KeptImages(tmp_path / name) for name in ("decoded", "resized"))
    keeping = ImageCollator(processor, "randaugment", decoded, resized)
    expected = opening(rows)
    for batch in (keeping(rows[:3]), keeping(rows)):
        for name, values in batch.items():
            assert torch.equal(values, expected[name][: len(values)])
    for number in range(5):
        (tmp_path / f"{number}.png").unlink()
    again = ImageCollator(
        processor, "randaugment", *(KeptImages(tmp_path / n) for n in ("decoded", "resized"))
    )
    assert torch.equal(again(rows)["pixel_values"], expected["pixel_values"])
    with pytest.raises(IwloraError, match="no such file"):
        opening(rows)


def test_threads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, processor = rows_in(tmp_path, 6, True), transformers.ViTImageProcessorPil()
    batches = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        batches.append(ImageCollator(processor, "randaugment")(rows)["pixel_values"])
    assert torch.equal(*batches)


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_work_in_halves(name: str) -> None:
    processor = getattr(transformers, f"{name}ImageProcessorPil")()
    assert works_in_halves(processor, [picture(0), picture(3)])


def test_a_processor_that_does_more_is_noticed() -> None:
    class Darker(transformers.ViTImageProcessorPil):  # type: ignore[misc]
        def __call__(self, images: Any, **kwargs: Any) -> Any:
            made = super().__call__(images, **kwargs)
            if not kwargs.keys() - {"return_tensors"}:
                made["pixel_values"] = made["pixel_values"] / 2
            return made

    def of_others(images: Any, return_tensors: str) -> Any:
        return transformers.ViTImageProcessorPil()(images, return_tensors=return_tensors)

    for processor in (Darker(), of_others):
        assert not works_in_halves(processor, [picture(0)])


def test_a_processor_whose_images_have_several_sizes_is_refused(tmp_path: Path) -> None:
    size = {"shortest_edge": 16}
    processor = transformers.BitImageProcessorPil(size=size, do_center_crop=False)
    low, *_, high = rows_in(tmp_path, 5, False)
    collators = (
        ImageCollator(processor),
        ImageCollator(processor, resized=KeptImages(tmp_path / "resized")),
    )
    for collate in collators:
        assert collate([low, low])["pixel_values"].shape == (2, 3, 16, 21)
        with pytest.raises(IwloraError, match="several sizes, such as 16 × 19 and 16 × 21 pixels"):
            collate([low, high])


def test_a_run_opens_each_image_once_and_removes_what_it_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    tiny_model("vit").save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessorPil(size=size).save_pretrained(tmp_path / "vit")
    opened: list[str] = []
    opening = collator.open_row

    def counting(row: Any) -> Any:
        opened.append(row[DIGEST])
        return opening(row)

    monkeypatch.setattr(collator, "open_row", counting)
    task = {"name": "builtin/shapes", "max_train": 16, "max_validation": 4, "max_test": 4}
    trained, counts = [], []
    for cache in (True, False):
        folder = tmp_path / str(cache)
        asked = recipe(tmp_path / "vit", task, "lora", epochs=3, lr=5e-3, batch_size=8)
        iwlora.train(asked.with_train(cache_images=cache), folder)
        trained.append(weights(folder))
        counts.append(len(opened))
        opened.clear()
        assert not (folder / layout.DECODED_IMAGES).exists()
    assert all(torch.equal(trained[0][name], value) for name, value in trained[1].items())
    of_first_pass, epochs = 4, 3
    assert counts[0] <= 16 + 4 + 4 + of_first_pass
    assert counts[1] >= 16 * epochs
