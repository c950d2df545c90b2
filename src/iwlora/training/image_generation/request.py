"""What images are to be generated: of which prompts, in which steps, and what cannot be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from iwlora.errors import IwloraError, raise_all, unknown
from iwlora.image_tokens.codebook import Codebook
from iwlora.image_tokens.decoding import check_temperature
from iwlora.image_tokens.image_codes import ImageCodes, mask_id
from iwlora.image_tokens.interpolation import Interpolation

MOST_IMAGES = 100_000
STEPS, MASKED_TEMPERATURE = 12, 4.5
"""Those of MaskGIT's decoder."""


class PromptsOf(NamedTuple):
    """The prompts of a class, or of a training image of it by its number there."""

    label: str
    instance: int | None


@dataclass(frozen=True)
class Request:
    """What images are to be generated.

    Args:
        count: Their number.
        classes: The class of each in turn.
        instance: The training image of the class whose prompts are read; None: all of them in turn,
            where training images have prompts.
        steps: Of masked decoding; None: 12, or as many as an image has codes. None for a model that
            writes code by code.
        temperature: None: that of the published decoder, 4.5, or 1 code by code.
        towards: The class to which the prompts move over the steps; None: they stay.
        towards_instance: Its training image, as ``instance``.
        interpolation: How they move.
        seed: Of all that is random.
    """

    count: int = 64
    classes: tuple[str, ...] = ()
    instance: int | None = None
    steps: int | None = None
    temperature: float | None = None
    towards: str | None = None
    towards_instance: int | None = None
    interpolation: Interpolation = "linear"
    seed: int = 0

    def start(self, number: int, images: Mapping[str, int]) -> PromptsOf:
        """The prompts with which an image begins.

        Args:
            number: Of the image.
            images: How many training images of each class have prompts; empty if none have.
        """
        label = self.classes[number % len(self.classes)]
        return PromptsOf(label, self._in_turn(self.instance, number, images.get(label, 0)))

    def end(self, number: int, images: Mapping[str, int]) -> PromptsOf | None:
        """The prompts to which an image moves, if it does; the arguments as for :meth:`start`."""
        if self.towards is None:
            return None
        count = images.get(self.towards, 0)
        return PromptsOf(self.towards, self._in_turn(self.towards_instance, number, count))

    def _in_turn(self, given: int | None, number: int, count: int) -> int | None:
        if given is not None or not count:
            return given
        return number // len(self.classes) % count


def request_of_options(
    labels: Sequence[str],
    images: Mapping[str, int],
    *,
    label: str | None,
    instance: int | None,
    between: tuple[str, str] | None,
    scores: bool,
    **others: Any,
) -> Request:
    """The request that options describe.

    Args:
        labels: The classes of the run.
        images: How many training images of each have prompts; empty if none have.
        label: A class, or None for all in turn.
        instance: The number of a training image in the class.
        between: Two classes, or with ``label`` the numbers of two training images.
        scores: Whether the images are scored, as images of a class.
        others: Further fields of :class:`Request`.

    Raises:
        IwloraError: A class or a training image is unknown, a number is impossible, or options do
            not go together; all problems at once.
    """
    problems, given = list[str](), tuple[str, ...](between or ())
    classes, towards = tuple(labels) if label is None else (label,), label
    if between is not None and label is None:
        classes, towards, given = between[:1], between[1], ()
        if scores:
            problems.append(
                "--interpolate A B makes images of no class, and only those of a class are scored; "
                "leave it out, or --scores and --features"
            )
    if instance is not None:
        given = (str(instance),)
        if between is not None:
            problems.append("--instance and --interpolate were given; give one of them")
    absent = [name for name in dict.fromkeys((*classes, towards)) if name and name not in labels]
    problems += [str(unknown("class", name, labels)) for name in absent]
    numbers = list[int]()
    if not absent:
        wrong = _problem_of_images(given, classes, images)
        problems += wrong
        numbers = [] if wrong else [int(number) for number in given]
    request = Request(
        classes=classes,
        instance=numbers[0] if numbers else None,
        towards=towards if between is not None else None,
        towards_instance=numbers[-1] if numbers and between is not None else None,
        **others,
    )
    if not 1 <= request.count <= MOST_IMAGES:
        problems.append(f"count={request.count}: accepted are 1 to {MOST_IMAGES:,} images")
    if request.seed < 0:
        problems.append(f"seed={request.seed}: accepted are whole numbers from 0")
    raise_all(problems)
    return request


def _problem_of_images(
    given: Sequence[str], classes: Sequence[str], images: Mapping[str, int]
) -> list[str]:
    """What is wrong with the numbers of training images of a class; empty if nothing is."""
    if not given:
        return []
    numbers = " and ".join(given)
    if not images:
        return [
            "--instance, and --interpolate with --class, name training images by their numbers "
            f"(given: {numbers}), and the run has no prompts of single images, which "
            "method.instances=true trains; name classes alone"
        ]
    if len(classes) > 1:
        return ["--instance needs --class: training images are numbered in their class"]
    count = images[classes[0]]
    if all(number.isdecimal() and int(number) < count for number in given):
        return []
    accepted = f"with the numbers from 0 to {count - 1}" if count else "so no prompts of any"
    return [f"class {classes[0]} has {count} training images, {accepted}; given: {numbers}"]


def completed(request: Request, config: Any, codebook: Codebook) -> Request:
    """The request with the steps and the temperature that it leaves open, after a check."""
    ImageCodes.of(config).check(codebook)
    is_masked, steps, tokens = mask_id(config) is not None, request.steps, codebook.tokens
    if not is_masked and (steps is not None or request.towards is not None):
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
    temperature = request.temperature
    if temperature is None:
        temperature = MASKED_TEMPERATURE if is_masked else 1.0
    check_temperature(temperature)
    if is_masked and steps is None:
        steps = min(STEPS, tokens)
    return replace(request, steps=steps, temperature=temperature)
