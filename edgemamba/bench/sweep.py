"""``python -m edgemamba.bench.sweep PLAN.toml --data-root DIR``: train and evaluate what plans list, over all GPUs.

Runs that are finished are left alone and interrupted ones go on, so the same command continues after any stop. Records
for the results table are written as soon as their runs are there.

A plan has ``[[image]]`` tables (models, epochs, batch, seeds) for the image split and ``[[folds]]`` tables (name,
model, epochs, batch, seed) for the five folds of patients. Both take amp, compile, refit, and teachers: runs of the
plan or packaged weights, in whose names ``{fold}`` is the fold. In an image table, name replaces the model's in the
names of its runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgemamba.bench import entry
from edgemamba.data import FOLDS
from edgemamba.files import read_json, write_json
from edgemamba.presets import read_toml

CLEANED = ("--flips", "--components", "0.2")
_OPTIONS = ("amp", "compile", "refit")
_POLL_S = 0.5
_NAMING = ("worst_slices", "largest_false_alarms")


@dataclasses.dataclass(frozen=True)
class Job:
    """One process on one GPU.

    Attributes:
        name: of the job; a training run's folder.
        arguments: of ``edgemamba``.
        needs: jobs that must be done before.
        record: file that takes what it prints; None for a training.
    """

    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    record: Path | None = None

    def done(self, runs: Path) -> bool:
        """Whether its result is there."""
        if self.record is not None:
            return self.record.is_file()
        run = runs / self.name / "run.json"
        return run.is_file() and read_json(run)["state"] == "finished"


def jobs(plan: dict[str, Any], runs: Path, records: Path, data: Sequence[str]) -> Iterator[Job]:
    """Everything a plan asks for: trainings, then their evaluations."""
    known = {f"{table['name']}-fold{{fold}}-s{table['seed']}" for table in plan.get("folds", [])}
    for table in plan.get("image", []):
        known |= {_image_name(table, model, seed) for model in table["models"] for seed in table["seeds"]}
    for table in plan.get("image", []):
        for model in table["models"]:
            for seed in table["seeds"]:
                name = _image_name(table, model, seed)
                yield _training(name, {**table, "model": model, "seed": seed}, "image", runs, data, known)
                yield _evaluation(name, [name], runs, records, data)
    for table in plan.get("folds", []):
        names = [f"{table['name']}-fold{fold}-s{table['seed']}" for fold in range(FOLDS)]
        for fold, name in enumerate(names):
            yield _training(name, table, f"fold:{fold}", runs, data, known)
        whole = f"{table['name']}-folds-s{table['seed']}"
        yield _evaluation(whole, names, runs, records, data)
        yield _evaluation(f"{whole}-cleaned", names, runs, records, data, CLEANED)


def _image_name(table: dict[str, Any], model: str, seed: int) -> str:
    return f"{table.get('name', model)}-image-s{seed}"


def _training(
    name: str, table: dict[str, Any], split: str, runs: Path, data: Sequence[str], known: Collection[str]
) -> Job:
    """Train ``table``'s model; ``known`` are the plan's own runs, which teachers may be."""
    fold = split.removeprefix("fold:")
    taught = [(teacher.format(fold=fold), teacher in known) for teacher in table.get("teachers", [])]
    needs = tuple(teacher for teacher, own in taught if own)
    out = ("--out", str(runs / name))
    if (runs / name / "run.json").is_file():
        return Job(name, ("train", "--resume", *out), needs)
    asked = ["train", "--model", table["model"], "--split", split, "--epochs", str(table["epochs"]), *data, *out]
    asked += ["--batch", str(table["batch"]), "--seed", str(table["seed"]), "--device", "cuda", "--quiet"]
    asked += [f"--{option}" for option in _OPTIONS if table.get(option)]
    # Eleven patients choose no better epoch than the last one is.
    asked += ["--checkpoint", "last"] if split != "image" else []
    for teacher, own in taught:
        asked += ["--teacher", str(runs / teacher) if own else teacher]
    return Job(name, tuple(asked), needs)


def _evaluation(
    name: str, of: Sequence[str], runs: Path, records: Path, data: Sequence[str], more: Sequence[str] = ()
) -> Job:
    subjects = [str(runs / one) for one in of]
    arguments = ("evaluate", *subjects, "--data-root", data[-1], "--device", "cuda", "--json", *more)
    return Job(f"evaluate {name}", arguments, tuple(of), records / f"{name}.json")


class Devices:
    """Runs jobs, ``slots`` at a time on each GPU.

    Args:
        gpus: their indices.
        slots: jobs side by side on one; small networks leave it idle.
        runs: folder of runs and logs.
    """

    def __init__(self, gpus: Iterable[str], slots: int, runs: Path) -> None:
        self.free = dict.fromkeys(gpus, slots)
        self.runs = runs
        self.running: list[tuple[subprocess.Popen[bytes], Job, str, float]] = []

    def start(self, job: Job) -> bool:
        """Start ``job`` where most slots are free; False where none is."""
        device = max(self.free, key=lambda one: self.free[one])
        if not self.free[device]:
            return False
        self.free[device] -= 1
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": device, "OMP_NUM_THREADS": "4"}
        log = self.runs / f"{job.name.replace(' ', '-')}.log"
        with log.open("ab") as errors:
            command = [sys.executable, "-m", "edgemamba", *job.arguments]
            with self._printed(job).open("wb") as output:
                process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors)
        self.running.append((process, job, device, time.monotonic()))
        print(f"GPU {device}: edgemamba {shlex.join(job.arguments)}", file=sys.stderr)
        return True

    def _printed(self, job: Job) -> Path:
        return self.runs / f"{job.name.replace(' ', '-')}.out"

    def collect(self) -> list[tuple[Job, int]]:
        """Jobs that have ended, with their exit codes; records are written."""
        ended = []
        for each in [*self.running]:
            process, job, device, begun = each
            if process.poll() is None:
                continue
            self.running.remove(each)
            self.free[device] += 1
            if job.record is not None and process.returncode == 0:
                # The lists of single slices name patients.
                found = {k: v for k, v in read_json(self._printed(job)).items() if k not in _NAMING}
                write_json(job.record, found)
            print(f"{job.name}: exit {process.returncode}, {time.monotonic() - begun:.0f} s", file=sys.stderr)
            ended.append((job, process.returncode))
        return ended

    def stop(self) -> None:
        """End what is running; trainings keep their last epoch."""
        for process, *_ in self.running:
            process.terminate()
        for process, *_ in self.running:
            process.wait()


def run(todo: list[Job], devices: Devices, limit_s: float) -> int:
    """Run every job as soon as what it needs is done; the number of jobs that failed or were not reached."""
    deadline = time.monotonic() + limit_s
    finished = {job.name for job in todo if job.done(devices.runs)}
    waiting = [job for job in todo if job.name not in finished]
    failed = 0
    while (waiting or devices.running) and time.monotonic() < deadline:
        for job in [*waiting]:
            if set(job.needs) <= finished and devices.start(job):
                waiting.remove(job)
        for job, code in devices.collect():
            if code:
                failed += 1
            else:
                finished.add(job.name)
        if not devices.running and not any(set(job.needs) <= finished for job in waiting):
            break
        time.sleep(_POLL_S)
    left = len(waiting) + len(devices.running)
    devices.stop()
    return failed + left


def main() -> None:
    """Run a plan."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="+", type=Path, help="TOML files; what comes first goes first")
    parser.add_argument("--data-root", required=True, help="folder of the LGG data")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--records", type=Path, default=Path("profiles/reports/evaluation"))
    parser.add_argument("--slots", type=int, default=2, help="jobs side by side on one GPU")
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="stop after so many seconds")
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    arguments.records.mkdir(parents=True, exist_ok=True)
    data = ("--data", "lgg", "--data-root", arguments.data_root)
    todo = [job for plan in arguments.plans for job in jobs(read_toml(plan), arguments.runs, arguments.records, data)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(gpu) for gpu in range(torch.cuda.device_count())]
    left = run(todo, Devices(gpus, arguments.slots, arguments.runs), arguments.limit_s)
    print(f"{len(todo) - left} of {len(todo)} jobs are done", file=sys.stderr)
    raise SystemExit(1 if left else 0)


if __name__ == "__main__":
    entry.run(main)
