"""``iwlora generate``: images of a class from a finished run."""

from __future__ import annotations

import csv
import json
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from scipy.spatial.distance import pdist
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil, ViTModel

from commands import call, check_plain
from image_drawings import save_images, save_model, small_codebook
from image_tokens.test_models import random_model
from iwlora.image_tokens.codebooks.load import load_codebook
from iwlora.image_tokens.image_codes import put_training_images
from iwlora.image_tokens.new_model import Order
from iwlora.methods.additive.prompt_generator import PromptGenerator
from iwlora.methods.tiny_models import tiny_model
from iwlora.results.run.image_scores import ImageScores
from iwlora.training.image_generation.features import SourceModel
from iwlora.training.image_generation.generate import _prompts_on_the_way, generate_codes
from iwlora.training.image_generation.request import Request, completed
from iwlora.training.run import train
from runs import recipe, with_options

ORDERS: tuple[Order, ...] = ("masked", "next-code")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of prompts for a masked model, and one of LoRA for GPT-2."""
    folder = tmp_path_factory.mktemp("generate")
    task = {"train": str(save_images(folder / "images")), "kind": {"name": "image-tokens"}}
    for order, method in zip(ORDERS, ("prompt-generator", "lora"), strict=True):
        model = save_model(folder / "models" / order, order)
        asked = recipe(model, task, method, epochs=3, lr=2e-2, batch_size=8)
        train(asked, folder / order)
    return {order: folder / order for order in ORDERS}


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which each training image has prompts: three discs and two squares."""
    folder = tmp_path_factory.mktemp("instances")
    pictures = save_images(folder / "images", train=3, validation=1)
    (pictures / "train" / "square" / "0.png").unlink()
    task = {"train": str(pictures), "kind": {"name": "image-tokens"}}
    asked = recipe(save_model(folder / "model"), task, "prompt-generator", epochs=20, lr=0.1)
    train(with_options(asked, instances=True), folder / "run")
    return folder / "run"


def images(folder: Path) -> list[Any]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("0*.png"))]


