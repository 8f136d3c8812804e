"""One or several Bundles, and the page that compares them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from edgemamba.bundle.check import MANIFEST
from edgemamba.console import Console
from edgemamba.errors import InputError, UsageError
from edgemamba.profiling.options import ProfileOptions
from edgemamba.profiling.profiler import REPORT_HTML, profile, report_folder
from edgemamba.profiling.records import ProfileReport
from edgemamba.report import write_html


@dataclasses.dataclass(frozen=True)
class Profiled:
    """Every report, and the page to open."""

    reports: list[ProfileReport]
    page: Path


def newest_bundle(bundles: Path = Path("bundles")) -> Path:
    """The Bundle below ``bundles`` whose manifest was written last.

    Raises:
        InputError: there is none.
    """
    manifests = list(bundles.glob(f"*/{MANIFEST}"))
    if not manifests:
        raise InputError(f"there is no Bundle in {bundles}/", hint="edgemamba export --target cpu")
    return max(manifests, key=lambda path: path.stat().st_mtime_ns).parent


def profile_all(bundles: Sequence[Path], options: ProfileOptions, out: Path | None, console: Console) -> Profiled:
    """Profile each Bundle (none: the newest); with more than one, write a page that compares them.

    Args:
        out: report folder; for several Bundles it holds one folder each and ``report.html``.

    Raises:
        UsageError: samples of one board given for several Bundles.
        EdgemambaError: what ``profile`` raises.
    """
    chosen = list(bundles) or [newest_bundle()]
    if len(chosen) == 1:
        options = dataclasses.replace(options, out=out)
        report = profile(chosen[0], options, console)
        return Profiled([report], report_folder(chosen[0], options) / REPORT_HTML)
    if options.samples is not None:
        raise UsageError("--samples belongs to one Bundle", hint="name the Bundle they were measured with")
    names = [bundle.resolve().name for bundle in chosen]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two Bundles are called {twice}; one report would replace the other", hint="rename one")
    place = out or chosen[0].resolve().parent / "report"
    reports = []
    for bundle, name in zip(chosen, names, strict=True):
        console.line(f"profile {bundle}")
        own = dataclasses.replace(options, out=place / name)
        reports.append(profile(bundle, own, console))
    write_html(reports, place / REPORT_HTML)
    return Profiled(reports, place / REPORT_HTML)
