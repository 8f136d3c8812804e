"""Networks of other projects: their unmodified files loaded, built, given weights, made a source for the stages."""

from edgemamba.foreign.source import Request, open_module

__all__ = ["Request", "open_module"]
