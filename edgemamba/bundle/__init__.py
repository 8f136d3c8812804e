"""Bundles: the folder with model, scripts and proofs that a person copies to a board."""

from edgemamba.bundle.build import build
from edgemamba.bundle.check import check
from edgemamba.bundle.session import board_errors, open_bundle

__all__ = ["board_errors", "build", "check", "open_bundle"]
