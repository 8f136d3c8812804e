"""Training code that nobody needs to build the network, with packages that nobody has here."""

from a_training_framework import register  # noqa: F401

from .vmamba import VSSM  # noqa: F401
