"""The command that measures the price of a pool, on a few rows and a tiny model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from iwlora.methods.tiny_models import IMAGE_SIZE, tiny_model


@pytest.fixture
def record(
    script: Any, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Runs the command on 16 rows, with one trial for each method."""
    benchmark, folder = script("pools"), tmp_path / "glue" / "SST-2"
    from pool_price import arms, training

    for method, rate in {"apt": 0.02, "head": 0.01, "lora": 0.01}.items():
        monkeypatch.setitem(training.LEARNING_RATES, method, (rate,))
    monkeypatch.setattr(arms, "EWC_STRENGTHS", (1.0,))
    folder.mkdir(parents=True)
    for split, count in (("train", 24), ("dev", 16)):
        rows = [f"it is {k % 5} a {('bad', 'good')[k % 2]} film\t{k % 2}" for k in range(count)]
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    kept = ["--recorded", str(tmp_path / "pools.json.gz")]
    asked = ["--glue", str(tmp_path / "glue"), "--out", str(tmp_path / "out"), *kept]
    asked += ["--model", str(tiny_bert), "--rows", "16", "--seeds", "1", "--epochs", "1"]

    def run(command: str, *cells: str, minutes: str = "60") -> None:
        benchmark.main([command, *asked, "--minutes", minutes, "--cells", *cells])

    return run


CELLS = ("sst2 random 1 epochs", "sst2 random 2 epochs")


@pytest.mark.slow
def test_every_arm_is_scored_beside_the_union(
    record: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("record", *CELLS, minutes="0")
    record("tables", *CELLS)
    assert capsys.readouterr().out == "Nothing is recorded yet.\n"
    record("record", *CELLS)
    record("tables", *CELLS)
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("glue/sst2, sources by random, as many epochs as the union")
    assert lines[start + 2] == "| arm | 1 | 2 sources |"
    rows = [line.strip("| ").split(" | ") for line in lines[start + 4 :]]
    arms = [row[0] for row in rows[: rows.index([""])]]
    assert arms == [
        "apt: one run on all rows",
        "apt: pool",
        "apt: best single source",
        "apt: prompts mean",
        "apt: prompts side by side",
        "head: one run on all rows",
        "head: pool",
        "head: best single source",
        "lora: one run on all rows",
        "lora: pool",
        "lora: best single source",
        *(f"lora: weights averaged, {way}" for way in ("linear", "svd", "ties", "dare")),
    ]
    results = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("result.json")}
    kept = (tmp_path / "pools.json.gz").read_bytes()
    record("record", *CELLS)
    assert (tmp_path / "pools.json.gz").read_bytes() == kept
    again = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("result.json")}
    assert again == results
    other = ("--recorded", str(tmp_path / "other.json.gz"))
    with pytest.raises(SystemExit, match=r"was trained with other .*train.epochs=2.0 \(not 1.0"):
        record("record", *CELLS, *other, "--epochs", "2")
    with pytest.raises(SystemExit, match=r"search-random-1-0.* has the rows of other"):
        record("record", *CELLS, *other, "--rows", "12")


@pytest.mark.slow
def test_images_of_other_classes_arrive_one_source_after_another(
    record: Callable[..., None], tmp_path: Path
) -> None:
    from transformers import ViTImageProcessorPil

    from pool_price.arms import accuracies
    from pool_price.cells import Cell
    from pool_price.rows import read
    from pool_price.training import Trained

    tiny_model("vit").save_pretrained(tmp_path / "vit")
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    ViTImageProcessorPil(size=size).save_pretrained(tmp_path / "vit")
    rows = read("builtin/shapes", tmp_path / "shapes", {}, draws=990)
    assert (len(rows.search), len(rows.train)) == (10, 990)
    trained = Trained(rows, str(tmp_path / "vit"), count=20, epochs=1, max_length=16)
    cell = Cell("builtin/shapes", "classes", 2, "epochs", ("lora",))
    classes = [{row.label for row in part} for _, part in trained.sources(cell, 0)]
    assert classes[0] | classes[1] == set(rows.labels)
    assert not classes[0] & classes[1]
    found = dict(accuracies(trained, cell, 0))
    assert [arm.removeprefix("lora: ") for arm in found] == [
        "pool, by prototypes",
        "pool",
        "best single source",
        *(f"weights averaged, {way}" for way in ("linear", "svd", "ties", "dare")),
        "one after another",
        "one after another, EWC",
    ]
    assert all(0 <= accuracy <= 100 for accuracy in found.values())


