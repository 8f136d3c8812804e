"""The record of training speed on a GPU: measuring one network again leaves the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgemamba.bench.gpu import placed
from edgemamba.files import write_json


def _result(model: str, speed: float, *, bfloat16: bool = False, compile: bool = False) -> dict[str, Any]:
    return {"model": model, "bfloat16": bfloat16, "compile": compile, "images_per_s": speed}


def test_a_result_takes_its_place_beside_the_others(tmp_path: Path) -> None:
    here = {"commit": "a", "environment": {"gpu": "one"}}
    out = tmp_path / "gpu.json"
    unet = _result("unet", 1.0, bfloat16=True)
    write_json(out, {**here, "results": placed(here, out, unet)})
    edge = _result("edge-unet", 2.0)
    write_json(out, {**here, "results": placed(here, out, edge)})
    again = {**unet, "images_per_s": 3.0}
    assert placed(here, out, again) == [edge, again]


def test_results_of_another_version_or_device_are_not_mixed_in(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    write_json(out, {"commit": "a", "environment": {"gpu": "one"}, "results": [_result("unet", 1.0, bfloat16=True)]})
    for other in ({"commit": "b", "environment": {"gpu": "one"}}, {"commit": "a", "environment": {"gpu": "two"}}):
        found = _result("edge-unet", 2.0)
        assert placed(other, out, found) == [found]
