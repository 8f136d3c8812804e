"""The main job end to end on built-in phantoms: train, export for three boards, profile, report."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from edgemamba.console import Console
from edgemamba.errors import InputError
from edgemamba.presets import Precision, find_target
from edgemamba.profiling.options import ProfileOptions
from edgemamba.profiling.several import Profiled, profile_all
from edgemamba.sources import RECORD, open_source
from edgemamba.stages import pipeline
from edgemamba.stages.plan import Options
from edgemamba.train import TrainConfig, train

# What each board would be given: the Pi's weights are small enough for fp32, a Jetson gains from fp16.
_EXPORTS: tuple[tuple[str, Precision], ...] = (
    ("cpu", "fp32"),
    ("jetson-orin-nano", "fp16"),
    ("raspberry-pi-5", "fp32"),
)


def run_demo(out: Path, epochs: int, seed: int, force: bool, console: Console) -> Profiled:
    """Train on phantoms, export for cpu, jetson-orin-nano and raspberry-pi-5, profile all three on this host.

    Args:
        out: folder of the run, the Bundles and the report.
        epochs: of training.
        seed: of everything random.
        force: replace ``out``.
        console: progress.

    Raises:
        InputError: ``out`` is not empty.
        EdgemambaError: what a stage raises.
    """
    if out.is_file():
        raise InputError(f"{out} is a file", hint="choose another --out")
    if out.exists() and any(out.iterdir()):
        if not force:
            raise InputError(f"{out} is not empty", hint="choose another --out, or --force to replace it")
        if not (out / "run" / RECORD).is_file():
            raise InputError(f"{out} is not replaced: it is no earlier demo", hint="choose another --out, or empty it")
        shutil.rmtree(out)
    console.line("== train")
    train(TrainConfig.resolve(epochs=epochs, seed=seed, device="cpu", threads=1, out=out / "run"), console)
    source = open_source(out / "run")
    bundles = []
    for name, precision in _EXPORTS:
        console.line(f"== export for {name}, {precision}")
        options = Options(out=out / "bundles" / f"{source.model}-{name}-{precision}")
        bundles.append(pipeline.run(pipeline.plan(source, find_target(name), precision, options), console))
    console.line("== profile on this host")
    settings = ProfileOptions(quick=True, run=out / "run")
    done = profile_all(bundles, settings, out / "report", console)
    return dataclasses.replace(done, page=done.page.resolve())
