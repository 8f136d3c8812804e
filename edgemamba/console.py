"""What a person sees while something runs: lines and bars on stderr. Results go to stdout, and only from ``cli``."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Console:
    """Progress and messages on stderr.

    Args:
        quiet: only warnings.
        interactive: draw bars; default: stderr is a terminal, and neither CI nor TERM=dumb is set.
    """

    def __init__(self, *, quiet: bool = False, interactive: bool | None = None) -> None:
        self.quiet = quiet
        if interactive is None:
            interactive = sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"
        self.interactive = interactive and not quiet

    def line(self, text: str) -> None:
        """One line of progress."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """One line that is shown even with --quiet."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def next(self, command: str) -> None:
        """The command that comes next."""
        self.line(f"next: {command}")

    def track(self, items: Iterable[T], title: str, total: int) -> Iterator[T]:
        """Iterate with a bar (or, without a terminal, a line at most every 30 s)."""
        with self.bar(title, total) as bar:
            for item in items:
                yield item
                bar.advance()

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar with time left; ``advance(n, note)`` moves it."""
        if self.interactive:
            from rich.console import Console as RichConsole
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with Progress(*columns, console=RichConsole(stderr=True, force_terminal=True), transient=True) as progress:
                task = progress.add_task(title, total=total, note="")

                def move(count: int, note: str) -> None:
                    progress.update(task, advance=count, note=note)

                yield Bar(move)
        else:
            started = time.monotonic()
            state = {"done": 0, "shown": started}

            def tell(count: int, note: str) -> None:
                state["done"] += count
                now = time.monotonic()
                if now - state["shown"] >= 30 and state["done"] < total:
                    state["shown"] = now
                    left = (now - started) / max(1, state["done"]) * (total - state["done"])
                    self.line(f"{title}: {state['done']}/{total}, {left:.0f} s left {note}".rstrip())

            yield Bar(tell)


class Bar:
    """Handle of one running bar."""

    def __init__(self, move: Callable[[int, str], None]) -> None:
        self._move = move

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move on by ``count``; ``note`` is shown at the right."""
        self._move(count, note)
