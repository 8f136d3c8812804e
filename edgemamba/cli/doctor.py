"""``edgemamba doctor``."""

from __future__ import annotations

import typer

from edgemamba.cli.options import JSON


def doctor(as_json: bool = JSON) -> None:
    """Check this machine: packages, accelerator, scan, runtimes, load, disk, data.

    Exits with 4 when something required is broken.

    \b
    edgemamba doctor
    edgemamba doctor --json
    """
    import dataclasses

    from edgemamba.cli import output
    from edgemamba.doctor import run_checks

    checks = run_checks()
    failed = any(check.status == "FAIL" for check in checks)
    if as_json:
        rows = [dataclasses.asdict(check) for check in checks]
        output.document({"schema": "edgemamba.doctor/1", "ok": not failed, "checks": rows})
    else:
        output.table(["check", "status", "observed", "fix"], [[c.name, c.status, c.observed, c.fix] for c in checks])
    if failed:
        raise typer.Exit(4)
