"""What every backbone shares: scales to return, stages to freeze, batch norms to hold still."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from onebit.commons import guards
from onebit.commons.errors import InputError

#: Of a stem or a first stage: more than any network here, of less memory than most machines have.
MOST_CHANNELS = 1024


class Backbone(BaseModule):
    """Base of the networks: MMDetection's options of a backbone.

    A subclass builds its layers, sets ``feature_channels`` and ``feature_strides``, implements
    :meth:`frozen_modules`, runs its blocks by :meth:`run_block` and ends its constructor with :meth:`settle`.

    Args:
        scales: how many scales the network has.
        out_indices: which of them to return, in any order; the maps come by rising stride, as in MMDetection.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages: no
            gradients, batch norm in eval mode.
        norm_eval: keep every batch norm in eval mode during training.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=...)``.
        with_cp: keep only the input of every block for the backward pass, which runs the block again: less memory,
            more time. The running statistics of batch norms then take every batch twice, as in MMDetection.
        norm_cfg: of the batch norms: ``type`` is ``BN`` or ``SyncBN`` (torch's, for GPUs; our own runners join the
            statistics of plain batch norms), beside it ``requires_grad``, ``eps`` and ``momentum``.

    Raises:
        InputError: an argument out of range.
    """

    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...]

    def __init__(
        self,
        scales: int,
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: dict | list[dict] | None,
        with_cp: bool = False,
        norm_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = tuple(out_indices)
        if not given or len(set(given)) < len(given) or not set(given) <= {*range(scales)}:
            raise InputError(f"out_indices {given}: expected at least one of 0 to {scales - 1}, each once")
        self.out_indices = tuple(sorted(given))
        self.with_cp = guards.switch("with_cp", with_cp)
        self.norm_cfg = dict(norm_cfg or {})
        guards.choice("norm_cfg.type", self.norm_cfg.get("type", "BN"), ("BN", "SyncBN"))
        if unknown := self.norm_cfg.keys() - {"type", "requires_grad", "eps", "momentum"}:
            raise InputError(f"norm_cfg {sorted(unknown)}: expected type, requires_grad, eps or momentum")
        for key in self.norm_cfg.keys() & {"eps", "momentum"}:
            guards.number(f"norm_cfg.{key}", self.norm_cfg[key], 0)
        self.frozen_stages = guards.whole("frozen_stages", frozen_stages, -1, scales)
        self.norm_eval = norm_eval

    def frozen_modules(self, stages: int) -> Iterable[nn.Module]:
        """The stem and the first ``stages`` stages, as far as they are built."""
        raise NotImplementedError

    def run_block(self, block: nn.Module, *inputs: Any) -> Any:
        """``block(*inputs)``; with ``with_cp``, what it computes inside is not kept for the backward pass."""
        if self.with_cp and any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def settle(self) -> None:
        """Make the batch norms what ``norm_cfg`` asks for, and freeze what is to be frozen."""
        if self.norm_cfg.get("type") == "SyncBN":
            roles = {name: vars(m)["cost_role"] for name, m in self.named_modules() if "cost_role" in vars(m)}
            nn.SyncBatchNorm.convert_sync_batchnorm(self)
            for name, role in roles.items():
                self.get_submodule(name).cost_role = role
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eps = self.norm_cfg.get("eps", module.eps)
                module.momentum = self.norm_cfg.get("momentum", module.momentum)
                if not self.norm_cfg.get("requires_grad", True):
                    module.requires_grad_(False)
        self.freeze()

    def freeze(self) -> None:
        """Put what is frozen into eval mode and out of the optimizer's reach."""
        if self.frozen_stages >= 0:
            for module in self.frozen_modules(self.frozen_stages):
                module.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        """Training mode, except for frozen stages and, with ``norm_eval``, batch norms."""
        super().train(mode)
        self.freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
