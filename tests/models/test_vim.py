"""Vision Mamba: initialisation as released, the two directions, stochastic depth, sizes and classes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgemamba.errors import Unsupported
from edgemamba.models import build
from edgemamba.models.vim import BidirectionalMixer, GridMixer, Vim, Vim2d
from edgemamba.registry import MODELS, model_info
from edgemamba.ssm import SelectiveSSM


@pytest.fixture(scope="module")
def vim() -> Vim:
    torch.manual_seed(0)
    model = build("vim")
    assert isinstance(model, Vim)
    return model


def joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def test_initialisation_of_embeddings_and_head(vim: Vim) -> None:
    # Truncated at two standard deviations of what is drawn from, so that the rest has 1 / sqrt(fan-in).
    assert float(vim.patch.weight.detach().std()) == pytest.approx(math.sqrt(1 / 48), rel=0.03)
    assert float(vim.patch.weight.detach().abs().max()) <= 2 * math.sqrt(1 / 48) / 0.8796 + 1e-3
    assert bool((vim.patch.bias == 0).all()) and bool((vim.head.bias == 0).all())
    for parameter in (vim.head.weight, vim.pos_embed, vim.cls_token):
        assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.15)
    assert all(bool((norm == 1).all()) for n, norm in vim.named_parameters() if "norm" in n)


def test_initialisation_of_the_blocks(vim: Vim) -> None:
    mixers = [m for m in vim.modules() if isinstance(m, BidirectionalMixer)]
    for mixer in mixers:
        assert float(mixer.in_proj.weight.detach().abs().max()) == pytest.approx(168**-0.5, rel=0.02)
        assert float(mixer.out_proj.weight.detach().abs().max()) == pytest.approx(336**-0.5 / math.sqrt(8), rel=0.02)
        for convolution in (mixer.conv1d, mixer.conv1d_b):
            assert convolution.bias is not None
            assert 0.45 < float(convolution.weight.detach().abs().max()) <= 0.5
            assert 0.45 < float(convolution.bias.detach().abs().max()) <= 0.5
    spaces = [m for m in vim.modules() if isinstance(m, SelectiveSSM)]
    assert len(spaces) == 16
    for space in spaces:
        torch.testing.assert_close(space.A_log.detach(), torch.log(torch.arange(1.0, 17.0)).expand(336, 16))
        assert bool((space.D == 1).all())
        assert 0.9 * 11**-0.5 < float(space.dt_proj.weight.detach().abs().max()) <= 11**-0.5
    log_dt = torch.log(F.softplus(joined([space.dt_proj.bias for space in spaces])))
    assert float(log_dt.mean()) == pytest.approx(math.log(0.01), abs=0.05)
    assert float(log_dt.std()) == pytest.approx(math.log(100) / math.sqrt(12), abs=0.05)


def test_initialisation_of_the_grid_convolution() -> None:
    mixer = GridMixer(64, 16, 8, bidirectional=True)
    assert mixer.conv2d.bias is not None
    for parameter in (mixer.conv2d.weight, mixer.conv2d.bias):
        assert 0.3 < float(parameter.detach().abs().max()) <= 1 / 3


@torch.no_grad()
def test_the_directions_mirror_each_other() -> None:
    """With the weights of both directions swapped, the reversed tokens give the reversed result."""
    torch.manual_seed(0)
    mixer, swapped = BidirectionalMixer(16, 4).double(), BidirectionalMixer(16, 4).double()
    state = mixer.state_dict()
    other = {"conv1d": "conv1d_b", "conv1d_b": "conv1d", "ssm": "ssm_b", "ssm_b": "ssm"}
    renamed = {".".join([other.get(key.split(".")[0], key.split(".")[0]), *key.split(".")[1:]]): key for key in state}
    swapped.load_state_dict({new: state[key] for new, key in renamed.items()})
    h = torch.randn(2, 13, 16, dtype=torch.float64)
    torch.testing.assert_close(swapped(h.flip(1)), mixer(h).flip(1), rtol=0, atol=1e-12)


@torch.no_grad()
def test_what_a_token_sees() -> None:
    """One direction sees the tokens before and a ring around; both directions see everything."""
    torch.manual_seed(0)
    h = torch.randn(1, 64, 16, dtype=torch.float64)
    changed = h.clone()
    changed[0, 43] += 1
    for bidirectional, seen in ((False, 43 - 9), (True, 0)):
        mixer = GridMixer(16, 4, 8, bidirectional=bidirectional).double()
        moved = (mixer(changed) - mixer(h)).abs().amax(-1)[0] > 0
        assert int(moved.nonzero()[0]) == seen


def test_stochastic_depth() -> None:
    torch.manual_seed(0)
    model = Vim2d(24, 3, 8, classes=5, d_state=4, drop_path=0.5)
    assert [layer.drop for layer in model.layers] == [0, 0.25, 0.5]
    x = torch.rand(1, 3, 32, 32).expand(400, -1, -1, -1)
    with torch.no_grad():
        kept = torch.zeros(400, dtype=torch.bool)
        block, tokens = model.layers[2], torch.randn(400, 16, 24)
        branch = block.mixer(block.norm(tokens))
        moved = block(tokens) - tokens
        kept = moved.flatten(1).abs().amax(1) > 0
        torch.testing.assert_close(moved[kept], 2 * branch[kept], rtol=0, atol=1e-5)
        assert 150 < int(kept.sum()) < 250
        assert len(model(x).unique(dim=0)) > 1
        assert len(model.eval()(x[:4]).unique(dim=0)) == 1


@pytest.mark.parametrize("name", [n for n, info in MODELS.items() if info.task == "classification"])
def test_classes(name: str) -> None:
    model = build(name, classes=3).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    assert model.get_submodule("head" if name.startswith("vim") else "fc").weight.shape[0] == 3


def test_sizes() -> None:
    with pytest.raises(Unsupported, match="vim cannot take 64x64: it has one position embedding"):
        model_info("vim").check_size(64, 64)
    model_info("resnet9").check_size(64, 48)
    with torch.no_grad():
        assert build("resnet9").eval()(torch.rand(1, 3, 64, 48)).shape == (1, 100)
        assert build("resnet50").eval()(torch.rand(1, 3, 64, 48)).shape == (1, 100)


def test_residual_networks_start_as_published() -> None:
    torch.manual_seed(0)
    model = build("resnet50")
    weight = model.get_parameter("layers.3.0.conv2.weight")
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / (512 * 9)), rel=0.01)
