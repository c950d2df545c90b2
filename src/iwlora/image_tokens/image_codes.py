"""What the configuration of a transformer says of the codes that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from iwlora.errors import IwloraError, short_repr
from iwlora.image_tokens.codebook import MOST_CODES, MOST_TOKENS, Codebook

_FIELD = "image_codes"
_TRAINING_IMAGES = "training_images"
MASKED_TYPES = ("bert",)
"""Types of transformers whose models predict masked codes; others predict the next code."""


@dataclass(frozen=True)
class ImageCodes:
    """The codes of a model, in the field ``image_codes`` of its ``config.json``.

    The first ``count`` ids of its vocabulary are codes; of a masked model the last id is the mask.

    Args:
        count: K, the number of codes.
        tokens: N, the codes of an image.
        digest: ``Codebook.digest`` of the codebook that the model was trained with.
    """

    count: int
    tokens: int
    digest: str

    @classmethod
    def of(cls, config: Any) -> ImageCodes:
        """What a configuration of transformers says.

        Raises:
            IwloraError: It says nothing, or something impossible.
        """
        stored = getattr(config, _FIELD, None)
        if not isinstance(stored, dict) or stored.keys() != {"count", "tokens", "digest"}:
            raise IwloraError(
                f"a model of type {config.model_type} whose config.json has no {_FIELD} does not "
                "read the codes of images; 'iwlora codes' makes one that does"
            )
        count, tokens, digest = (stored[name] for name in ("count", "tokens", "digest"))
        whole = type(count) is int and type(tokens) is int and isinstance(digest, str)
        if not whole or not 2 <= count <= MOST_CODES or not 1 <= tokens <= MOST_TOKENS:
            raise IwloraError(f"config.json has {_FIELD}={short_repr(stored)}, which cannot be")
        needed = count + (config.model_type in MASKED_TYPES)
        if config.vocab_size < needed:
            raise IwloraError(
                f"config.json has {_FIELD}={short_repr(stored)} and vocab_size={config.vocab_size}"
                f"; at least {needed:,} are needed, with the mask if the model is masked"
            )
        read = tokens + (config.model_type in MASKED_TYPES)  # the last code predicts no other
        if config.max_position_embeddings < read:
            raise IwloraError(
                f"the model has {config.max_position_embeddings} positions, and a class and "
                f"{tokens} codes need {read}"
            )
        return cls(count, tokens, digest)

    @classmethod
    def of_codebook(cls, codebook: Codebook) -> ImageCodes:
        """Those of a codebook."""
        return cls(codebook.count, codebook.tokens, codebook.digest)

    def put_into(self, config: Any) -> None:
        """Say so in a configuration."""
        setattr(config, _FIELD, asdict(self))

    def check(self, codebook: Codebook) -> None:
        """Raise ``IwloraError`` for another codebook than that of the model."""
        if codebook.digest != self.digest:
            raise IwloraError(
                f"the codes are of another codebook: the model was made for {self.count} codes "
                f"with the digest {self.digest}, and the codebook beside it has {codebook.count} "
                f"with {codebook.digest}; restore the codebook of the model"
            )


def put_training_images(config: Any, counts: Sequence[int]) -> None:
    """Say in a configuration how many images of each of its classes are trained on."""
    absent = [0] * (config.num_labels - len(counts))
    setattr(config, _TRAINING_IMAGES, [*counts, *absent])


def training_images(config: Any) -> tuple[int, ...]:
    """How many images of each class are trained on; 0 where that is not known."""
    return tuple(getattr(config, _TRAINING_IMAGES, (0,) * config.num_labels))


def mask_id(config: Any) -> int | None:
    """The id that stands for a masked code; None for a model that predicts the next code."""
    return config.vocab_size - 1 if config.model_type in MASKED_TYPES else None
