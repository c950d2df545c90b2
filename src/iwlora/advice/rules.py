"""The rules of the advice: each asks the table, and says in words what it found.

Where the table has no row with a verdict, the answers are LoRA, one rank for all matrices, and more
matrices at a lower rank before fewer at a higher one. A *lead* never changes these answers; it may
set the learning rate to begin with, which is a start and no result. A row of another regime of
training, with flipped labels, few rows or very few steps, is shown as such and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iwlora.advice.evidence import Evidence, Table, not_measured
from iwlora.advice.layouts import WHOLE_RANK, Layout
from iwlora.advice.measured import Measured
from iwlora.methods import METHODS
from iwlora.methods.low_rank.lora import Lora
from iwlora.sensitivity.options import MeasureOptions

_SMALL = 0.5  # a share of rank 8's parameters up to which an adapter counts as small
_FACTOR = 3  # of the learning rate that small adapters were tried at


@dataclass(frozen=True)
class Reason:
    """Why the advice is what it is: what it is about, a sentence, and the rows of the table."""

    subject: str
    text: str
    rows: tuple[Evidence, ...] = ()
    missing: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The sentence, and each row or what is not measured below it."""
        found = [f"  {row.sentence()}" for row in self.rows]
        return [self.text, *found, *(f"  {text}" for text in self.missing)]


@dataclass(frozen=True)
class Sized:
    """A layout with its rank and the number of its parameters."""

    layout: Layout
    rank: int

    @property
    def label(self) -> str:
        """Its label in the table."""
        return self.layout.label(self.rank)

    @property
    def parameters(self) -> int:
        """Of the adapter."""
        return self.layout.parameters(self.rank)


