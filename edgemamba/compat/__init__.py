"""Mamba vision code of other projects, unmodified, without CUDA: their imports answered with this package's scan.

::

    with edgemamba.compat.installed():
        import foreign_model  # imports mamba_ssm, causal_conv1d, selective_scan, selective_scan_cuda_*

What they call runs on CPU and CUDA, is differentiable, and is exported as standard operators (``ssm.use_form``).
``names`` lists every module and name.
"""

from edgemamba.compat.hook import installed

__all__ = ["installed"]
