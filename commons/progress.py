"""One progress bar with the time left, on stderr, silent when stderr is not a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

_silent = False


def silence() -> None:
    """Show no bars in this process any more."""
    global _silent
    _silent = True


class Progress:
    """A bar for one piece of work.

    Args:
        description: what is being done, e.g. ``resnet18_reactnet seed 0``.
        total: number of steps.
    """

    def __init__(self, description: str, total: int) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=_silent or not Console(stderr=True).is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(description, total=total, note="")

    def start(self, completed: int = 0) -> None:
        self._bar.update(self._task, completed=completed)
        self._bar.start()

    def expect(self, total: int) -> None:
        """There are ``total`` steps after all."""
        self._bar.update(self._task, total=total)

    def advance(self, steps: float = 1, note: str = "") -> None:
        self._bar.update(self._task, advance=steps, note=note)

    def stop(self) -> None:
        self._bar.stop()

    def __enter__(self) -> Progress:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()
