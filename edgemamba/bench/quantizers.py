"""``python -m edgemamba.bench.quantizers``: both int8 quantizers on the validation images of the packaged weights.

The default of ``--quantizer`` is chosen from this; EDGEMAMBA_DATA names the LGG folder.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from pathlib import Path
from typing import Any

from edgemamba import __version__
from edgemamba.bench import entry
from edgemamba.files import write_json
from edgemamba.presets import find_target
from edgemamba.sources import open_source, packaged_weights
from edgemamba.stages.artifact import open_artifact
from edgemamba.stages.calibration import calibration_set, validation_set
from edgemamba.stages.compare_quantizers import compare_quantizers
from edgemamba.stages.to_onnx import to_onnx
from edgemamba.versions import commit, package_version


def compare(name: str, images: int, seed: int) -> dict[str, Any]:
    """Scores of both quantizers for one set of packaged weights."""
    source, target = open_source(name), find_target("cpu")
    calibration, held = calibration_set(source, images, seed), validation_set(source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        facts = to_onnx(source.build(), source.size, path, opset=target.opset, ir_version=target.ir_version)
        found = compare_quantizers(open_artifact(path, "onnx", "fp32", facts), source, calibration, held)
    return {"images": held.origin, "calibration": calibration.as_document(), **found}


def main() -> None:
    """Write quantizers.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("profiles/reports"), help="folder of quantizers.json")
    parser.add_argument("--calibration", type=int, default=64, help="calibration images")
    parser.add_argument("--seed", type=int, default=0, help="of their choice")
    arguments = parser.parse_args()
    found = {name: compare(name, arguments.calibration, arguments.seed) for name in packaged_weights()}
    document = {
        "schema": "edgemamba.quantizers/1",
        "edgemamba": __version__,
        "commit": commit(),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": "python -m edgemamba.bench.quantizers",
        "versions": {name: package_version(name) for name in ("nncf", "onnx", "onnxruntime", "torch")},
        "weights": found,
    }
    write_json(arguments.out / "quantizers.json", document)


if __name__ == "__main__":
    entry.run(main)
