"""Which modules ``installed`` provides, and where each name of theirs comes from."""

from __future__ import annotations

import importlib
import sys
from typing import Any

_SCAN = "edgemamba.compat.scan"
_INNER = "edgemamba.compat.inner"
_CONV = "edgemamba.compat.conv"
_NORMS = "edgemamba.compat.norms"
_RAW = "edgemamba.compat.raw"
_ABSENT = "edgemamba.compat.absent"
_BLOCK = "edgemamba.compat.block"
_KERNELS = "edgemamba.compat.kernels"
_MLP = "edgemamba.compat.mlp"
_MAMBA2 = "edgemamba.compat.mamba2"
_SSD = "edgemamba.compat.ssd"

_CONVS = dict.fromkeys(("causal_conv1d_fn", "causal_conv1d_update", "causal_conv1d_ref"), _CONV)
_INNERS = dict.fromkeys(
    ("mamba_inner_fn", "mamba_inner_ref", "mamba_inner_fn_no_out_proj", "bimamba_inner_fn", "bimamba_inner_ref"), _INNER
)
_SCANS = {"selective_scan_fn": _SCAN, "selective_scan_ref": _SCAN}
_APPLIED = dict.fromkeys(
    ("SelectiveScanFn", "MambaInnerFn", "MambaInnerFnNoOutProj", "BiMambaInnerFn"), "edgemamba.compat.applied"
)
_FUSED = dict.fromkeys(("RMSNorm", "layer_norm_fn", "rms_norm_fn", "layer_norm_ref", "rms_norm_ref"), _NORMS)
_MAMBA = {"Mamba": "edgemamba.compat.mamba"}
_VMAMBA = {
    "selective_scan_fn": f"{_SCAN}:selective_scan_without_gate",
    "selective_scan_ref": f"{_SCAN}:selective_scan_without_gate",
}
_GROUPED = {"fwd": f"{_RAW}:grouped_fwd", "bwd": f"{_RAW}:grouped_bwd"}

