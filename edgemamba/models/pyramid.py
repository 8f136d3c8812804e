"""PPM, the pyramid pooling module of the variants v4 and v6."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemamba.ssm import EXPORT_FORMS, FormModule

# Side of the pooled map, and the part of the channels it gives.
LEVELS = ((1, 8), (2, 4), (3, 2), (6, 8))


class PyramidPooling(FormModule):
    """Pool to 1, 2, 3 and 6 squared, convolve to c/8, c/4, c/2, c/8 channels, resize back, concatenate.

    (B, c, H, W) -> (B, c, H, W). The input itself is no part of the output: nothing finer than 6x6 is left.

    Source: Zhao et al., "Pyramid scene parsing network" (2017), as the paper changes it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(nn.Conv2d(channels, channels // part, 1) for _, part in LEVELS)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        height, width = int(x.shape[2]), int(x.shape[3])
        maps = []
        for (cells, _), conv in zip(LEVELS, self.conv_layers, strict=True):
            if self.form in EXPORT_FORMS:
                # Neither ONNX nor TFLite has adaptive pooling: products with constant matrices.
                pooled = _products(x, _pooling(height, cells), _pooling(width, cells))
                maps.append(_products(F.relu(conv(pooled)), _resizing(cells, height), _resizing(cells, width)))
            else:
                level = F.relu(conv(F.adaptive_avg_pool2d(x, cells)))
                maps.append(F.interpolate(level, (height, width), mode="bilinear", align_corners=True))
        return torch.cat(maps, 1)


def _products(x: Tensor, rows: list[list[float]], columns: list[list[float]]) -> Tensor:
    """rows @ x @ columns^T on the last two axes."""
    left = torch.tensor(rows, dtype=x.dtype, device=x.device)
    right = torch.tensor([list(column) for column in zip(*columns, strict=True)], dtype=x.dtype, device=x.device)
    return torch.matmul(left, torch.matmul(x, right))


def _pooling(size: int, cells: int) -> list[list[float]]:
    """Adaptive average pooling of ``size`` values as a (cells, size) matrix."""
    matrix = []
    for cell in range(cells):
        first, end = cell * size // cells, -(-(cell + 1) * size // cells)
        matrix.append([1 / (end - first) if first <= i < end else 0.0 for i in range(size)])
    return matrix


def _resizing(cells: int, size: int) -> list[list[float]]:
    """Bilinear resizing with aligned corners of ``cells`` values as a (size, cells) matrix."""
    step = (cells - 1) / (size - 1) if size > 1 else 0.0
    return [[max(0.0, 1 - abs(i * step - cell)) for cell in range(cells)] for i in range(size)]
