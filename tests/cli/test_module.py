"""export --module and convert-weights as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

NETS = Path(__file__).parents[1] / "compat" / "nets"


def test_from_a_checkpoint_to_bundles_of_both_formats(edgemamba: Callable[..., Any], tmp_path: Path) -> None:
    kwargs = json.dumps({"dims": [8, 16], "d_state": 3})
    from edgemamba.foreign.source import Request, open_module

    network = (
        open_module(Request(NETS / "vm_unet.py", "VMUNet", json.loads(kwargs), None, (1, 3, 16, 16), seed=5))[0]
        .build()
        .network
    )
    torch.save(
        {"model": {f"module.{k}": v for k, v in network.state_dict().items()}, "epoch": 1}, tmp_path / "best.pth"
    )
    done = edgemamba("convert-weights", tmp_path / "best.pth", tmp_path / "best.safetensors")
    assert done.code == 0 and "prefix removed" in done.out and "next: edgemamba export --module" in done.err, done.err
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        Image.effect_noise((20, 20), 60 + number).convert("RGB").save(pictures / f"{number}.png")
    options = (
        "--kwargs",
        kwargs,
        "--weights",
        tmp_path / "best.safetensors",
        "--input",
        "1x3x16x16",
        "--images",
        pictures,
    )
    for target, file in (("cpu", "model.onnx"), ("raspberry-pi", "model.tflite")):
        out = tmp_path / target
        done = edgemamba(
            "export", "--module", NETS / "vm_unet.py:VMUNet", *options, "--target", target, "--out", out, "--json"
        )
        assert done.code == 0, done.err
        assert (
            "edgemamba.compat provides mamba_ssm.ops.selective_scan_interface, selective_scan to vm_unet.py" in done.err
        )
        manifest = json.loads(done.out)
        assert manifest["task"] == "tensor" and (out / file).is_file()
        assert manifest["source"]["module"] == "vm_unet.py:VMUNet" and manifest["source"]["kwargs"] == json.loads(
            kwargs
        )
        assert (
            manifest["verification"]["data"].startswith("own images") and manifest["verification"]["cosine"] > 0.999999
        )
        done = edgemamba("predict", out, pictures / "0.png", "--out", tmp_path / f"{target}-found")
        assert done.code == 0, done.err
        found = np.load(tmp_path / f"{target}-found" / "0.npy")
        image = np.array(Image.open(pictures / "0.png").resize((16, 16), Image.Resampling.BILINEAR))
        with torch.no_grad():
            expected = network(torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0).numpy()
        assert np.abs(found.reshape(expected.shape) - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())


def test_errors_end_with_their_codes(edgemamba: Callable[..., Any], tmp_path: Path) -> None:
    net = NETS / "vmamba2" / "vmamba.py"
    (tmp_path / "needs.py").write_text("import einops_not_here\n")
    (tmp_path / "volumes.py").write_text("from torch import nn\n\n\ndef net():\n    return nn.Conv3d(3, 1, 3)\n")
    cases: list[tuple[int, str, tuple[Any, ...]]] = [
        (2, "a run and --module exclude each other", ("runs/x", "--module", f"{net}:VSSM", "--input", "1x3x8x8")),
        (4, "the package einops_not_here is missing", ("--module", f"{tmp_path}/needs.py:Net", "--input", "1x3x8x8")),
        (3, "it works on volumes", ("--module", f"{tmp_path}/volumes.py:net", "--input", "1x3x8x8")),
        (
            5,
            "the Triton kernel triton_cross_scan",
            ("--module", f"{net}:VSSM", "--input", "1x3x8x8", "--kwargs", '{"forward_type": "v05"}'),
        ),
    ]
    for code, message, arguments in cases:
        done = edgemamba("export", *arguments, "--target", "cpu", "--out", tmp_path / "out")
        assert done.code == code and message in done.err and "Traceback" not in done.err, done.err
        assert done.out == "" and not (tmp_path / "out").exists()
    torch.save(torch.nn.Conv2d(1, 1, 1), tmp_path / "a.pth")
    done = edgemamba("convert-weights", tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert done.code == 3 and "need their own code to load" in done.err and not (tmp_path / "a.safetensors").exists()
