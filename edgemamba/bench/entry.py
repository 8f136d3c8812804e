"""How the commands of this package end: an error is one line of what is wrong, one of what to do, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from edgemamba.errors import EdgemambaError


def run(main: Callable[[], None]) -> None:
    """``main``, its errors told as the command line tells them."""
    try:
        main()
    except EdgemambaError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
