"""Cases that once broke a rule; they run before all others."""

from __future__ import annotations

from hostile.case import Case

REGRESSIONS: tuple[Case, ...] = ()
