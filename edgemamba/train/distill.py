"""Teachers: trained networks whose probabilities soften the mask that a smaller network learns from.

Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), here for each pixel, with the
teachers looking at the same augmented slice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgemamba.errors import InputError
from edgemamba.records import DataRef
from edgemamba.sources import open_source


class Teachers(nn.Module):
    """Trained networks whose mean probability is the teaching.

    Args:
        networks: logits (B, 1, H, W) each, on the device, evaluation mode.
        share: of the teaching in the target; the mask has the rest.
        amp: the networks run in bfloat16, channels last.
    """

    def __init__(self, networks: Sequence[nn.Module], share: float, *, amp: bool) -> None:
        super().__init__()
        self.share = share
        self.amp = amp
        self.networks = nn.ModuleList(networks).eval().requires_grad_(False)
        if amp:
            # torch's stubs do not know this argument of Module.to.
            self.networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def soften(self, images: Tensor, mask: Tensor) -> Tensor:
        """Target (B, 1, H, W) in [0, 1] of augmented images (B, 3, H, W) and their mask (B, 1, H, W)."""
        layout = torch.channels_last if self.amp else torch.contiguous_format
        images = images.contiguous(memory_format=layout)
        with torch.autocast("cuda", torch.bfloat16) if self.amp else contextlib.nullcontext():
            found = [torch.sigmoid(network(images).float()) for network in self.networks]
        return torch.lerp(mask, torch.stack(found).mean(0), self.share)


def open_teachers(
    runs: Sequence[Path], data: DataRef, share: float, device: torch.device
) -> tuple[Teachers, list[dict[str, Any]]]:
    """The networks of trained runs, and what the new run records of them.

    Raises:
        InputError: a run was trained on other data or another split: it may have seen the new run's test images.
    """
    networks, documents = [], []
    for run in runs:
        source = open_source(run)
        if source.data is None:
            raise InputError(
                f"the teacher {run} does not say on which data it was trained",
                hint="a teacher may not have seen the test images: train it on the same split",
            )
        if (source.data.fingerprint, source.data.split) != (data.fingerprint, data.split):
            raise InputError(
                f"the teacher {run} was trained on {source.data.name}, {source.data.split} split, not on this data and "
                f"{data.split} split",
                hint="a teacher may not have seen the test images: train it on the same split",
            )
        networks.append(source.build().to(device))
        documents.append({"run": str(run), "model": source.model, "weights_sha256": source.weights_sha256})
    # A share of a probability needs no more digits than bfloat16 has.
    return Teachers(networks, share, amp=device.type == "cuda"), documents
