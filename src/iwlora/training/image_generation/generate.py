"""New images of a class from a finished run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iwlora.errors import IwloraError, raise_all, unknown
from iwlora.extras import name_missing_extra
from iwlora.image_tokens.codebook import Codebook, Pixels
from iwlora.image_tokens.decoding import Codes, check_temperature, decode_in_order, decode_masked
from iwlora.image_tokens.image_codes import ImageCodes, mask_id
from iwlora.image_tokens.interpolation import Interpolation, interpolate
from iwlora.results import layout
from iwlora.results.writing import follow_umask, new_folder_path, whole_folder
from iwlora.training.device import run_device
from iwlora.training.external_settings import check_external_settings
from iwlora.training.image_generation.scores import score_images
from iwlora.training.kernels import training_numerics
from iwlora.training.prediction.tables import write_table
from iwlora.training.state.artifacts import load_saved
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.stored_task import stored_task

MOST_IMAGES = 100_000
_AT_A_TIME = 16  # always so many, since sums over other numbers of rows are rounded otherwise
_GAP = 2  # pixels between the images of a contact sheet
STEPS, MASKED_TEMPERATURE = 12, 4.5
"""Those of MaskGIT's decoder."""


@dataclass(frozen=True)
class Wish:
    """What images are to be generated.

    Args:
        count: Their number.
        classes: The class of each in turn.
        steps: Of masked decoding; None: 12, or as many as an image has codes. None for a model that
            writes code by code.
        temperature: None: that of the published decoder, 4.5, or 1 code by code.
        towards: The class to which the prompts move over the steps; None: they stay.
        interpolation: How they move.
        seed: Of all that is random.
    """

    count: int = 64
    classes: tuple[str, ...] = ()
    steps: int | None = None
    temperature: float | None = None
    towards: str | None = None
    interpolation: Interpolation = "linear"
    seed: int = 0


@name_missing_extra()
def generate(
    path: str | Path,
    to: str | Path,
    *,
    count: int = 64,
    label: str | None = None,
    steps: int | None = None,
    temperature: float | None = None,
    between: tuple[str, str] | None = None,
    interpolation: Interpolation = "linear",
    seed: int = 0,
    scores: bool = False,
    trust_remote_code: bool = False,
) -> Path:
    """Generate images with a finished run of the kind ``image-tokens``.

    The folder has the images as PNG, a contact sheet, and ``images.csv`` with the class and the
    seed of each. Image n depends on the run, the options, ``seed`` and n alone: more images leave
    the first ones as they are.

    Args:
        path: The folder of the run.
        to: The folder to write.
        count: The number of images.
        label: Their class; None: all classes in turn.
        steps: Steps of masked decoding, at most the codes of an image; None: 12, or as many.
        temperature: None: 4.5, or 1 for a model that writes code by code.
        between: Two classes: the prompts move from the first to the second over the steps.
        interpolation: linear, or spherical: along the arc between two prompts.
        seed: Of all that is random.
        scores: Whether ``scores.json`` is written too, as
            :func:`iwlora.training.image_generation.scores.score_images` computes it.
        trust_remote_code: As for :func:`iwlora.load_trained`.

    Returns:
        ``to`` as a path.

    Raises:
        IwloraError: The run generates no images, a class is unknown, there are more steps than
            codes, or something is in the folder already.
    """
    check_external_settings()
    run = RunDir.finished(path)
    task = stored_task(run)
    if task.kind.processor != "codes":
        raise IwloraError(
            f"{path} generates no images: its task is of the kind {task.kind.name}; "
            "'iwlora predict' gives its predictions"
        )
    target = new_folder_path(to)
    given = Wish(
        count,
        between[:1] if between else task.labels if label is None else (label,),
        steps,
        temperature,
        between[1] if between else None,
        interpolation,
        seed,
    )
    problems = _problems(given, task.labels)
    if between and label is not None:
        problems.append(f"--class {label} and --interpolate {' '.join(between)}: give one of them")
    if between and scores:
        problems.append(
            "--scores was given with --interpolate, whose images are of no class; leave out one"
        )
    raise_all(problems)
    model, codebook = load_saved(path, trust_remote_code=trust_remote_code)
    wish = completed(given, model.config, codebook)
    result, settings = run.result(), run.recipe().train
    precision = (result.precision if result else None) or settings.requested_precision
    if not run.recipe().quantize:
        model.to(run_device())  # type: ignore[arg-type]
    with (
        torch.inference_mode(),
        training_numerics(model, settings.fast_kernels, precision, run_device()),
    ):
        codes = generate_codes(model, codebook, wish, task.labels)
    images = [codebook.decode(row.tolist()) for row in codes]
    found = None
    if scores:
        named = [wish.classes[number % len(wish.classes)] for number in range(wish.count)]
        found = score_images(run.recipe(), codebook, codes, named, trust_remote_code)
    with whole_folder(target) as folder:
        _write(folder, images, wish)
        if found is not None:
            found.save(folder / layout.IMAGE_SCORES)
        follow_umask(folder)
    return target


