"""The import hook: what it serves, for how long, and what it leaves alone."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from edgemamba.compat import installed
from edgemamba.compat.names import MODULES, ROOTS
from edgemamba.errors import Unsupported
from edgemamba.foreign.load import imported

FOREIGN = """
import mamba_ssm
from mamba_ssm import Mamba
from mamba_ssm.modules.mamba_simple import Mamba as Same, Block
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn, mamba_inner_fn_no_out_proj, bimamba_inner_fn
from mamba_ssm.models.mixer_seq_simple import create_block, RMSNorm, layer_norm_fn, rms_norm_fn, GatedMLP
from mamba_ssm.utils.generation import GenerationMixin
from mamba_ssm.utils.hf import load_config_hf, load_state_dict_hf
try:
    from mamba_ssm.ops.triton.layernorm import RMSNorm, layer_norm_fn, rms_norm_fn
except ImportError:
    RMSNorm = None
try:
    from causal_conv1d import causal_conv1d_fn, causal_conv1d_update
except ImportError:
    causal_conv1d_fn = None
import selective_scan_cuda_core as selective_scan_cuda
from selective_scan import selective_scan_fn as selective_scan_fn_v1
from mamba_ssm.modules.mamba3 import Mamba3
import triton
import triton.language as tl


@triton.autotune(configs=[triton.Config({"BC": 4}, num_warps=2)], key=["n"])
@triton.jit
def kernel(x, n, BC: tl.constexpr):
    pass


def later():
    return Mamba(4)
"""


def modules() -> set[str]:
    return {name for name in sys.modules if name.partition(".")[0] in ROOTS}


def test_foreign_imports_are_answered_inside_the_block_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foreign_hooked.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    before = modules()
    with installed() as finder:
        foreign = importlib.import_module("foreign_hooked")
    assert modules() == before and finder not in sys.meta_path
    assert "mamba_ssm.ops.selective_scan_interface" in finder.provided and "selective_scan_cuda_core" in finder.provided
    assert foreign.Mamba is foreign.Same and foreign.RMSNorm is not None and foreign.causal_conv1d_fn is not None
    # What was imported goes on working.
    assert foreign.later().in_proj.weight.shape == (16, 4)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mamba_ssm")
    sys.modules.pop("foreign_hooked")


def test_what_is_imported_and_absent_says_so_when_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foreign_absent.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    with installed():
        foreign = importlib.import_module("foreign_absent")
    with pytest.raises(Unsupported, match=r"mamba_ssm\.modules\.mamba3\.Mamba3 is not available"):
        foreign.Mamba3(8)
    with pytest.raises(Unsupported, match="load_config_hf"):
        foreign.load_config_hf("x")
    with pytest.raises(Unsupported, match="Triton kernel kernel"):
        foreign.kernel[(1,)](None, 3)
    sys.modules.pop("foreign_absent")


def test_modules_that_were_there_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "selective_scan.py").write_text("mine = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("selective_scan")
    with installed():
        assert not hasattr(importlib.import_module("selective_scan"), "mine")
    assert sys.modules["selective_scan"] is mine
    # Without CUDA nothing real can compute, and the hook is in place even where a real one is preferred.
    with installed(prefer_real=True):
        assert hasattr(importlib.import_module("mamba_ssm"), "Mamba")
    sys.modules.pop("selective_scan")


def test_an_error_inside_takes_the_hook_away() -> None:
    with pytest.raises(KeyError), installed() as finder:
        raise KeyError
    assert finder not in sys.meta_path


def test_a_name_that_does_not_exist_is_an_import_error() -> None:
    with installed(), pytest.raises(ImportError, match="no_such_name"):
        exec("from mamba_ssm import no_such_name")
    with installed(), pytest.raises(ModuleNotFoundError):
        importlib.import_module("mamba_ssm.no_such_module")


def test_what_the_originals_import_for_themselves_can_be_taken_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "einops", SimpleNamespace(rearrange=len))
    with installed():
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        assert module.rearrange is len and module.F is torch.nn.functional and module.torch is torch
    monkeypatch.setitem(sys.modules, "einops", None)
    with installed(), pytest.raises(ImportError, match="rearrange"):
        exec("from mamba_ssm.ops.selective_scan_interface import rearrange")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_listed_module_can_be_imported(name: str) -> None:
    with installed():
        module = importlib.import_module(name)
        assert set(MODULES[name]) <= set(vars(module))


def test_torch_does_not_take_the_stand_in_for_triton() -> None:
    code = (
        "from edgemamba.compat import installed\n"
        "with installed():\n"
        "    from torch.utils._triton import has_triton_package\n"
        "    import torch._inductor.runtime.triton_compat as compat, importlib.util\n"
        "    real = importlib.util.find_spec('triton') is not None and 'edgemamba' not in str(compat.triton)\n"
        "print(has_triton_package(), compat.triton)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] in ("False", "True") and "edgemamba" not in done.stdout


FORK = {
    "mamba_ssm/__init__.py": """
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from mamba_ssm.modules.mamba_simple import Mamba
""",
    "mamba_ssm/modules/__init__.py": "",
    "mamba_ssm/modules/mamba_simple.py": """
import torch
from torch import nn
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from mamba_ssm.ops.extra import doubled

class Mamba(nn.Module):
    def __init__(self, d_model, sides=2):
        super().__init__()
        self.sides = sides
        self.A_log = nn.Parameter(torch.zeros(d_model, 4))
        self.dt_B_C = nn.Linear(d_model, d_model + 8)

    def forward(self, x):
        dt, B, C = self.dt_B_C(x).transpose(1, 2).split([x.shape[2], 4, 4], 1)
        y = selective_scan_fn(x.transpose(1, 2), dt, -self.A_log.exp(), B, C, delta_softplus=True)
        return doubled(y.transpose(1, 2)) * self.sides
""",
    "mamba_ssm/ops/__init__.py": "",
    "mamba_ssm/ops/selective_scan_interface.py": "import a_cuda_extension_that_is_not_there",
    "mamba_ssm/ops/extra.py": "def doubled(x):\n    return x + x\n",
    "net.py": """
from mamba_ssm import Mamba
from mamba_ssm.utils.generation import InferenceParams
""",
}


def test_a_project_keeps_its_own_fork_but_not_its_kernels(tmp_path: Path) -> None:
    for name, text in FORK.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / ".git").mkdir()
    before = modules()
    with installed() as finder, imported(tmp_path / "net.py") as loaded:
        block = loaded.module.Mamba(6, sides=3)
        found = block(torch.randn(2, 5, 6))
    assert found.shape == (2, 5, 6) and modules() == before
    assert "mamba_ssm.ops.selective_scan_interface" in finder.provided
    assert not {"mamba_ssm", "mamba_ssm.modules.mamba_simple"} & set(finder.provided)
    assert finder.kept == ["mamba_ssm", "mamba_ssm.modules", "mamba_ssm.modules.mamba_simple"]