class Rules:
    """The table, asked for one task and one model.

    Args:
        table: the table of evidence.
        measured: the kind of task and its number of training rows.
        model: the model.
        whole: all matrices of the model.
    """

    def __init__(self, table: Table, measured: Measured, model: str, whole: Layout) -> None:
        self._table, self._model, self.whole = table, model, whole
        self._kind, self._training_rows = measured.kind, measured.training_rows

    def share(self, parameters: int) -> float:
        """A number of parameters as a share of those of rank 8 at all matrices."""
        return parameters / self.whole.parameters(WHOLE_RANK)

    def ask(self, choice: str, baseline: str, share: float | None = None) -> Evidence | None:
        """The row on a choice that applies to this task, if there is one."""
        question = (choice, baseline, self._kind, self._model, share)
        return self._table.find(*question, training_rows=self._training_rows)

    def quote(self, choice: str, baseline: str, share: float | None = None) -> Reason:
        """The row on a choice, or that it was not measured, or only in another regime."""
        if row := self.ask(choice, baseline, share):
            return Reason("", "", (row,))
        elsewhere = self._table.find(choice, baseline, self._kind, self._model, share)
        return Reason("", "", (), (not_measured(choice, baseline, self._kind, elsewhere),))

    def size(
        self, options: Sequence[Sized], rank_is_given: bool, limited: bool
    ) -> tuple[Sized, Reason]:
        """Which matrices and which rank.

        Args:
            options: what fits the limits, the widest spread first.
            rank_is_given: whether the user has set the rank.
            limited: whether there is a limit of parameters.
        """
        chosen = options[0]
        share = self.share(chosen.parameters)
        if not rank_is_given and chosen.layout is self.whole:
            for rank in range(1, chosen.rank):
                row = self.ask(self.whole.label(rank), chosen.label)
                if row and row.allows_fewer(self._model, self._training_rows):
                    text = f"rank {rank} at all matrices is as good with so many training rows"
                    return Sized(self.whole, rank), Reason("matrices and rank", text, (row,))
        for option in options[1:]:
            row = self.ask(option.label, chosen.label, share)
            control = option.layout.control
            against = self.ask(option.label, control) if control else row
            if row and against and row.verdict == against.verdict == "better":
                text = f"{option.layout.title} are better at this size than {chosen.label}"
                rows = tuple(dict.fromkeys((row, against)))
                return option, Reason("matrices and rank", text, rows)
        return chosen, self._why_spread(chosen, rank_is_given, limited)

    def _why_spread(self, chosen: Sized, rank_is_given: bool, limited: bool) -> Reason:
        whole, small = self.whole.label(WHOLE_RANK), self.whole.label(1)
        label, share = chosen.label, self.share(chosen.parameters)
        found = [self.quote(small, whole)]
        if label not in (whole, small):
            found.append(self.quote(label, whole, share))
        if rank_is_given:
            text = "the rank as given"
        elif limited and label != whole:
            text = "as many matrices as the limit allows, before a higher rank"
        else:
            text = (
                "all matrices have one rank: no smaller choice is shown to be as good for this "
                "model and so many training rows"
            )
        rows = tuple(row for reason in found for row in reason.rows)
        return Reason(
            "matrices and rank", text, rows, tuple(t for reason in found for t in reason.missing)
        )

    def importance(self) -> Reason:
        """Whether importance may choose matrices or ranks."""
        asked = (
            ("lora-importance-ranks", "lora-random-ranks"),
            ("important-sites", "random-sites"),
            ("iw-lora-repaired", "iw-lora-repaired-permuted"),
        )
        found = [self.quote(*question) for question in asked]
        rows = tuple(row for reason in found for row in reason.rows)
        better = [row.choice for row in rows if row.verdict == "better"]
        text = (
            f"better than its control: {', '.join(better)}"
            if better
            else "chooses neither matrices nor ranks: no row shows that it is better than the same "
            "choice by chance"
        )
        return Reason(
            "importance", text, rows, tuple(t for reason in found for t in reason.missing)
        )

    def leaving_out(self) -> Reason:
        """What is known about leaving out the least important matrices."""
        choice = "without-unimportant-sites"
        asked = (
            (choice, self.whole.label(WHOLE_RANK)),
            (choice, "without-random-sites"),
            ("unimportant-sites", "random-sites"),
        )
        found = [self.quote(*question) for question in asked]
        rows = tuple(row for reason in found for row in reason.rows)
        return Reason("leaving out", "", rows, tuple(t for r in found for t in r.missing))

    def method(self, parameters: int) -> tuple[str, Reason]:
        """The method: LoRA, unless another one is better at this size, and than its controls.

        Args:
            parameters: of the adapter.
        """
        share = self.share(parameters)
        rows = tuple(self._method_rows(share))
        better = {row.choice: row for row in rows if row.verdict == "better"}
        for name, row in sorted(better.items(), key=lambda item: -(item[1].low or 0.0)):
            method = METHODS.get(name)
            if method is None or not issubclass(method, Lora):
                continue
            controls = {n for n in METHODS if METHODS[n].control_of} - {name}
            against = [found for n in controls if (found := self.ask(name, n, share))]
            needs_control = issubclass(method, MeasureOptions)
            if all(r.verdict == "better" for r in against) and (against or not needs_control):
                return name, Reason("method", f"{name} is better than lora", (row, *against))
        text = "lora: the table has no method that is better"
        unknown = "not measured for this kind"
        if self._table.choices("lora", self._kind):
            unknown = "measured in other regimes or sizes only"
        missing = () if rows else (f"other methods: {unknown} ({self._kind})",)
        return "lora", Reason("method", text, rows, missing)

    def _method_rows(self, share: float) -> Iterator[Evidence]:
        for choice in self._table.choices("lora", self._kind):
            if row := self.ask(choice, "lora", share):
                yield row

    def learning_rate(self, usual: float, parameters: int) -> tuple[float, Reason]:
        """The learning rate to begin with.

        Args:
            usual: that of rank 8 at all matrices, by the width of the model.
            parameters: of the adapter.
        """
        share, start = self.share(parameters), f"{usual:g} by the width of the model"
        choice, baseline = f"learning-rate-x{_FACTOR}", "learning-rate-x1"
        found = self.quote(choice, baseline, share)
        for row in found.rows:
            if share <= _SMALL and row.difference > 0 and row.verdict in ("better", "lead"):
                value = float(f"{usual * _FACTOR:.12g}")
                text = f"{_FACTOR} times {start}: small adapters want more; search around it"
                return value, Reason("learning rate", text, found.rows)
        text = f"{start}; search around it (search.lr in a comparison)"
        return usual, Reason("learning rate", text, found.rows, found.missing)