def test_the_search_goes_on_beyond_its_ends(record: Callable[..., None]) -> None:
    from pool_price.search import best

    def tried(optimum: float) -> list[float]:
        asked: list[float] = []

        def loss(value: float) -> float:
            asked.append(value)
            return abs(math.log(value / optimum))

        found = best([0.01, 0.1, 1.0], loss)
        assert found == min(asked, key=lambda value: abs(math.log(value / optimum)))
        return asked

    assert tried(0.1) == [0.01, 0.1, 1.0]
    assert tried(20) == [0.01, 0.1, 1.0, 10.0, 100.0]
    assert tried(1e-3) == [0.01, 0.1, 1.0, 0.001, 0.0001]
    assert tried(1e9)[-1] == 10**4
    assert best([0.1], lambda _: math.inf) == 0.1


def test_a_cell_that_cannot_be_continued_is_recorded_anew(
    record: Callable[..., None], tmp_path: Path
) -> None:
    """Another search; another machine and not finished. What another machine finished stays."""
    from pool_price.record import Record

    one, two = {"0": {"x": 1.0}}, {"0": {"x": 1.0}, "1": {"x": 2.0}}
    kept = Record(
        tmp_path / "kept.json.gz",
        scores={"other search": two, "begun there": one, "ended there": two, "begun here": one},
        searches=dict.fromkeys(("begun there", "ended there", "begun here"), "wide"),
        machines=dict.fromkeys(("other search", "begun there", "ended there"), "there")
        | {"begun here": "here"},
    )
    for cell in [*kept.scores]:
        kept.begin(cell, 2, "wide", "here")
    kept.save()
    found = Record.load(kept.file)
    assert found.scores == {"ended there": two, "begun here": one}
    assert found.searches == dict.fromkeys(kept.machines, "wide")
    assert found.machines.pop("ended there") == "there"
    assert {*found.machines.values()} == {"here"}


def test_the_penalty_of_ewc(record: Callable[..., None]) -> None:
    from pool_price.sequence import Anchor

    anchor = Anchor([torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 4.0])])
    assert anchor.penalty([torch.tensor([2.0, 0.0])]) == (3 * 1 + 4 * 4) / 2


def test_sessions_of_core50_are_sources_too(record: Callable[..., None]) -> None:
    from pool_price.cells import cells
    from pool_price.divisions import DIVISIONS

    of_core50 = cells("core50/objects")
    assert {cell.division for cell in of_core50} == {*DIVISIONS}
    assert len({cell.name for cell in of_core50}) == len(of_core50)
    assert "origins" not in {cell.division for cell in cells("digits")}


