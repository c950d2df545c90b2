"""Codes of new images from a trained transformer: masked decoding in steps, or code by code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from iwlora.errors import IwloraError
from iwlora.image_tokens.masking import still_masked

Codes = npt.NDArray[np.int64]
Logits = Callable[[Codes, int], npt.NDArray[Any]]
"""(codes of all images, step from 0) -> (images, N, K) logits."""


def decode_masked(
    logits: Logits,
    codes: Codes,
    mask: int,
    *,
    steps: int,
    temperature: float,
    seeds: Sequence[Sequence[int]],
) -> Codes:
    """Fill in the masked codes of images in T steps, the surest first.

    In step t each masked code is drawn from the model's distribution p. Its confidence is
    log p + temperature · (1 - t/T) · g, with g from the standard Gumbel distribution. The
    max(1, min(unknown - 1, ⌊N cos(πt/2T)⌋)) of the lowest confidence are masked again, the others
    are kept; in the last step all are kept. Codes that are known from the start never change.

    Args:
        logits: The model: gets the codes, masked ones included, and the step from 0.
        codes: (images, N), with ``mask`` where a code is to be generated.
        mask: The id of a masked code.
        steps: T, at most the number of masked codes of an image.
        temperature: From 0; a larger one makes images more varied.
        seeds: For each image whole numbers, from which all that is random in it is drawn, whatever
            other images there are.

    Returns:
        (images, N) codes without a mask.

    Raises:
        IwloraError: There are more steps than masked codes, or a number is impossible.

    Source:
        Chang et al. 2022, arXiv:2202.04200, section 3.2, and the code released with it.
    """
    unknown = codes == mask
    masked = unknown.sum(1)
    if not 1 <= steps <= masked.min():
        raise IwloraError(
            f"steps={steps}: accepted are 1 to {masked.min()}, the number of codes to generate, "
            "since each step settles one at least"
        )
    check_temperature(temperature)
    current: Codes = codes.copy()
    random = [np.random.default_rng([*seed]) for seed in seeds]
    for step in range(1, steps + 1):
        log_p = log_softmax(logits(current, step - 1))
        for image, rng in enumerate(random):
            drawn, sure = _drawn(log_p[image], rng)
            free = np.flatnonzero(unknown[image])
            noise = rng.gumbel(size=len(sure))
            current[image, free] = drawn[free]
            if step == steps:
                continue
            confidence = (sure + temperature * (1 - step / steps) * noise)[free]
            count = still_masked(int(masked[image]), len(free), step, steps)
            again = free[np.argsort(confidence, kind="stable")[:count]]
            current[image, again] = mask
            unknown[image] = current[image] == mask
    return current


def decode_in_order(
    logits: Logits, images: int, tokens: int, *, temperature: float, seeds: Sequence[Sequence[int]]
) -> Codes:
    """Draw the codes of images one after the other.

    Code n is drawn from softmax(logits_n / temperature); with 0 it is the likeliest.

    Args:
        logits: The model: gets the codes so far, 0 for the later ones, and the place n from 0.
        images: Their number.
        tokens: N, of an image.
        temperature: From 0; 1 is the distribution of the model.
        seeds: As for :func:`decode_masked`.

    Raises:
        IwloraError: The temperature is impossible.
    """
    check_temperature(temperature)
    current = np.zeros((images, tokens), np.int64)
    random = [np.random.default_rng([*seed]) for seed in seeds]
    for place in range(tokens):
        of_place = np.asarray(logits(current, place), np.float64)[:, place]
        for image, rng in enumerate(random):
            noise = rng.gumbel(size=of_place.shape[1])
            current[image, place] = int((of_place[image] + temperature * noise).argmax())
    return current


def check_temperature(temperature: float) -> None:
    """Raise ``IwloraError`` for a number that is none of a temperature."""
    if not 0 <= temperature < float("inf"):
        raise IwloraError(f"temperature={temperature}: accepted are finite numbers from 0")


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """log p of logits along the last axis, in float64."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    shifted: npt.NDArray[np.float64] = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return shifted


def _drawn(
    log_p: npt.NDArray[np.float64], random: np.random.Generator
) -> tuple[Codes, npt.NDArray[np.float64]]:
    """A code for each place, drawn from p by Gumbel's trick, and its log p."""
    codes = (log_p + random.gumbel(size=log_p.shape)).argmax(-1)
    return codes, log_p[np.arange(len(codes)), codes]
