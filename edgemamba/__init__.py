"""edgemamba: from training a compact Mamba vision model to a measured artifact on an edge board."""

__version__ = "0.1.0"