# Name: where it is, under the same name or "place:name"; what cannot be had: "-" a class, "!" a function.
MODULES: dict[str, dict[str, str]] = {
    "mamba_ssm": {**_MAMBA, **_SCANS, "mamba_inner_fn": _INNER, "Mamba2": _MAMBA2, "MambaLMHeadModel": "-"},
    "mamba_ssm.modules": {},
    "mamba_ssm.modules.mamba_simple": {
        **_MAMBA,
        "Block": f"{_BLOCK}:SimpleBlock",
        **_SCANS,
        **_INNERS,
        **_CONVS,
        **_FUSED,
        "selective_state_update": "!",
    },
    "mamba_ssm.modules.block": {"Block": _BLOCK, **_FUSED},
    "mamba_ssm.modules.mamba2": {"Mamba2": _MAMBA2},
    "mamba_ssm.modules.mamba3": {"Mamba3": "-"},
    "mamba_ssm.modules.mamba2_simple": {"Mamba2Simple": _MAMBA2},
    "mamba_ssm.modules.mlp": {"GatedMLP": _MLP},
    "mamba_ssm.modules.mha": {"MHA": "-"},
    "mamba_ssm.ops": {},
    "mamba_ssm.ops.selective_scan_interface": {**_SCANS, **_INNERS, **_CONVS, **_APPLIED},
    "mamba_ssm.ops.triton": {},
    "mamba_ssm.ops.triton.layernorm": _FUSED,
    "mamba_ssm.ops.triton.layer_norm": _FUSED,
    "mamba_ssm.ops.triton.layernorm_gated": {
        "RMSNorm": f"{_NORMS}:GatedRMSNorm",
        "LayerNorm": "-",
        "layernorm_fn": "!",
        "rmsnorm_fn": f"{_NORMS}:gated_rms_norm",
    },
    "mamba_ssm.ops.triton.selective_state_update": {"selective_state_update": "!"},
    "mamba_ssm.ops.triton.ssd_combined": {
        "mamba_chunk_scan_combined": _SSD,
        "mamba_split_conv1d_scan_combined": _SSD,
        "mamba_split_conv1d_scan_ref": f"{_SSD}:mamba_split_conv1d_scan_combined",
    },
    "mamba_ssm.distributed": {},
    "mamba_ssm.distributed.tensor_parallel": {"ColumnParallelLinear": "-", "RowParallelLinear": "-"},
    "mamba_ssm.distributed.distributed_utils": {"all_reduce": "!", "reduce_scatter": "!"},
    "mamba_ssm.utils": {},
    "mamba_ssm.utils.generation": {
        "GenerationMixin": _ABSENT,
        "InferenceParams": _ABSENT,
        "decode": "!",
        "update_graph_cache": "!",
    },
    "mamba_ssm.utils.hf": {"load_config_hf": "!", "load_state_dict_hf": "!"},
    "mamba_ssm.models": {},
    "mamba_ssm.models.mixer_seq_simple": {
        **_MAMBA,
        **_FUSED,
        "create_block": _BLOCK,
        "Block": _BLOCK,
        "GatedMLP": _MLP,
        "GenerationMixin": _ABSENT,
        "Mamba2": _MAMBA2,
        "MHA": "-",
        "MambaConfig": "-",
        "MixerModel": "-",
        "MambaLMHeadModel": "-",
        "_init_weights": _MLP,
    },
    "mamba_ssm.models.config_mamba": {"MambaConfig": "-"},
    "causal_conv1d": _CONVS,
    "causal_conv1d.causal_conv1d_interface": _CONVS,
    "causal_conv1d_cuda": {"causal_conv1d_fwd": f"{_RAW}:conv_fwd", "causal_conv1d_bwd": f"{_RAW}:conv_bwd"},
    "selective_scan": _VMAMBA,
    "selective_scan.selective_scan_interface": _VMAMBA,
    "selective_scan_cuda": {"fwd": f"{_RAW}:mamba_fwd", "bwd": f"{_RAW}:mamba_bwd"},
    "selective_scan_cuda_core": _GROUPED,
    "selective_scan_cuda_oflex": _GROUPED,
    "selective_scan_cuda_nrow": _GROUPED,
    "selective_scan_cuda_ndstate": _GROUPED,
    "triton": {
        "jit": _KERNELS,
        "autotune": f"{_KERNELS}:decorator",
        "heuristics": f"{_KERNELS}:decorator",
        "cdiv": _KERNELS,
        "next_power_of_2": _KERNELS,
        "Config": _KERNELS,
    },
    "triton.language": {},
    "triton.language.math": {},
}
# What the originals import for themselves, and some files take from them in place of the package it is of.
PASSED_ON = {
    "rearrange": "einops",
    "repeat": "einops",
    "torch": "",
    "math": "",
    "nn": "torch",
    "F": "torch.nn:functional",
}
PACKAGES = frozenset(name.rpartition(".")[0] for name in MODULES) - {""}
ROOTS = frozenset(name.partition(".")[0] for name in MODULES)


def contents(module: str) -> dict[str, Any]:
    """Every name of one provided module."""
    return {name: _find(module, name, source) for name, source in MODULES[module].items()}


def passed_on(name: str) -> Any:
    """A name of ``PASSED_ON``.

    Raises:
        AttributeError: it is none of them, or its package is not installed; ``from module import name`` says the name.
    """
    if name not in PASSED_ON:
        raise AttributeError(name)
    place, _, attribute = PASSED_ON[name].partition(":")
    try:
        return getattr(importlib.import_module(place), attribute or name) if place else importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise AttributeError(f"{name}, which is of {place} ({error})") from error


def _find(module: str, name: str, source: str) -> Any:
    if source in "-!":
        absent = sys.modules.get(_ABSENT) or importlib.import_module(_ABSENT)
        maker = absent.absent_class if source == "-" else absent.absent_function
        return maker(f"{module}.{name}")
    place, _, attribute = source.partition(":")
    return getattr(importlib.import_module(place), attribute or name)
