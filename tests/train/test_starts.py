"""What a run starts from: its encoder's ImageNet weights, recorded by their hash."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgemamba.errors import InputError, UsageError
from edgemamba.files import sha256_file
from edgemamba.models import build
from edgemamba.train import resume_config, train
from edgemamba.train.run import Run
from train.runs import QUIET, tiny

_NAMES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def test_an_encoder_is_loaded_and_recorded_and_outlives_its_file(tmp_path: Path) -> None:
    torch.manual_seed(9)
    own = build("resnet18-seg").get_submodule("encoder").state_dict()
    renamed = {f"{_NAMES[name[0]]}{name[1:]}": tensor for name, tensor in own.items()}
    file = tmp_path / "resnet18.safetensors"
    save_file(renamed, file)
    config = tiny(tmp_path / "out", model="resnet18-seg", recipe="paper", batch=8, encoder_weights=file)
    run = Run(config, QUIET)
    for name, tensor in own.items():
        assert torch.equal(run.learner.model.get_submodule("encoder").state_dict()[name], tensor), name
    digest = sha256_file(file)
    assert run.folder.environment["encoder_from_sha256"] == digest
    file.unlink()
    again = Run(resume_config(config.out), QUIET)
    assert again.folder.environment["encoder_from_sha256"] == digest


def test_encoder_weights_need_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ul-vm-unet has none") as caught:
        tiny(tmp_path / "out", encoder_weights=tmp_path / "r.safetensors")
    assert caught.value.hint == "--model resnet18-seg, resnet50-seg"
    with pytest.raises(UsageError, match="has an encoder already"):
        tiny(tmp_path / "out", model="resnet18-seg", weights=tmp_path / "a", encoder_weights=tmp_path / "b")
    with pytest.raises(InputError, match="does not exist"):
        tiny(tmp_path / "out", model="resnet18-seg", encoder_weights=tmp_path / "none.safetensors")


def test_refit_trains_on_the_validation_part_and_keeps_the_last_epoch(tmp_path: Path) -> None:
    plain, refit = (train(tiny(tmp_path / name, refit=name == "refit"), QUIET) for name in ("plain", "refit"))
    assert refit.environment["refit"] and not plain.environment["refit"]
    assert refit.data.counts == plain.data.counts and refit.settings["checkpoint"] == "last"
    assert refit.weights != plain.weights
    again = resume_config(tmp_path / "refit")
    assert again.refit and again.checkpoint == "last"
    with pytest.raises(UsageError, match="can choose no epoch"):
        tiny(tmp_path / "wrong", refit=True, checkpoint="best")
