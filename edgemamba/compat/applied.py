"""The autograd functions of ``selective_scan_interface``: some files call their ``apply`` and not the wrappers."""

from __future__ import annotations

from edgemamba.compat.inner import bimamba_inner_fn, mamba_inner_fn, mamba_inner_fn_no_out_proj
from edgemamba.compat.scan import selective_scan_fn


class SelectiveScanFn:
    """``selective_scan_fn``, its arguments by position."""

    apply = staticmethod(selective_scan_fn)


class MambaInnerFn:
    """``mamba_inner_fn``, its arguments by position."""

    apply = staticmethod(mamba_inner_fn)


class MambaInnerFnNoOutProj:
    """``mamba_inner_fn_no_out_proj``, its arguments by position."""

    apply = staticmethod(mamba_inner_fn_no_out_proj)


class BiMambaInnerFn:
    """``bimamba_inner_fn``, its arguments by position."""

    apply = staticmethod(bimamba_inner_fn)
