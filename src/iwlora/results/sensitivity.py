"""A measurement: the sensitivity of each weight matrix and its uncertainty."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from iwlora.errors import IwloraError
from iwlora.inputs.yaml_json import parse_mapping, read_utf8, validation_errors
from iwlora.results.fingerprint import Fingerprint
from iwlora.results.formats import DIGEST, FIELD, check_digest, stamped, unstamped, with_digest
from iwlora.results.writing import write_text

FORMULAS = {
    "norm": "E‖G‖",
    "rms": "E‖G‖/√(d_in d_out)",
    "relative": "E‖G‖/‖W‖",
    "saliency": "E mean |W⊙G|",
    "mean": "‖E G‖",
    "example": "E‖G_i‖",
}
"""What s_k is in each statistic; G is the gradient of a batch, G_i that of an example."""

_NoLess = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1)]
_STRICT = ConfigDict(strict=True, extra="forbid")  # for what is read from a file


@dataclass(frozen=True)
class SiteSensitivity:
    """The sensitivity of one weight matrix of shape (d_out, d_in), or of one for each expert.

    ``value`` is s_k (for ``norm`` in units of loss per unit of weight); ``stderr`` is its
    standard error over calibration batches, None after a single one; ``depth`` is the index of
    the block that holds the matrix. In a mixture of experts, ``value`` is that of all matrices
    together, and ``expert_values`` and ``expert_tokens`` are, for each expert, the value of its
    matrix and the number of tokens that the expert got while measuring, with padding; None where
    there is only one matrix, or tokens were not counted.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    kind: str
    depth: Annotated[int, Field(ge=0)]
    d_in: _Count
    d_out: _Count
    value: _NoLess
    stderr: _NoLess | None
    expert_values: tuple[_NoLess, ...] | None = None
    expert_tokens: tuple[Annotated[int, Field(ge=0)], ...] | None = None

    @property
    def experts(self) -> int:
        """The number of matrices."""
        return len(self.expert_values or (self.value,))

    @property
    def is_router(self) -> bool:
        """Whether the matrix chooses experts, or weighs a shared expert."""
        return self.kind.removeprefix("decoder_") == "router"

    @property
    def largest_rank(self) -> int:
        """The smaller side of the matrix."""
        return min(self.d_in, self.d_out)

    @property
    def parameters_per_rank(self) -> int:
        """The number of parameters of a low-rank update of rank 1, over all experts."""
        return self.experts * (self.d_in + self.d_out)


@dataclass(frozen=True)
class Sensitivity:
    """Measured sensitivities s_k of the adapted matrices of one model.

    ``statistic`` names what s_k is, ``norm`` being E‖∂L/∂W_k‖_F (see ``iwlora.measure``),
    ``estimator`` how it was computed. ``batches`` is how many calibration batches were used,
    ``share_error`` the expected part of the total importance that still sits on the wrong
    matrices (see ``iwlora.measure``; None after a single batch), ``share_bound`` what that part
    does not exceed with 95% confidence, ``converged`` whether the expectation fell to the
    tolerance asked for, ``seconds`` the wall time. ``excluded`` names the matrices that get no
    importance: the forward pass did not use them, or an adapter has no effect on them.
    ``coverage`` is the share of the matrix parameters of the model's blocks that ``sites`` have,
    None if it is unknown. ``tolerance`` is the ``share_error`` that was accepted: None if it is
    unknown, 0 where all batches were to be measured. ``fingerprint`` says what a command or a run
    computed it from.

    >>> site = SiteSensitivity("layer.0.query", "query", 0, 4, 4, value=0.5, stderr=0.1)
    >>> Sensitivity((site,), "exact", 8, 0.01, True, 1.5).values
    {'layer.0.query': 0.5}
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    sites: tuple[SiteSensitivity, ...]
    estimator: str
    batches: _Count
    share_error: _NoLess | None
    converged: bool
    seconds: _NoLess
    statistic: str = "norm"
    share_bound: _NoLess | None = None
    excluded: tuple[str, ...] = ()
    coverage: _NoLess | None = None
    tolerance: _NoLess | None = None
    fingerprint: Fingerprint | None = None

    @property
    def included(self) -> tuple[SiteSensitivity, ...]:
        """The sites that get importance: all except the excluded ones."""
        return tuple(site for site in self.sites if site.name not in set(self.excluded))

    @property
    def values(self) -> dict[str, float]:
        """{site name: s_k}, in the order of the model's forward pass."""
        return {site.name: site.value for site in self.sites}

    def of_block(self, block: str) -> float:
        """√Σ s_k² over the matrices of a block: the norm of their gradients taken together."""
        sites = (site for site in self.sites if site.name.startswith(f"{block}."))
        return math.hypot(*(site.value for site in sites))

    @property
    def stderr(self) -> dict[str, float | None]:
        """{site name: standard error of s_k over batches}."""
        return {site.name: site.stderr for site in self.sites}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, atomically."""
        fields = asdict(replace(self, fingerprint=None))
        del fields["fingerprint"]
        if self.fingerprint is not None:
            fields["fingerprint"] = self.fingerprint.fields()
        fields["sites"] = [
            {key: value for key, value in site.items() if value is not None or key == "stderr"}
            for site in fields["sites"]
        ]
        write_text(path, json.dumps(with_digest(stamped("sensitivity", fields)), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sensitivity:
        """Read what :meth:`save` wrote; raises ``IwloraError`` for anything else."""
        fix = f"{path} is not a sensitivity file; make one with 'iwlora measure --out FILE'"
        text = read_utf8(path)
        try:
            stored = parse_mapping(text, path)
        except IwloraError as error:
            raise IwloraError(f"{fix} ({error})") from None
        if "sensitivity" not in str(stored.get(FIELD)):
            raise IwloraError(f"{fix} (it does not have the {FIELD} of one)")
        fields, _ = unstamped("sensitivity", stored, path)
        check_digest(stored, path)
        fields.pop(DIGEST, None)
        with validation_errors(fix):
            sensitivity = TypeAdapter(cls).validate_json(json.dumps(fields))
        twice = [name for name, n in Counter(s.name for s in sensitivity.sites).items() if n > 1]
        if twice:
            raise IwloraError(f"{fix} (it holds {twice[0]} twice)")
        if sensitivity.statistic not in FORMULAS or not any(sensitivity.values.values()):
            raise IwloraError(f"{fix} (it holds no sensitivities of a known statistic)")
        return sensitivity
