"""What every backbone shares: scales to return, stages to freeze, batch norms to hold still."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from onebit.commons import guards
from onebit.commons.errors import InputError

#: Of a stem or a first stage: more than any network here, of less memory than most machines have.
MOST_CHANNELS = 1024


class Backbone(BaseModule):
    """Base of the networks: MMDetection's options of a backbone.

    A subclass builds its layers, sets ``feature_channels`` and ``feature_strides``, implements
    :meth:`frozen_modules` and ends its constructor with :meth:`freeze`.

    Args:
        scales: how many scales the network has.
        out_indices: which of them to return, ascending.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages: no
            gradients, batch norm in eval mode.
        norm_eval: keep every batch norm in eval mode during training.
        init_cfg: mmengine's, e.g. ``dict(type='Pretrained', checkpoint=...)``.

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
    ) -> None:
        super().__init__(init_cfg)
        self.out_indices = tuple(out_indices)
        if (
            not self.out_indices
            or list(self.out_indices) != sorted(set(self.out_indices))
            or not set(self.out_indices) <= {*range(scales)}
        ):
            raise InputError(f"out_indices {self.out_indices}: expected at least one of 0 to {scales - 1}, ascending")
        self.frozen_stages = guards.whole("frozen_stages", frozen_stages, -1, scales)
        self.norm_eval = norm_eval

    def frozen_modules(self, stages: int) -> Iterable[nn.Module]:
        """The stem and the first ``stages`` stages, as far as they are built."""
        raise NotImplementedError

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
