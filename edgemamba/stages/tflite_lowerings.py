"""Every lowering: importing this module registers those of all topics."""

from __future__ import annotations

from edgemamba.stages import (
    tflite_image_ops,
    tflite_index_ops,
    tflite_math_ops,
    tflite_norm_ops,
    tflite_pool_ops,
)
from edgemamba.stages.tflite_ops import LOWERINGS

__all__ = ["LOWERINGS"]

assert all((tflite_image_ops, tflite_index_ops, tflite_math_ops, tflite_norm_ops, tflite_pool_ops))
