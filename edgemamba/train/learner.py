"""Everything that training changes: network, supervision heads, optimizer, averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgemamba.errors import InputError
from edgemamba.models import Network, SegmentationModel
from edgemamba.train.distributed import Exchange, World
from edgemamba.train.losses import ALONE, Supervision
from edgemamba.train.recipes import Recipe


def memory_format(device: torch.device, *, amp: bool) -> torch.memory_format:
    """Layout of images and convolutions.

    Channels last is a sixth faster on a CPU; on a GPU tensor cores want it for bfloat16 (U-Net on an H100: 2.2 times
    as fast), and narrow float32 networks gain nothing.
    """
    return torch.channels_last if device.type == "cpu" or amp else torch.contiguous_format


# Parameters of two or more axes that are no matrices of a layer.
_SPARED = ("A_log", "pos_embed", "cls_token")


class Learner:
    """A network in training and its averaged copy.

    All tensors are made once and only ever changed in place, so a CUDA graph may hold on to them.

    Args:
        model: the network, on its device.
        recipe: how to train.
        amp: the forward pass runs in bfloat16.
        world: the processes that train it together.

    Attributes:
        layout: of images and convolutions.
        average: the network with the averaged weights, in evaluation mode: what is validated and kept.
        lr: learning rate, a scalar tensor.
        average_weight: share of the new weights in the next average, a scalar tensor.
        exchange: what the processes add up after a backward pass; None on its own.
        halted: 1 from the first step on whose loss or gradient was not finite, else 0, a scalar tensor. While it is
            1 the optimizer changes nothing.
    """

    def __init__(self, model: Network, recipe: Recipe, *, amp: bool = False, world: World = ALONE) -> None:
        device = next(model.parameters()).device
        self.layout = memory_format(device, amp=amp)
        # torch's stubs do not know this argument of Module.to.
        self.model: Network = model.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.recipe = recipe
        self.world = world
        self.supervision: Supervision | None = None
        if recipe.deep_supervision > 0:
            assert isinstance(model, SegmentationModel), "only decoders have maps to supervise"
            self.supervision = Supervision(model.feature_channels, recipe.deep_supervision).to(device)
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.lr = torch.zeros((), device=device)
        self.average_weight = torch.zeros((), device=device)
        self.parameters = dict(model.named_parameters())
        if self.supervision is not None:
            self.parameters |= {f"supervision.{name}": p for name, p in self.supervision.named_parameters()}
        self.exchange = Exchange(world, model, list(self.parameters.values())) if world.size > 1 else None
        self.optimizer = self._optimizer(device)
        # The fused optimizers look for this name, as torch.amp.GradScaler uses it: 1 leaves weights and state alone.
        self.halted = torch.zeros((), device=device)
        self.optimizer.found_inf = self.halted  # type: ignore[attr-defined]
        live, kept = model.state_dict(), self.average.state_dict()
        smooth = [name for name, tensor in live.items() if tensor.is_floating_point()]
        self._live = [live[name] for name in smooth]
        self._kept = [kept[name] for name in smooth]
        counters = [name for name in live if name not in set(smooth)]
        self._live_counters = [live[name] for name in counters]
        self._kept_counters = [kept[name] for name in counters]

    def _optimizer(self, device: torch.device) -> torch.optim.Optimizer:
        recipe = self.recipe
        decayed: list[nn.Parameter] = []
        spared: list[nn.Parameter] = []
        for name, parameter in self.parameters.items():
            matrix = parameter.ndim >= 2 and not name.endswith(_SPARED)
            (decayed if matrix or recipe.decay == "all" else spared).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        optimizer: torch.optim.Optimizer
        # The state that the first step would make: fixed addresses, and a resumed run fills it in place.
        if recipe.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=recipe.momentum, nesterov=True, fused=True)
            for parameter in self.parameters.values():
                optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
            return optimizer
        kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(groups, lr=self.lr, fused=True, capturable=device.type == "cuda")
        for parameter in self.parameters.values():
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return optimizer

    def clip_gradients(self) -> Tensor:
        """Scale the gradients down to the recipe's norm; their norm before that, a scalar."""
        if self.recipe.clip_norm > 0:
            return torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.recipe.clip_norm)
        return torch.nn.utils.get_total_norm([p.grad for p in self.parameters.values() if p.grad is not None])

    @torch.no_grad()
    def halt_unless_finite(self, value: Tensor) -> None:
        """Keep ``halted`` at 1, or set it where the scalar ``value`` is not finite: 0 times that is not 0."""
        self.halted.add_(value * 0).nan_to_num_(nan=1.0)

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the averaged weights and running statistics towards the present ones by ``average_weight``."""
        step = torch._foreach_sub(self._live, self._kept)
        torch._foreach_mul_(step, self.average_weight)
        torch._foreach_add_(self._kept, step)
        if self._kept_counters:
            torch._foreach_copy_(self._kept_counters, self._live_counters)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that training changes: names begin with model/, average/, supervision/, optimizer/."""
        found = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        found |= {f"average/{name}": tensor for name, tensor in self.average.state_dict().items()}
        if self.supervision is not None:
            found |= {f"supervision/{name}": tensor for name, tensor in self.supervision.state_dict().items()}
        for name, parameter in self.parameters.items():
            found |= {f"optimizer/{name}/{key}": value for key, value in self.optimizer.state[parameter].items()}
        return found

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set every tensor of ``tensors()`` in place.

        Raises:
            InputError: other names or shapes than this network's.
        """
        own = self.tensors()
        if own.keys() != tensors.keys():
            odd = sorted(own.keys() ^ tensors.keys())[0]
            raise InputError(f"the training state does not fit the network: {odd}")
        for name, tensor in own.items():
            if tensor.shape != tensors[name].shape:
                shapes = f"{tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
                raise InputError(f"the training state does not fit the network: {name} is {shapes}")
            tensor.copy_(tensors[name])

    def clone(self) -> dict[str, Tensor]:
        """A copy of ``tensors()``."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors().items()}
