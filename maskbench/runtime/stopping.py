"""Stopping a training so that it can go on: signals are heard between two steps."""

import contextlib
import copy
import os
import signal
import sys
import time
from collections.abc import Iterator

from maskbench.runtime import torchrun


class Stopped(Exception):
    """A signal ended the training after its state was saved.

    Attributes:
        signal: its number.
    """

    def __init__(self, where: str, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name} at {where}")
        self.signal = number


_REPEAT = 1.0  # seconds in which a signal is heard once: a group's reaches a child directly and through its parent


class Stopper:
    """Says after each step whether the state is to be saved now; the processes of one training agree.

    Args:
        minutes: the longest time between two checkpoints.
    """

    def __init__(self, minutes: float):
        self._seconds = 60 * minutes
        self._last = time.monotonic()
        self._heard: list[tuple[int, float]] = []  # signals and when; shared with those of other threads

    def another(self) -> "Stopper":
        """One for a thread of its own: another clock, the same signals."""
        return copy.copy(self)

    def stop(self, number: int) -> None:
        """As if the signal had come."""
        self._heard.append((number, time.monotonic()))

    def due(self) -> bool:
        """True where a signal came or the minutes are over, here or in another process."""
        late = time.monotonic() - self._last >= self._seconds
        return any(torchrun.largest(bool(self._heard), late))

    def saved(self, where: str) -> None:
        """The state is saved: start the clock again; Stopped where a signal came, here or in another process.

        Args:
            where: the place in the training, for the last line.
        """
        self._last = time.monotonic()
        (number,) = torchrun.largest(self._heard[0][0] if self._heard else 0)
        if number:
            raise Stopped(where, number)

    def hear(self, number: int, _frame: object) -> None:
        """A signal handler: the first signal waits for the step to end, one more a second later ends the process."""
        if not self._heard:
            self.stop(number)
            if torchrun.rank() == 0:
                print("\nfinishing the step, then saving; once more stops without saving", file=sys.stderr)
        elif time.monotonic() - self._heard[0][1] > _REPEAT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextlib.contextmanager
def stopping(minutes: float) -> Iterator[Stopper]:
    """A :class:`Stopper` that hears SIGINT and SIGTERM until the block ends."""
    stopper = Stopper(minutes)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}  # a shell's wish
    for number in before:
        signal.signal(number, stopper.hear)
    try:
        yield stopper
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