def test_sources_of_official_image_folders(record: Callable[..., None], tmp_path: Path) -> None:
    """Classes of CIFAR-100 and sessions of CORe50, whose test sessions train no source."""
    from PIL import Image

    from pool_price.divisions import groups
    from pool_price.rows import read

    for session in range(1, 12):
        for number in range(1, 51):
            image = tmp_path / "core50" / f"s{session}" / f"o{number}" / "C_000.png"
            image.parent.mkdir(parents=True)
            Image.new("RGB", (4, 4), (20 * session, number, 0)).save(image)
    name, sources = "core50/objects", {"core50/objects": str(tmp_path / "core50")}
    rows = read(name, tmp_path / "objects", sources, draws=300)
    every = [*rows.search, *rows.train]
    assert (len(every), len(rows.search), len(rows.scored), len(rows.labels)) == (400, 100, 150, 50)
    assert {row.origin for row in rows.scored} == {"s3", "s7", "s10"}
    of_rows = groups("origins", every, 5, 0, lambda: None)
    seen = {(row.origin, source) for row, source in zip(every, of_rows, strict=True)}
    assert len(seen) == 8, "a session is in one source"
    assert len({source for _, source in seen}) == 5

    folder = tmp_path / "cifar" / "cifar-100-binary"
    folder.mkdir(parents=True)
    for split, count in (("train", 300), ("test", 100)):
        records = [bytes([0, k % 100, k % 256, k // 256, *[0] * 3070]) for k in range(count)]
        (folder / f"{split}.bin").write_bytes(b"".join(records))
    sources = {"cifar100": str(tmp_path / "cifar")}
    rows = read("cifar100", tmp_path / "cifar100", sources, draws=200)
    assert (len(rows.train), len(rows.search), len(rows.scored)) == (200, 100, 100)
    every = [*rows.search, *rows.train]
    of_rows = groups("classes", every, 5, 0, lambda: None)
    seen = {(row.label, source) for row, source in zip(every, of_rows, strict=True)}
    assert len(seen) == len(rows.labels) == 100, "a class is in one source"


def test_many_images_are_not_all_written(
    record: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pool_price import rows as pool_rows

    monkeypatch.setattr(pool_rows, "_MOST_IMAGES", 30)
    monkeypatch.setattr(pool_rows, "_MOST_SCORED_IMAGES", 8)
    rows = pool_rows.read("builtin/shapes", tmp_path / "shapes", {}, draws=20)
    assert (len(rows.train), len(rows.search), len(rows.scored)) == (20, 10, 8)
    assert len([*(tmp_path / "shapes" / "images").iterdir()]) == 38


def test_sources_of_a_draw_begin_with_the_same_numbers_or_not(record: Callable[..., None]) -> None:
    from pool_price.cells import cells
    from pool_price.rows import SEARCH
    from pool_price.training import Source

    every = cells("core50/objects")
    for division in ("random", "clusters", "classes", "origins"):
        methods = {m for c in every if c.division == division for m in c.methods * c.own_starts}
        assert methods == {"apt", "lora"}
    cell = every[0]
    drawn = [Source(cell, "apt", "x", (), 0.1, seed, k) for seed in (0, 5, SEARCH) for k in (0, 9)]
    assert len({source.training_seed for source in drawn}) == len(drawn)


def test_what_is_made_of_sources_is_compared_with_their_pool(
    record: Callable[..., None], tmp_path: Path
) -> None:
    from pool_price.cells import Cell
    from pool_price.record import Record
    from pool_price.tables import tables

    cell = Cell("glue/sst2", "clusters", 5, "epochs", ("apt",), own_starts=True)
    accuracies = {"0": (60.0, 50.0), "1": (70.0, 52.0), "2": (65.0, 51.0)}
    arms = ("apt: pool", "apt: prompts mean")
    scores = {seed: dict(zip(arms, values, strict=True)) for seed, values in accuracies.items()}
    kept = Record(tmp_path / "kept.json.gz", scores={cell.name: scores})
    lines = tables(kept, [cell]).splitlines()
    assert lines[1] == (
        "glue/sst2, sources by clusters, each with its own start, as many epochs as the union"
    )
    start = lines.index("minus the pool, on the same draws:")
    # -10, -18 and -14: a standard error of 4 / √3, and 4.303 of them to the ends of the interval.
    assert lines[start + 4] == "| apt: prompts mean | -14.0 [-23.9, -4.1] |"
    assert lines[start + 5] == ""


def test_the_plan_adds_up(record: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    record("plan", "sst2")
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    hours = [float(row[1]) for row in rows]
    assert len(rows) > 10
    assert min(hours) >= 0
    assert float(rows[-1][2]) == pytest.approx(sum(hours), abs=0.1)
