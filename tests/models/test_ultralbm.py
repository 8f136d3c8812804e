"""What the token flip of UltraLBM-UNet changes: direction of the second scan, and nothing else."""

from __future__ import annotations

import torch

from edgemamba.models import build
from edgemamba.ssm import EXPORT_FORMS, use_form


def test_the_token_flip_is_a_second_direction_over_the_same_weights() -> None:
    torch.manual_seed(0)
    channel, token = build("ultralbm-unet").double().eval(), build("ultralbm-unet-token").double().eval()
    token.load_state_dict(channel.state_dict())
    layer = token.get_submodule("encoder6")
    x = torch.rand(1, 48, 4, 6, dtype=torch.float64)
    whole = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert float((channel(whole) - token(whole)).abs().max()) > 1e-6
        # With symmetric kernels nothing else in the layer knows a direction: reversed tokens, reversed result.
        for part in layer.modules():
            if isinstance(part, torch.nn.Conv2d):
                part.weight.copy_((part.weight + part.weight.flip((2, 3))) / 2)
        torch.testing.assert_close(layer(x.flip((2, 3))), layer(x).flip((2, 3)), rtol=0, atol=1e-12)


def test_forms_agree() -> None:
    torch.manual_seed(1)
    model = build("ultralbm-unet-token").double().eval()
    x = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad(), use_form(model, "reference"):
        expected = model(x)
    for form in ("train", *EXPORT_FORMS):
        with torch.no_grad(), use_form(model, form):
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-10)
