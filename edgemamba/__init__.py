"""edgemamba: from training a compact Mamba vision model to a measured artifact on an edge board."""

import os

# Since 1.29 ONNX Runtime reports sessions and model hashes to its maker unless told not to before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
