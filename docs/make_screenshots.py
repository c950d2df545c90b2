"""Make the pictures of a report's first screen from three simulated comparisons.

    python docs/make_screenshots.py [--out runs/screenshots]

It needs chromium, chromedriver and selenium, takes less than a minute, and trains nothing: scores,
predictions and importance are drawn at random, so that methods of known quality are compared.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from iwlora.compare.report.write import write_report
from iwlora.results import layout
from iwlora.results.comparison.record import ComparisonRecord
from iwlora.results.run import FloorScore, RunResult
from iwlora.results.sensitivity import Sensitivity, SiteSensitivity
from iwlora.results.writing import write_text

IMAGES = Path(__file__).parent / "images"
WIDTH, MOST_BYTES = 1200, 150_000
MODEL, MATRICES = "builtin/minilm", ("query", "key", "value", "output", "up", "down")
MOST_FREQUENT = 0.54
PARAMETERS = {"lora": 294_912, "dora": 313_344, "iw-lora": 294_912, "vera": 27_648}
SECONDS = {"lora": 310.0, "dora": 452.0, "iw-lora": 316.0, "vera": 305.0}


@dataclass(frozen=True)
class Case:
    """A comparison to simulate: the chance of a right prediction by method, and its size."""

    task: str
    accuracy: dict[str, float]
    rows: int
    seeds: int
    bag_of_words: float
    measuring: tuple[str, ...] = field(default=("iw-lora",))


CASES = {
    "null-result": Case(
        "reviews (simulated)", {"lora": 0.80, "iw-lora": 0.802, "vera": 0.795}, 800, 8, 0.74
    ),
    "clear-winner": Case(
        "intents (simulated)", {"lora": 0.80, "iw-lora": 0.86, "dora": 0.803}, 1500, 8, 0.75
    ),
    "nothing-learned": Case(
        "sarcasm (simulated)", {"lora": 0.0, "iw-lora": 0.0, "dora": 0.0}, 400, 4, 0.58
    ),
}


def simulate(case: Case, folder: Path) -> None:
    """Write the folder of a finished comparison; an accuracy of 0 predicts one class for all."""
    random = np.random.default_rng(11)
    difficulty = random.normal(size=case.rows)
    labels = np.where(np.arange(case.rows) < MOST_FREQUENT * case.rows, "no", "yes")
    record = ComparisonRecord(
        model=MODEL,
        task=case.task,
        methods=[*case.accuracy],
        seeds=[*range(case.seeds)],
        searched=True,
        baseline="lora",
    )
    folder.mkdir(parents=True)
    record.save(folder / layout.COMPARISON)
    for seed in range(case.seeds):
        shared = random.normal(0, 0.04)
        for label, accuracy in case.accuracy.items():
            known = 0.95 * difficulty + 0.31 * random.normal(size=case.rows)
            edge = np.quantile(difficulty, accuracy) + shared + random.normal(0, 0.02)
            right = known < edge if accuracy else labels == "no"
            predictions = np.where(right == (labels == "yes"), "yes", "no")
            run = layout.run_folder(folder, label, seed)
            (run / layout.ADAPTER).mkdir(parents=True)
            (run / layout.PREDICTIONS).mkdir()
            columns = zip(labels, predictions, strict=True)
            text = "\n".join(["label,prediction", *map(",".join, columns)])
            write_text(layout.predictions_file(run, "validation"), text + "\n")
            write_text(run / layout.RECIPE, f"model: {MODEL}\n")
            if label in case.measuring:
                importance().save(run / layout.SENSITIVITY)
            result(case, label, seed, float(np.mean(right))).save(run / layout.RESULT)


def result(case: Case, label: str, seed: int, accuracy: float) -> RunResult:
    """The result of one run, with its floors."""
    half = 1.96 * float(np.sqrt(2 * 0.8 * 0.2 / case.rows))
    floors = [
        FloorScore(
            name=name,
            trivial=trivial,
            rows=case.rows,
            metrics={"accuracy": score},
            margin=accuracy - score,
            low=accuracy - score - half,
            high=accuracy - score + half,
        )
        for name, trivial, score in (
            ("most frequent class", True, MOST_FREQUENT),
            ("bag of words", False, case.bag_of_words),
        )
    ]
    return RunResult.from_score(
        label,
        case.task,
        seed,
        "accuracy",
        accuracy,
        label=label,
        model=MODEL,
        evaluated_on="validation",
        selected_on="last checkpoint",
        adapter_parameters=PARAMETERS[label],
        trainable_parameters=PARAMETERS[label] + 770,
        train_seconds=SECONDS[label] + seed,
        measure_seconds=14.0 if label in case.measuring else 0.0,
        peak_memory_bytes=1_300_000_000,
        learning_rate=5e-4,
        floors=floors,
    )


def importance() -> Sensitivity:
    """Sensitivities of 6 blocks, larger in the middle and for values."""
    random = np.random.default_rng(5)
    sites = tuple(
        SiteSensitivity(
            f"layer.{block}.{kind}", kind, block, 384, 384,
            float(random.gamma(4.0) * (1 + block % 4) * (2 if kind == "value" else 1)), 0.1,
        )
        for block in range(6)
        for kind in MATRICES
    )  # fmt: skip
    return Sensitivity(sites, "exact", 24, 0.015, True, 14.0)


def photograph(page: Path, picture: Path) -> None:
    """Save the first screen, down to the map of importance, as a small PNG."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    with tempfile.TemporaryDirectory() as profile:
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
            options.add_argument(argument)
        options.add_argument(f"--user-data-dir={profile}")
        driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
        try:
            screen = {"width": WIDTH, "height": 1600, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            driver.get(page.resolve().as_uri())
            bottom = driver.execute_script(
                "return document.querySelector('main > figure').getBoundingClientRect().bottom"
            )
            shot = Image.open(io.BytesIO(driver.get_screenshot_as_png()))
        finally:
            driver.quit()
    cropped = shot.convert("RGB").crop((0, 0, WIDTH, int(bottom) + 8))
    cropped.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(picture, optimize=True)
    if picture.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{picture} is larger than {MOST_BYTES} bytes")


def main() -> None:
    """Simulate the comparisons, write their reports and take their pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/screenshots", help="a folder to be written anew")
    out = Path(parser.parse_args().out)
    for name, case in CASES.items():
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        simulate(case, folder)
        photograph(write_report(folder), IMAGES / f"report-{name}.png")


if __name__ == "__main__":
    main()
