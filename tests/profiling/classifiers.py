"""A run of a registered classifier on the built-in figures: fresh features, the head fitted by least squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgemamba.console import Console
from edgemamba.data import ClassDataset, Split, data_ref, load_arrays, open_dataset, split_dataset
from edgemamba.files import sha256_file
from edgemamba.models import build
from edgemamba.models.weights import save_weights
from edgemamba.records import RunRecord, save_record

SIZE = (32, 32)


def opened() -> tuple[ClassDataset, Split]:
    """Four figures, 60 pictures each."""
    dataset = open_dataset("shapes", classes=4, images=60, size=SIZE[0])
    assert isinstance(dataset, ClassDataset)
    return dataset, split_dataset(dataset, "image")


def fitted(name: str, dataset: ClassDataset, split: Split) -> nn.Module:
    """The network, right on most training pictures."""
    torch.manual_seed(0)
    net = build(name, classes=len(dataset.labels)).eval()
    head = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    arrays = load_arrays(dataset, list(split.train), SIZE, Console(quiet=True))
    seen: list[torch.Tensor] = []
    x = torch.from_numpy(arrays.images).float() / 255
    hook = head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.no_grad():
        net(x)
        hook.remove()
        features = seen[0].double()
        middle = features.mean(0)
        targets = torch.from_numpy(np.eye(4)[arrays.truths] - 0.25) * 8
        centred = features - middle
        ridge = 0.1 * centred.square().sum() / len(centred) * torch.eye(centred.shape[1])
        weight = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ targets)
        head.weight.copy_(weight.T)
        if head.bias is not None:
            head.bias.copy_(-(middle @ weight))
    return net


def write_run(folder: Path, name: str) -> Path:
    """A finished run of ``name`` at ``folder``."""
    dataset, split = opened()
    net = fitted(name, dataset, split)
    weights = folder / "weights" / "best.safetensors"
    weights.parent.mkdir(parents=True)
    save_weights(weights, net, {"model": name})
    count = sum(parameter.numel() for parameter in net.parameters())
    record = RunRecord(
        edgemamba="0", state="finished", model=name, parameters=count, size=SIZE, init="mamba", recipe="default",
        settings={}, epochs=1, epochs_done=1, batch=1, seed=0, data=data_ref(dataset, split), environment={},
        started="2026-01-01T00:00:00+00:00", train_seconds=1.0, labels=list(dataset.labels), best_epoch=1,
        weights={"weights/best.safetensors": sha256_file(weights)},
    )  # fmt: skip
    save_record(folder / "run.json", record)
    return folder
