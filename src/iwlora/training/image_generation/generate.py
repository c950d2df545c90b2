"""New images of a class from a finished run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iwlora.errors import IwloraError
from iwlora.extras import name_missing_extra
from iwlora.image_tokens.codebook import Codebook, Pixels
from iwlora.image_tokens.decoding import Codes, decode_in_order, decode_masked
from iwlora.image_tokens.image_codes import mask_id
from iwlora.image_tokens.interpolation import Interpolation, interpolate
from iwlora.results import layout
from iwlora.results.writing import follow_umask, new_folder_path, whole_folder
from iwlora.training.device import run_device
from iwlora.training.external_settings import check_external_settings
from iwlora.training.image_generation.features import ImageModel
from iwlora.training.image_generation.held_out import write_held_out
from iwlora.training.image_generation.request import (
    PromptsOf,
    Request,
    completed,
    request_of_options,
)
from iwlora.training.image_generation.scores import score_images
from iwlora.training.kernels import training_numerics
from iwlora.training.prediction.tables import write_table
from iwlora.training.state.artifacts import load_saved
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.stored_task import stored_task

_AT_A_TIME = 16  # always so many, since sums over other numbers of rows are rounded otherwise
_GAP = 2  # pixels between the images of a contact sheet


@name_missing_extra()
def generate(
    path: str | Path,
    to: str | Path,
    *,
    count: int = 64,
    label: str | None = None,
    instance: int | None = None,
    steps: int | None = None,
    temperature: float | None = None,
    between: tuple[str, str] | None = None,
    interpolation: Interpolation = "linear",
    seed: int = 0,
    scores: bool = False,
    features: str | None = None,
    held_out: str | Path | None = None,
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
        instance: The number of a training image of this class, whose prompts are read, in a run of
            ``prompt-generator`` with ``instances``; None: all of the class in turn.
        steps: Steps of masked decoding, at most the codes of an image; None: 12, or as many.
        temperature: None: 4.5, or 1 for a model that writes code by code.
        between: Two classes, or with ``label`` the numbers of two of its training images: the
            prompts move from the first to the second over the steps.
        interpolation: linear, or spherical: along the arc between two prompts.
        seed: Of all that is random.
        scores: Whether ``scores.json`` is written too, as
            :func:`iwlora.training.image_generation.scores.score_images` computes it.
        features: An image model of transformers, a folder or a hub id, whose features are taken for
            the scores, which are then written; None: the source model of the run.
        held_out: A further folder to write: the images that the run was scored on, at the size of
            the generated ones.
        trust_remote_code: As for :func:`iwlora.load_trained`.

    Returns:
        ``to`` as a path.

    Raises:
        IwloraError: The run generates no images, a class or a training image is unknown, there are
            more steps than codes, or something is in the folder already.
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
    of_real = None if held_out is None else new_folder_path(held_out)
    if of_real == target:
        raise IwloraError(f"{to} was given for generated and for held-out images; give two folders")
    model, codebook = load_saved(path, trust_remote_code=trust_remote_code)
    images_of = _training_images(model, task.labels)
    given = request_of_options(
        task.labels,
        images_of,
        label=label,
        instance=instance,
        between=between,
        scores=scores or features is not None,
        count=count,
        steps=steps,
        temperature=temperature,
        interpolation=interpolation,
        seed=seed,
    )
    request = completed(given, model.config, codebook)
    image_model = ImageModel.of(features, codebook, trust_remote_code) if features else None
    result, settings = run.result(), run.recipe().train
    precision = (result.precision if result else None) or settings.requested_precision
    if not run.recipe().quantize:
        model.to(run_device())  # type: ignore[arg-type]
    with (
        torch.inference_mode(),
        training_numerics(model, settings.fast_kernels, precision, run_device()),
    ):
        codes = generate_codes(model, codebook, request, task.labels)
    images = [codebook.decode(row.tolist()) for row in codes]
    found = None
    if scores or image_model is not None:
        named = [request.start(number, {}).label for number in range(request.count)]
        found = score_images(run.recipe(), codebook, codes, named, trust_remote_code, image_model)
    with whole_folder(target) as folder:
        _write(folder, images, request, images_of)
        if found is not None:
            found.save(folder / layout.IMAGE_SCORES)
        follow_umask(folder)
    if of_real is not None:
        write_held_out(run.recipe(), codebook, of_real)
    return target


def generate_codes(
    model: Any, codebook: Codebook, request: Request, labels: Sequence[str]
) -> Codes:
    """(images, N) codes, some images at a time."""
    parts = [
        _some(model, codebook, request, labels, range(start, start + _AT_A_TIME))
        for start in range(0, request.count, _AT_A_TIME)
    ]
    return np.concatenate(parts)[: request.count]


def _training_images(model: Any, labels: Sequence[str]) -> dict[str, int]:
    """How many training images of each class have prompts in a model; empty if none have."""
    return dict(zip(labels, model.class_prompts.images, strict=False))


def _some(
    model: Any, codebook: Codebook, request: Request, labels: Sequence[str], numbers: Sequence[int]
) -> Codes:
    """The codes of the images of these numbers."""
    device, tokens, mask = run_device(), codebook.tokens, mask_id(model.config)
    images = _training_images(model, labels)

    def arguments(prompts: Sequence[PromptsOf]) -> tuple[Any, Any]:
        classes = [labels.index(one.label) for one in prompts]
        instances = [-1 if one.instance is None else one.instance for one in prompts]
        return torch.tensor(classes, device=device), torch.tensor(instances, device=device)

    classes, instances = begin = arguments([request.start(number, images) for number in numbers])
    ends = [prompts for number in numbers if (prompts := request.end(number, images))]
    end = arguments(ends) if ends else None
    seeds = [(request.seed, number) for number in numbers]
    steps, temperature = request.steps or tokens, float(request.temperature or 0.0)

    def logits(codes: Codes, step: int) -> Any:
        read = torch.from_numpy(codes).to(device)
        weight = step / max(steps - 1, 1)
        with _prompts_on_the_way(model, begin, end, weight, request.interpolation):
            ids = torch.cat([classes[:, None], read], dim=1)
            output = model(input_ids=ids, instances=instances)
        return output.logits.float().cpu().numpy()

    if mask is None:
        return decode_in_order(logits, len(numbers), tokens, temperature=temperature, seeds=seeds)
    start = np.full((len(numbers), tokens), mask, np.int64)
    return decode_masked(logits, start, mask, steps=steps, temperature=temperature, seeds=seeds)


@contextmanager
def _prompts_on_the_way(
    model: Any,
    start: tuple[Any, Any],
    end: tuple[Any, Any] | None,
    weight: float,
    interpolation: Interpolation,
) -> Iterator[None]:
    """Inside the block, the model reads prompts between those of ``start`` and ``end``, if any.

    Both are (class ids, numbers of training images).
    """
    if end is None:
        yield
        return
    between = interpolate(
        model.class_prompts(*start), model.class_prompts(*end), weight, interpolation
    )
    hook = model.class_prompts.register_forward_hook(lambda *_: between)
    try:
        yield
    finally:
        hook.remove()


def _write(
    folder: Path, images: Sequence[Pixels], request: Request, training_images: Mapping[str, int]
) -> None:
    """Write the images, the contact sheet, and the table that says how they were made."""
    from PIL import Image

    records = []
    for number, image in enumerate(images):
        name = layout.image_file(number)
        start, end = request.start(number, training_images), request.end(number, training_images)
        Image.fromarray(image).save(folder / name)
        records.append(
            {
                "file": name,
                "class": start.label,
                "instance": start.instance,
                "towards": end and end.label,
                "towards_instance": end and end.instance,
                "seed": request.seed,
                "number": number,
                "steps": request.steps,
                "temperature": request.temperature,
                "interpolation": end and request.interpolation,
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
