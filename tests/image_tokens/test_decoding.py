from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from iwlora.errors import IwloraError
from iwlora.image_tokens.decoding import decode_in_order, decode_masked

N, K, MASK = 9, 5, 5


def model(codes: Any, step: int) -> Any:
    """Logits that depend on all codes of an image."""
    random = np.random.default_rng(3)
    table, mixing = random.normal(size=(MASK + 1, K)), random.normal(size=(N, N)) / 3
    return np.einsum("nm,imk->ink", mixing, table[codes]) + table[codes] + step / 10


def plain_decode(start: Any, steps: int, temperature: float, seed: Any) -> tuple[Any, list[int]]:
    """One image as the published code does it: sort, cut off, mask what is below."""
    random = np.random.default_rng(seed)
    ids, begin, counts = start.copy(), int((start == MASK).sum()), []
    for t in range(1, steps + 1):
        x = model(ids[None], t - 1)[0]
        p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        unknown = ids == MASK
        sampled = np.argmax(np.log(p) + random.gumbel(size=(N, K)), axis=1)
        sampled = np.where(unknown, sampled, ids)
        chosen = np.array([p[n, sampled[n]] if unknown[n] else np.inf for n in range(N)])
        confidence = np.log(chosen) + temperature * (1 - t / steps) * random.gumbel(size=N)
        masked = int(np.floor(begin * np.cos(np.pi / 2 * t / steps)))
        masked = max(1, min(int(unknown.sum()) - 1, masked))
        cut_off = np.sort(confidence)[masked]
        ids = sampled if t == steps else np.where(confidence < cut_off, MASK, sampled)
        counts.append(int((ids == MASK).sum()))
    return ids, counts


@pytest.mark.quick
@pytest.mark.parametrize(("steps", "temperature"), [(1, 4.5), (4, 0.0), (6, 4.5)])
def test_masked_decoding_is_that_of_plain_numpy(steps: int, temperature: float) -> None:
    known = np.full((3, N), MASK)
    known[1, 2], known[1, 7], known[2, 0] = 4, 0, 3
    seeds = [(7, number) for number in range(3)]
    seen: list[Any] = []

    def logits(codes: Any, step: int) -> Any:
        seen.append(codes.copy())
        return model(codes, step)

    found = decode_masked(logits, known, MASK, steps=steps, temperature=temperature, seeds=seeds)
    for image, seed in enumerate(seeds):
        expected, counts = plain_decode(known[image], steps, temperature, seed)
        assert found[image].tolist() == expected.tolist()
        unknown = [int((codes[image] == MASK).sum()) for codes in seen]
        assert [*unknown[1:], 0] == counts
    for codes in [*seen, found]:
        assert (codes[known != MASK] == known[known != MASK]).all()
    # What was settled in a step stays.
    for before, after in zip(seen, [*seen[1:], found], strict=True):
        assert (after[before != MASK] == before[before != MASK]).all()
    alone = decode_masked(
        model, known[2:], MASK, steps=steps, temperature=temperature, seeds=seeds[2:]
    )
    assert alone[0].tolist() == found[2].tolist()


def test_codes_in_order_are_drawn_from_the_model() -> None:
    seeds = [(0, number) for number in range(4000)]

    def logits(codes: Any, place: int) -> Any:
        after = np.where(codes[:, :1] == 0, 2.0, 0.0) if place else np.zeros((len(codes), 1))
        both = np.concatenate([np.zeros_like(after), after], axis=1)
        return np.repeat(both[:, None], 2, axis=1)

    drawn = decode_in_order(logits, 4000, 2, temperature=1.0, seeds=seeds)
    first = drawn[:, 0] == 0
    assert abs(first.mean() - 0.5) < 5 * 0.5 / np.sqrt(4000)
    share = np.exp(2) / (1 + np.exp(2))
    assert abs(drawn[first, 1].mean() - share) < 5 * np.sqrt(share * (1 - share) / first.sum())
    likeliest = decode_in_order(logits, 2, 2, temperature=0.0, seeds=seeds[:2])
    assert likeliest.tolist() == [[0, 1], [0, 1]]


def test_impossible_steps_and_temperatures_are_refused() -> None:
    masked = np.full((1, N), MASK)
    masked[0, 0] = 1
    for steps, temperature, problem in (
        (0, 1.0, "accepted are 1 to 8, the number of codes to generate"),
        (9, 1.0, "accepted are 1 to 8, the number of codes to generate"),
        (2, -1.0, "temperature=-1.0: accepted are finite numbers from 0"),
        (2, float("nan"), "temperature=nan"),
        (2, float("inf"), "temperature=inf"),
    ):
        with pytest.raises(IwloraError, match=problem):
            decode_masked(model, masked, MASK, steps=steps, temperature=temperature, seeds=[(0, 0)])
