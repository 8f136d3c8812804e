"""Small real files in the layouts that the data sets read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data.samples import blob, picture


@pytest.fixture
def lgg_root(tmp_path: Path) -> Path:
    """Six patients of four slices, as kaggle_3m below the returned folder."""
    root = tmp_path / "set"
    for patient in range(6):
        name = f"TCGA_XX_{patient:04d}_20010101"
        folder = root / "kaggle_3m" / name
        folder.mkdir(parents=True)
        for number in (1, 2, 10, 11):
            Image.fromarray(picture(100 * patient + number)).save(folder / f"{name}_{number}.tif")
            Image.fromarray(blob(number) * 255).save(folder / f"{name}_{number}_mask.tif")
    (root / "kaggle_3m" / "README.md").write_text("about the set")
    (root / "kaggle_3m" / "data.csv").write_text("Patient\n")
    return root


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write images/STEM.png and masks/STEM[ending].png for the given stems."""

    def make(stems: list[str], *, ending: str = "") -> Path:
        root = tmp_path / "pairs"
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True, exist_ok=True)
        for seed, stem in enumerate(stems):
            Image.fromarray(picture(seed)).save(root / "images" / f"{stem}.png")
            Image.fromarray(blob(seed) * 255).save(root / "masks" / f"{stem}{ending}.png")
        return root

    return make
