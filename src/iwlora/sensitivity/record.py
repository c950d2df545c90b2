"""What a measurement found: one number and its uncertainty for each site. Needs no torch."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from iwlora.errors import IwloraError
from iwlora.files import write_text

FORMAT = "iwlora-sensitivity/1"

FORMULAS = {
    "norm": "E‖G‖",
    "rms": "E‖G‖/√(d_in d_out)",
    "relative": "E‖G‖/‖W‖",
    "saliency": "E mean |W⊙G|",
    "mean": "‖E G‖",
    "example": "E‖G_i‖",
}
"""What s_k is in each statistic; G is the gradient of a batch, G_i that of an example."""


@dataclass(frozen=True)
class SiteSensitivity:
    """The sensitivity of one weight matrix of shape (d_out, d_in).

    ``value`` is s_k (for ``norm`` in units of loss per unit of weight); ``stderr`` is its
    standard error over calibration batches, None after a single one; ``depth`` is the index of
    the block that holds the matrix.
    """

    name: str
    kind: str
    depth: int
    d_in: int
    d_out: int
    value: float
    stderr: float | None


@dataclass(frozen=True)
class Sensitivity:
    """Measured sensitivities s_k of the adapted matrices of one model.

    ``statistic`` names what s_k is, ``norm`` being E‖∂L/∂W_k‖_F (see ``iwlora.measure``),
    ``estimator`` how it was computed. ``batches`` is how many calibration batches were used,
    ``share_error`` the expected part of the total importance that still sits on the wrong
    matrices (see ``iwlora.measure``; None after a single batch), ``share_bound`` what that part
    does not exceed with 95% confidence, ``converged`` whether the expectation fell to the
    tolerance asked for, ``seconds`` the wall time.

    >>> site = SiteSensitivity("layer.0.query", "query", 0, 4, 4, value=0.5, stderr=0.1)
    >>> Sensitivity((site,), "exact", 8, 0.01, True, 1.5).values
    {'layer.0.query': 0.5}
    """

    sites: tuple[SiteSensitivity, ...]
    estimator: str
    batches: int
    share_error: float | None
    converged: bool
    seconds: float
    statistic: str = "norm"
    share_bound: float | None = None

    @property
    def values(self) -> dict[str, float]:
        """{site name: s_k}, in the order of the model's forward pass."""
        return {site.name: site.value for site in self.sites}

    @property
    def stderr(self) -> dict[str, float | None]:
        """{site name: standard error of s_k over batches}."""
        return {site.name: site.stderr for site in self.sites}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, atomically."""
        write_text(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sensitivity:
        """Read what :meth:`save` wrote; raises ``IwloraError`` for anything else."""
        fix = f"{path} is not a sensitivity file; make one with 'iwlora measure --out FILE'"
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise IwloraError(f"no such file: {path}") from None
        except (OSError, ValueError) as error:
            raise IwloraError(f"{fix} ({error})") from None
        if not isinstance(stored, dict) or stored.pop("format", None) != FORMAT:
            raise IwloraError(f"{fix} (its format is not {FORMAT!r})")
        try:
            sites = tuple(SiteSensitivity(**site) for site in stored.pop("sites"))
            sensitivity = cls(sites, **stored)
            finite = all(math.isfinite(site.value) for site in sites)
            known = sensitivity.statistic in FORMULAS
        except (TypeError, KeyError) as error:
            raise IwloraError(f"{fix} ({error})") from None
        if not sites or not finite or not known:
            raise IwloraError(f"{fix} (it holds no finite sensitivities of a known statistic)")
        return sensitivity