def _problems(wish: Wish, labels: Sequence[str]) -> list[str]:
    """What is wrong with a wish, whatever the model is."""
    named = [*wish.classes, *([] if wish.towards is None else [wish.towards])]
    problems = [str(unknown("class", name, labels)) for name in named if name not in labels]
    if not 1 <= wish.count <= MOST_IMAGES:
        problems.append(f"count={wish.count}: accepted are 1 to {MOST_IMAGES:,} images")
    if wish.seed < 0:
        problems.append(f"seed={wish.seed}: accepted are whole numbers from 0")
    return problems


def completed(wish: Wish, config: Any, codebook: Codebook) -> Wish:
    """The wish with the steps and the temperature that it leaves open, after a check."""
    ImageCodes.of(config).check(codebook)
    is_masked, steps, tokens = mask_id(config) is not None, wish.steps, codebook.tokens
    if not is_masked and (steps is not None or wish.towards is not None):
        option = "--interpolate" if steps is None else f"--steps {steps}"
        raise IwloraError(
            f"{option} was given, and the model of the run writes an image code by code, in no "
            "other steps; leave it out"
        )
    if steps is not None and not 1 <= steps <= tokens:
        raise IwloraError(
            f"steps={steps}: accepted are 1 to {tokens}, the number of codes of an image, since "
            "each step settles one at least"
        )
    temperature = wish.temperature
    if temperature is None:
        temperature = MASKED_TEMPERATURE if is_masked else 1.0
    check_temperature(temperature)
    if is_masked and steps is None:
        steps = min(STEPS, tokens)
    return replace(wish, steps=steps, temperature=temperature)


def generate_codes(model: Any, codebook: Codebook, wish: Wish, labels: Sequence[str]) -> Codes:
    """(images, N) codes, some images at a time."""
    parts = [
        _some(model, codebook, wish, labels, range(start, start + _AT_A_TIME))
        for start in range(0, wish.count, _AT_A_TIME)
    ]
    return np.concatenate(parts)[: wish.count]


def _some(
    model: Any, codebook: Codebook, wish: Wish, labels: Sequence[str], numbers: Sequence[int]
) -> Codes:
    """The codes of the images of these numbers."""
    device, tokens, mask = run_device(), codebook.tokens, mask_id(model.config)
    ids = [labels.index(wish.classes[number % len(wish.classes)]) for number in numbers]
    classes = torch.tensor(ids, device=device)
    seeds = [(wish.seed, number) for number in numbers]
    steps, temperature = wish.steps or tokens, float(wish.temperature or 0.0)
    end = None if wish.towards is None else torch.full_like(classes, labels.index(wish.towards))

    def logits(codes: Codes, step: int) -> Any:
        read = torch.from_numpy(codes).to(device)
        weight = step / max(steps - 1, 1)
        with _prompts_on_the_way(model, classes, end, weight, wish.interpolation):
            output = model(input_ids=torch.cat([classes[:, None], read], dim=1))
        return output.logits.float().cpu().numpy()

    if mask is None:
        return decode_in_order(logits, len(numbers), tokens, temperature=temperature, seeds=seeds)
    start = np.full((len(numbers), tokens), mask, np.int64)
    return decode_masked(logits, start, mask, steps=steps, temperature=temperature, seeds=seeds)


@contextmanager
def _prompts_on_the_way(
    model: Any, start: Any, end: Any, weight: float, interpolation: Interpolation
) -> Iterator[None]:
    """Inside the block, the model reads prompts between those of two classes, if ``end`` is one."""
    if end is None:
        yield
        return
    between = interpolate(
        model.class_prompts(start), model.class_prompts(end), weight, interpolation
    )
    hook = model.class_prompts.register_forward_hook(lambda *_: between)
    try:
        yield
    finally:
        hook.remove()


def _write(folder: Path, images: Sequence[Pixels], wish: Wish) -> None:
    """Write the images, the contact sheet, and the table that says how they were made."""
    from PIL import Image

    records = []
    for number, image in enumerate(images):
        name = f"{number:05}.png"
        Image.fromarray(image).save(folder / name)
        records.append(
            {
                "file": name,
                "class": wish.classes[number % len(wish.classes)],
                "towards": wish.towards or "",
                "seed": wish.seed,
                "number": number,
                "steps": "" if wish.steps is None else wish.steps,
                "temperature": wish.temperature,
                "interpolation": wish.interpolation if wish.towards is not None else "",
            }
        )
    write_table(folder / layout.GENERATED, records)
    Image.fromarray(contact_sheet(images)).save(folder / layout.CONTACT_SHEET)


def contact_sheet(images: Sequence[Pixels]) -> Pixels:
    """Images of one size side by side on white, in rows from left to right, as square as they go.

    Example:
        >>> contact_sheet([np.zeros((4, 4, 3), np.uint8)] * 5).shape
        (14, 20, 3)
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    size = images[0].shape[0]
    step = size + _GAP
    sheet: Pixels = np.full((rows * step + _GAP, columns * step + _GAP, 3), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = (_GAP + step * place for place in divmod(number, columns))
        sheet[top : top + size, left : left + size] = image
    return sheet
