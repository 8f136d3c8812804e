"""The wheel works outside a checkout: data folders included, an export without training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_wheel_installs_elsewhere_and_exports(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("edgemamba", "export", "profiles/devices"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", tree]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)
    environment = os.environ | {
        "PYTHONPATH": str(site),
        "EDGEMAMBA_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = Path(run("-c", "import edgemamba; print(edgemamba.__file__)").strip())
    assert where.is_relative_to(site)
    names = {row["name"] for row in json.loads(run("-m", "edgemamba", "list", "targets", "--json"))["targets"]}
    assert {"cpu", "jetson-orin-nano", "raspberry-pi-4", "raspberry-pi-5"} <= names
    assert json.loads(run("-m", "edgemamba", "list", "weights", "--json"))["weights"]
    export = ("export", "--weights", "lgg", "--target", "cpu", "--verify-images", "4", "--out", "bundle", "--json")
    manifest = json.loads(run("-m", "edgemamba", *export))
    assert manifest["verification"]["images"] == 4
    assert (tmp_path / "bundle" / "model.onnx").stat().st_size < 500_000