@pytest.mark.quick
def test_images_are_those_of_codes_and_follow_from_the_seed(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for order, run in runs.items():
        out = tmp_path / order
        few = ["--count", 3, "--class", "disc"]
        assert call(capsys, "generate", run, *few, "--out", out).out == f"{out}\n"
        codebook = load_codebook(run / "codes")
        for image in images(out):
            assert image.shape == (12, 12, 3)
            assert (codebook.decode(codebook.encode(image)) == image).all()
        sheet = np.asarray(Image.open(out / "contact-sheet.png"))
        assert (sheet[2:14, 16:28] == images(out)[1]).all()
        with (out / "images.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [(row["file"], row["class"], row["seed"], row["number"]) for row in rows] == [
            (f"{number:05}.png", "disc", "0", str(number)) for number in range(3)
        ]
        expected = ("9", "4.5") if order == "masked" else ("", "1.0")
        assert (rows[0]["steps"], rows[0]["temperature"]) == expected
        call(
            capsys,
            "generate",
            run,
            "--count",
            5,
            "--class",
            "disc",
            "--out",
            tmp_path / f"{order}5",
        )
        more = images(tmp_path / f"{order}5")
        assert all((a == b).all() for a, b in zip(images(out), more, strict=False))
        call(capsys, "generate", run, *few, "--seed", 1, "--out", tmp_path / f"{order}-seed")
        others = images(tmp_path / f"{order}-seed")
        assert any((a != b).any() for a, b in zip(images(out), others, strict=True))


def test_prompts_move_from_one_class_to_another(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(name: str, *options: object) -> list[Any]:
        common = ("--count", 8, "--steps", 4, "--temperature", 0)
        done = call(capsys, "generate", runs["masked"], *common, *options, "--out", tmp_path / name)
        assert done.code == 0, done.err
        return [image.tolist() for image in images(tmp_path / name)]

    alone = made("disc", "--class", "disc")
    assert made("stays", "--interpolate", "disc", "disc") == alone
    assert len(made("linear", "--interpolate", "disc", "square")) == 8
    arc = made("arc", "--interpolate", "disc", "square", "--interpolation", "spherical")
    assert len(arc) == 8
    table = (tmp_path / "arc" / "images.csv").read_text(encoding="utf-8").splitlines()
    assert table[1] == "00000.png,disc,,square,,0,0,4,0.0,spherical"
    assert made("all")[0] == alone[0]
    table = (tmp_path / "all" / "images.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[1] for row in table[1:]] == ["disc", "square"] * 4


def test_images_are_generated_by_the_prompts_of_training_images(
    of_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def prompts(name: str, *options: object) -> list[list[str]]:
        done = call(capsys, "generate", of_images, *options, "--out", tmp_path / name)
        assert done.code == 0, done.err
        with (tmp_path / name / "images.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = ("class", "instance", "towards", "towards_instance")
        return [[row[column] for column in names] for row in rows]

    turns = [("disc", 0), ("square", 0), ("disc", 1), ("square", 1), ("disc", 2), ("square", 0)]
    assert prompts("all", "--count", 6) == [[name, f"{n}", "", ""] for name, n in turns]
    asked = ("--class", "square", "--interpolate", 0, 1, "--count", 2, "--scores")
    assert prompts("images", *asked) == [["square", "0", "square", "1"]] * 2
    assert (tmp_path / "images" / "scores.json").is_file(), "they are of a class"
    classes = prompts("classes", "--interpolate", "disc", "square", "--count", 3)
    assert classes == [["disc", f"{n}", "square", f"{n % 2}"] for n in range(3)]


def test_an_image_follows_from_its_prompts_and_its_number(tmp_path: Path) -> None:
    for order in ORDERS:
        model, codebook = random_model(tmp_path / order, order), small_codebook()
        put_training_images(model.config, (2, 3, 0))
        PromptGenerator(tokens=8, instances=True).attach(model, [], seed=0)
        torch.nn.init.normal_(model.class_prompts.instances, generator=torch.Generator())

        def made(model: Any = model, codebook: Any = codebook, **asked: Any) -> list[list[int]]:
            request = completed(Request(count=4, temperature=1.0, **asked), model.config, codebook)
            with torch.inference_mode():
                return generate_codes(model, codebook, request, ("a", "b", "c")).tolist()

        turns = made(classes=("b",))
        alone = [made(classes=("b",), instance=number) for number in range(3)]
        assert alone[1] != alone[0] != alone[2], "images have prompts of their own"
        assert turns == [alone[number % 3][number] for number in range(4)]
        assert made(classes=("c",)) != made(classes=("a",)), "c has no training image"
        if order == "next-code":
            continue
        ends = {"classes": ("b",), "instance": 1, "towards": "b"}
        assert made(**ends, towards_instance=1) == alone[1]
        assert made(**ends, towards_instance=2) not in alone


def test_training_images_that_cannot_be_named_are_refused(
    of_images: Path, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, options, problems in (
        (runs["masked"], ("--class", "disc", "--instance", 1), ["no prompts of single images"]),
        (
            of_images,
            ("--class", "square", "--instance", 2, "--count", 0),
            ["class square has 2 training images, with the numbers from 0 to 1; given: 2", "count"],
        ),
        (of_images, ("--class", "disc", "--instance", -1), ["given: -1"]),
        (of_images, ("--instance", 1), ["--instance needs --class"]),
        (of_images, ("--class", "disc", "--interpolate", 0, "x"), ["given: 0 and x"]),
        (
            of_images,
            ("--instance", 1, "--interpolate", "disc", "ring"),
            ["give one of them", "unknown class 'ring'"],
        ),
    ):
        refused = call(capsys, "generate", run, *options, "--out", tmp_path / "out")
        assert refused.code == 2
        check_plain(refused)
        assert all(problem in refused.err for problem in problems), refused.err
        assert not (tmp_path / "out").exists()


def test_the_model_reads_the_prompts_on_the_way(tmp_path: Path) -> None:
    model = random_model(tmp_path, "masked")
    start, end = torch.tensor([0, 2]), torch.tensor([1, 1])
    codes = torch.arange(18).reshape(2, 9) % 12

    def logits(classes: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(torch.cat([classes[:, None], codes], dim=1)).logits
        return found

    with torch.inference_mode():
        for weight, classes in ((0.0, start), (1.0, end)):
            with _prompts_on_the_way(model, (start, None), (end, None), weight, "spherical"):
                moved = logits(start)
            torch.testing.assert_close(moved, logits(classes))
        with _prompts_on_the_way(model, (start, None), (end, None), 0.5, "linear"):
            between = logits(start)
        assert (between - logits(start)).abs().max() > 0.1
        assert (between - logits(end)).abs().max() > 0.1
        of_class = logits(start)
        with _prompts_on_the_way(model, (start, None), None, 0.5, "linear"):
            assert torch.equal(logits(start), of_class)


def test_what_cannot_be_generated_is_refused(
    runs: dict[str, Path], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, options, problem in (
        (
            finished,
            (),
            "generates no images: its task is of the kind classification; 'iwlora predict'",
        ),
        (runs["masked"], ("--class", "ring"), "unknown class 'ring'"),
        (runs["masked"], ("--interpolate", "disc", "ring"), "unknown class 'ring'"),
        (
            runs["masked"],
            ("--class", "disc", "--interpolate", "disc", "square"),
            "no prompts of single images",
        ),
        (runs["masked"], ("--steps", 10), "steps=10: accepted are 1 to 9"),
        (runs["masked"], ("--steps", 0), "steps=0: accepted are 1 to 9"),
        (runs["masked"], ("--count", 0), "count=0: accepted are 1 to"),
        (runs["masked"], ("--seed", -1), "seed=-1: accepted"),
        (runs["masked"], ("--temperature", "nan"), "temperature=nan: accepted"),
        (runs["next-code"], ("--steps", 3), "writes an image code by code"),
        (runs["next-code"], ("--interpolate", "disc", "square"), "writes an image code by code"),
        (tmp_path / "none", (), "none"),
    ):
        refused = call(capsys, "generate", run, *options, "--out", tmp_path / "out")
        assert refused.code == 2
        check_plain(refused)
        assert problem in refused.err
        assert not (tmp_path / "out").exists()


def test_scores_compare_images_with_held_out_ones(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for order, run in runs.items():
        out = tmp_path / order
        done = call(capsys, "generate", run, "--count", 20, "--scores", "--out", out)
        assert done.code == 0, done.err
        scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
        assert scores["images"] == {"training": 24, "held-out": 8, "generated": 20}
        assert scores["extractor"].startswith("mean last hidden state of ")
        assert scores["frechet_distance"] == {}
        assert "needs 17 in each set" in scores["left_out"][0], "8 held-out images are too few"
        assert set(scores["diversity"]["generated"]) == {"disc", "square"}
        assert all(0 <= share <= 1 for share in scores["accuracy"].values())
        assert "recognized as their class" in done.out
        assert "FID" not in done.out + (out / "scores.json").read_text(encoding="utf-8")
    folder = runs["masked"]
    assert "no scores yet" in call(capsys, "report", folder).out
    scored = call(
        *(capsys, "generate", folder, "--count", 20, "--scores", "--out", folder / "generated")
    )
    assert scored.code == 0, scored.err
    done = call(capsys, "report", folder)
    assert (done.code, "no scores yet" in done.out) == (0, False)
    assert "Scores of generated images" in (folder / "report.html").read_text(encoding="utf-8")
    assert call(capsys, "verify", folder).code == 0
    both = call(
        *(capsys, "generate", runs["masked"], "--scores", "--interpolate", "disc", "square"),
        *("--out", tmp_path / "both"),
    )
    assert (both.code, "makes images of no class" in both.err) == (2, True)


def test_features_are_those_of_the_codes_alone(tmp_path: Path) -> None:
    for order in ORDERS:
        model = random_model(tmp_path / order, order)
        source = SourceModel("a model", model, small_codebook())
        codes = np.random.default_rng(0).integers(0, 12, (3, 9))
        features = source.of_codes(codes)
        assert features.shape == (3, 8)
        with torch.no_grad():
            for parameter in model.class_prompts.parameters():
                parameter.add_(1.0)
        np.testing.assert_array_equal(source.of_codes(codes), features)
        np.testing.assert_allclose(source.of_codes(codes[2:]), features[2:], rtol=1e-9)
        assert np.abs(features[0] - features[1]).max() > 0.1


def test_scores_by_an_image_model_are_those_of_the_written_files(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features by transformers alone, from files; the distance by the root of a product."""
    run, extractor = runs["masked"], str(tmp_path / "vit")
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(**sizes, intermediate_size=8, image_size=16, patch_size=4)
    ViTForImageClassification(config).save_pretrained(extractor)
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    processor.save_pretrained(extractor)
    asked = ("--count", 12, "--features", extractor, "--held-out", tmp_path / "real")
    twice = call(capsys, "generate", run, *asked, "--out", tmp_path / "real")
    assert (twice.code, "give two folders" in twice.err) == (2, True)
    asked = (*asked, "--out", tmp_path / "out")
    done = call(capsys, "generate", run, *asked)
    assert done.code == 0, done.err
    scores = ImageScores.load(tmp_path / "out" / "scores.json")
    assert scores.extractor == f"mean last hidden state of {extractor}"
    assert f"features: {scores.extractor}" in done.out
    model = ViTModel.from_pretrained(extractor, add_pooling_layer=False).eval()

    def features(files: list[Path]) -> Any:
        pixels = processor([Image.open(file).convert("RGB") for file in files], return_tensors="pt")
        with torch.inference_mode():
            return model(**pixels).last_hidden_state.double().mean(1).numpy()

    generated = features(sorted((tmp_path / "out").glob("0*.png")))
    files = sorted((run.parent / "images" / "validation").rglob("*.png"))
    held_out = features(files)
    written = {path.read_bytes() for path in (tmp_path / "real").glob("0*.png")}
    assert {np.asarray(Image.open(file)).tobytes() for file in files} == {
        np.asarray(Image.open(BytesIO(content))).tobytes() for content in written
    }
    with (tmp_path / "real" / "images.csv").open(encoding="utf-8") as table:
        assert Counter(row["class"] for row in csv.DictReader(table)) == {"disc": 4, "square": 4}
    (first, a), (second, b) = ((f.mean(0), np.cov(f.T)) for f in (generated, held_out))
    distance = ((first - second) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert scores.frechet_distance["generated"] == pytest.approx(distance, rel=1e-3)
    discs = pdist(generated[::2]).mean()
    assert scores.diversity["generated"]["disc"] == pytest.approx(discs, rel=1e-4)
    bert = tiny_model("bert")
    bert.save_pretrained(tmp_path / "bert")
    refused = call(
        *(capsys, "generate", run, "--features", tmp_path / "bert", "--out", tmp_path / "none")
    )
    assert (refused.code, "reads input_ids, and the task has images" in refused.err) == (2, True)
