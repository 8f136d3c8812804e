"""``python -m edgemamba.bench.scaling``: training on one device and on several, as JSON.

Every run is ``edgemamba train`` in processes of its own. Weak scaling keeps the batch of a device, strong scaling the
whole batch; the speed is the median over the epochs but the first. ``--devices 1`` with many epochs is the speed that a
whole run keeps up.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgemamba import __version__
from edgemamba.bench import entry
from edgemamba.files import read_json, write_json


def measure(train: list[str], devices: int, batch: int, epochs: int, folder: Path) -> dict[str, Any]:
    """Train once; speed, last losses and Dice, and where.

    Args:
        train: options of ``edgemamba train`` that all runs share.
        devices: processes.
        batch: of all devices together.
        epochs: at least 2.
        folder: run folder to make.
    """
    options = ["--devices", str(devices), "--batch", str(batch), "--epochs", str(epochs), "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "edgemamba", "train", *train, *options], stdout=sys.stderr, check=False
    )
    if done.returncode:
        raise SystemExit(f"training on {devices} devices ended with {done.returncode}")
    with (folder / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    record = read_json(folder / "run.json")
    scores = {
        name: float(rows[-1][name]) for name in rows[-1] if name.startswith(("val_", "train_")) and rows[-1][name]
    }
    images = batch * (int(rows[-1]["step"]) - int(rows[0]["step"]))
    return {
        "devices": devices,
        "batch": batch,
        "images_per_s": round(statistics.median(float(row["images_per_s"]) for row in rows[1:]), 1),
        "images_per_s_slowest": round(min(float(row["images_per_s"]) for row in rows[1:]), 1),
        "images_per_s_with_validation": round(images / sum(float(row["seconds"]) for row in rows[1:]), 1),
        "last_epoch": scores,
        "environment": record["environment"],
        "commit": record["commit"],
        "model": record["model"],
        "seed": record["seed"],
        "size": record["size"],
        "data": record["data"]["name"],
        "split": record["data"]["split"],
    }


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2], help="numbers of devices, the first is 1")
    parser.add_argument("--batch", type=int, default=64, help="of one device")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("profiles/reports/scaling.json"))
    parser.add_argument("train", nargs="*", help="options of edgemamba train, after --")
    arguments = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as place:
        for devices in arguments.devices:
            for kind, batch in (("weak", arguments.batch * devices), ("strong", arguments.batch)):
                if devices == 1 and kind == "strong":
                    continue
                folder = Path(place) / f"{kind}-{devices}"
                found = measure(arguments.train, devices, batch, arguments.epochs, folder)
                runs.append({"scaling": "one device" if devices == 1 else kind, **found})
                _report(runs, arguments.epochs, arguments.out)


def _report(runs: list[dict[str, Any]], epochs: int, out: Path) -> None:
    """Write all runs so far, since a later one may fail, and print the last."""
    alone = next((run["images_per_s"] for run in runs if run["devices"] == 1), None)
    for run in runs:
        run["speed_up"] = None if alone is None else round(run["images_per_s"] / alone, 3)
    last = runs[-1]
    print(
        f"{last['scaling']:>10}: {last['devices']} devices, batch {last['batch']}: {last['images_per_s']:,} images/s, "
        f"{last['speed_up']} times one"
    )
    write_json(out, {"schema": "edgemamba.scaling/1", "edgemamba": __version__, "epochs": epochs, "runs": runs})


if __name__ == "__main__":
    entry.run(main)
