"""Runs that take turns in one process, and compute their training steps together.

Each run is an ordinary run in a thread of its own, with its own Trainer, optimizer, schedule,
penalty and checkpoints. Only one thread works at a time. A run that needs a forward or a backward
pass of its model waits; when all wait, one of them computes the pass of all over one frozen model.
"""

from __future__ import annotations

import copy
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from iwlora.errors import is_out_of_memory
from iwlora.training.loop.interrupts import SaveOnInterrupt
from iwlora.training.loop.trainer import FineTuningTrainer
from iwlora.training.packed.joint_pass import Batch, JointModel, JointPass, share_frozen
from iwlora.training.packed.randomness import ProcessState, begin_as_new_process
from iwlora.training.packed.seat import Purpose, Seat, fits, is_watched, trains_alone

logger = logging.getLogger("iwlora")


class Pack:
    """Runs that are trained together.

    Args:
        most_runs: The largest number of runs in one pass; it is halved when memory is not enough.

    Example:
        >>> pack = Pack()
        >>> pack.execute([lambda: 1, lambda: 2])
        [1, 2]
    """

    def __init__(self, most_runs: int = 64) -> None:
        self.most_runs = most_runs
        self.passes = 0
        """Joint forward passes so far."""
        self._turn = threading.Lock()
        self._busy = self._runs = 0
        self._seats: list[Seat] = []
        self._first_of: list[Seat] = []
        self._joint: tuple[list[Seat], JointModel] | None = None
        self._pass: _OpenPass | None = None
        self._interrupts: list[SaveOnInterrupt] = []
        self._interrupted: int | None = None

    def execute(self, work: Sequence[Callable[[], Any]]) -> list[Any]:
        """Do all work, each in a thread of its own; an exception is returned in place of a result.

        Work that trains joins the pack with :meth:`joined`.
        """
        results: list[Any] = [None] * len(work)

        def one(number: int) -> None:
            with self._turn:
                begin_as_new_process()
                try:
                    results[number] = work[number]()
                except BaseException as error:
                    results[number] = error
                finally:
                    self._busy -= 1
                    self._wake_next()

        self._busy = self._runs = len(work)
        threads = [threading.Thread(target=one, args=(n,), daemon=True) for n in range(len(work))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def interrupt(self, number: int) -> None:
        """Let every run end after a checkpoint of its current step, as for a signal to it."""
        self._interrupted = number
        for interrupts in self._interrupts:
            interrupts.catch(number)

    @contextmanager
    def joined(
        self, trainer: FineTuningTrainer, interrupts: SaveOnInterrupt | None = None
    ) -> Iterator[None]:
        """Inside the block, the training steps of a run are computed with those of others."""
        seat = self._take_seat(trainer)
        trainer.other_runs = self._runs - 1
        model, accelerator = seat.model, trainer.accelerator
        forward, replaced, backward = (
            model.forward,
            vars(model).get("forward"),
            accelerator.backward,
        )

        def packed_forward(*args: Any, **kwargs: Any) -> Any:
            seat.batch = None if args else Batch.of(kwargs)
            together = model.training and torch.is_grad_enabled() and seat in self._seats
            if seat.batch is None or not together or seat.alone or is_watched(seat):
                seat.outputs = None
                return forward(*args, **kwargs)
            self._wait(seat, "forward")
            return forward(*args, **kwargs) if seat.outputs is None else seat.outputs

        def packed_backward(loss: Any, **kwargs: Any) -> None:
            backward(loss, **kwargs)
            if seat.outputs is not None:
                self._wait(seat, "backward")

        model.forward, accelerator.backward = packed_forward, packed_backward
        if interrupts is not None:
            self._interrupts.append(interrupts)
            if self._interrupted is not None:
                interrupts.catch(self._interrupted)
        try:
            yield
        finally:
            if interrupts is not None:
                self._interrupts.remove(interrupts)
            self._leave(seat)
            accelerator.backward = backward
            if model.forward is packed_forward:  # the Trainer may have wrapped it
                del model.forward
                if replaced is not None:
                    model.forward = replaced

    def _take_seat(self, trainer: FineTuningTrainer) -> Seat:
        turn = threading.Condition(self._turn)
        seat = Seat(trainer, len(self._first_of), turn, alone=trains_alone(trainer))
        for group, first in enumerate(self._first_of):
            if fits(seat, first) and share_frozen(seat.model, first.model):
                seat.group = group
                break
        else:
            self._first_of.append(seat)
        self._seats.append(seat)
        return seat

    def _leave(self, seat: Seat) -> None:
        self._seats.remove(seat)
        self._joint = None
        if self._first_of[seat.group] is seat:  # so that its model is freed
            others = [other for other in self._seats if other.group == seat.group]
            self._first_of[seat.group] = others[0] if others else seat

    def _wait(self, seat: Seat, purpose: Purpose) -> None:
        """Wait until a joint pass has been computed."""
        began = time.perf_counter()
        seat.state.save()
        seat.waits_for, seat.joint_seconds, seat.error = purpose, 0.0, None
        self._busy -= 1
        self._wake_next()
        while seat.waits_for is not None:
            if self._busy == 0 and seat is self._next()[0]:
                self._compute(self._next())
            else:
                seat.turn.wait()
        seat.state.restore()
        seat.trainer.waited += time.perf_counter() - began - seat.joint_seconds
        if seat.error is not None:
            raise seat.error

    def _wake_next(self) -> None:
        if self._busy == 0 and (seats := self._next()):
            seats[0].turn.notify()

    def _next(self) -> list[Seat]:
        """The runs that the next pass is of; the first of them computes it."""
        if backward := [seat for seat in self._seats if seat.waits_for == "backward"]:
            return backward
        forward = [seat for seat in self._seats if seat.waits_for == "forward"]
        alike = [seat for seat in forward if seat.key() == forward[0].key()]
        return alike[: self.most_runs]

    def _compute(self, seats: list[Seat]) -> None:
        """One pass, after which its runs go on; with too little memory, nothing but a halving."""
        began, forward = time.perf_counter(), seats[0].waits_for == "forward"
        before = [copy.copy(seat.state) for seat in seats]
        try:
            if forward:
                self._forward(seats)
            else:
                self._backward(seats)
        except Exception as error:
            for seat, state in zip(seats, before, strict=True):
                seat.state = state
            if forward and is_out_of_memory(error) and len(seats) > 1:
                self._halve(len(seats))
                return
            for seat in seats:
                seat.outputs = None
                seat.alone, seat.error = forward, None if forward else error
            if forward:
                reason = f"{type(error).__name__}: {error}"
                logger.warning(f"{len(seats)} runs are not computed together: {reason}")
        for seat in seats:
            seat.waits_for, seat.joint_seconds = None, (time.perf_counter() - began) / len(seats)
            seat.turn.notify()
        self._busy += len(seats)

    def _forward(self, seats: list[Seat]) -> None:
        self._pass = None
        for seat in seats:
            seat.outputs = None
        if len(seats) == 1:
            return  # it computes its own model
        states = [copy.copy(seat.state) for seat in seats]
        self._pass = _OpenPass(seats, states, self._joint_pass(seats))
        for seat, outputs in zip(seats, self._pass.joint.outputs, strict=True):
            seat.outputs = outputs
        self.passes += 1

    def _joint_pass(self, seats: list[Seat]) -> JointPass:
        if self._joint is None or self._joint[0] != seats:
            self._joint = seats, JointModel([seat.model for seat in seats])
        batches = [seat.batch for seat in seats if seat.batch is not None]
        states = [seat.state for seat in seats]
        return JointPass(self._joint[1], batches, states, seats[0].pad_token)

    def _backward(self, seats: list[Seat]) -> None:
        assert self._pass is not None
        opened, self._pass = self._pass, None
        again = False
        try:
            self._add_gradients(opened.seats, opened.joint, seats)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            again = True
        all_seats, states = opened.seats, opened.states
        del opened  # and with it what the pass keeps for its backward pass
        if again:
            self._halve(len(all_seats))
            self._backward_in_parts(all_seats, states, seats)
        for seat in seats:
            seat.outputs = None

    def _backward_in_parts(
        self, all_seats: list[Seat], states: list[ProcessState], seats: list[Seat]
    ) -> None:
        """The same gradients from passes of fewer runs, which draw the same random numbers."""
        for start in range(0, len(all_seats), self.most_runs):
            part = all_seats[start : start + self.most_runs]
            now = [seat.state for seat in part]
            for seat, state in zip(part, states[start:], strict=False):
                seat.state = state
            joint = self._joint_pass(part)
            for seat, state in zip(part, now, strict=True):
                seat.state = state
            self._add_gradients(part, joint, seats)

    def _add_gradients(self, seats: list[Seat], joint: JointPass, waiting: Sequence[Seat]) -> None:
        """Add the gradients of the runs that wait to their parameters, all or none."""
        of_outputs = [seat.gradients() if seat in waiting else {} for seat in seats]
        parameters = [seat.parameters if seat in waiting else [] for seat in seats]
        found = joint.gradients(of_outputs, parameters)
        for of_run, gradients in zip(parameters, found, strict=True):
            for parameter, gradient in zip(of_run, gradients, strict=True):
                if gradient is None:
                    continue
                if parameter.grad is None:
                    parameter.grad = gradient.clone(memory_format=torch.contiguous_format)
                else:
                    parameter.grad.add_(gradient)

    def _halve(self, runs: int) -> None:
        self.most_runs, self._joint, self._pass = -(-runs // 2), None, None
        _free_memory()
        logger.warning(
            f"the memory does not hold a step of {runs} runs: they are computed "
            f"{self.most_runs} at a time"
        )


@dataclass(frozen=True)
class _OpenPass:
    """A forward pass whose backward pass has not been computed.

    Args:
        seats: its runs.
        states: their process states before it.
        joint: the pass.
    """

    seats: list[Seat]
    states: list[ProcessState]
    joint: JointPass


def _free_memory() -> None:
    """Give back what a pass that failed still holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
