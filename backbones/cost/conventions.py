"""The ways to turn what was seen of a network's layers into memory and operations.

A convention is a function from all layers to one ``(memory_bits, flops, bops)`` per layer.
``docs/cost.md`` says where each comes from and what it reproduces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from onebit.backbones.binarization import RPReLU
from onebit.backbones.cost.rules import Count
from onebit.commons import guards

REAL_BITS = 32
#: What layers are grouped by in pictures: a declared role, else the kind of layer.
GROUPS = (
    *("stem", "preprocess", "depthwise", "pointwise", "convolution", "norm", "activation"),
    *("binarizer", "linear", "classifier", "neck", "rpn", "head", "rest"),
)


@dataclass
class Layer:
    """What is known of one module and its calls.

    Attributes:
        weight_bits, input_bits: of its multiply-accumulates, 32 unless the module says otherwise.
        params_1bit, params_real: its own parameters, those of its children not included.
        params_trainable: those of them that an optimizer trains.
        stored_bits: what its parameters take at their real width.
        training_only: no network for inference has it, so that no convention counts memory for it.
        calls, macs, elementwise: added up over the calls (see :class:`Count`).
    """

    name: str
    module: nn.Module
    role: str
    weight_bits: int
    input_bits: int
    params_1bit: int
    params_real: int
    params_trainable: int
    stored_bits: int
    training_only: bool = False
    calls: int = 0
    macs: int = 0
    elementwise: int = 0

    @classmethod
    def of(cls, name: str, module: nn.Module, role: str, params: dict, training_only: bool = False) -> Layer:
        """The layer of ``module`` before any call; ``params`` are those not counted elsewhere."""
        weight_bits = _declared_bits(name, module, "weight_bits")
        weights = params["weight"].numel() if "weight" in params else 0
        total = sum(p.numel() for p in params.values())
        stored_bits = weights * weight_bits + (total - weights) * REAL_BITS
        if isinstance(module, _NormBase) and not module.affine and module.track_running_stats:
            stored_bits = 2 * module.num_features * REAL_BITS  # mean and variance, fused
        if role == "other" and _is_depthwise(module):
            role = "depthwise"
        return cls(
            name=name,
            module=module,
            role=role,
            weight_bits=weight_bits,
            input_bits=_declared_bits(name, module, "input_bits"),
            params_1bit=weights if weight_bits == 1 else 0,
            params_real=total - (weights if weight_bits == 1 else 0),
            params_trainable=sum(p.numel() for p in params.values() if p.requires_grad),
            stored_bits=stored_bits,
            training_only=training_only,
        )

    @property
    def group(self) -> str:
        """One of :data:`GROUPS`, or a role that a third party declares."""
        if self.role != "other":
            return self.role
        for group, types in _KINDS.items():
            if isinstance(self.module, types):
                return group
        return "binarizer" if hasattr(self.module, "precision") else "rest"

    @property
    def multiplies_real_weights(self) -> bool:
        """A convolution or linear layer whose weights are not quantized."""
        return isinstance(self.module, (_ConvNd, nn.Linear)) and self.weight_bits == REAL_BITS

    @property
    def has_params(self) -> bool:
        return self.params_1bit + self.params_real > 0

    @property
    def params(self) -> int:
        return self.params_1bit + self.params_real

    def add(self, count: Count) -> None:
        """Add one call."""
        self.calls += 1
        self.macs += count.macs
        self.elementwise += count.elementwise


#: Groups of modules without a role, by type.
_KINDS = {
    "convolution": (_ConvNd,),
    "linear": (nn.Linear,),
    "norm": (_NormBase, nn.GroupNorm, nn.LayerNorm),
    "activation": (nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6, RPReLU),
}


def _declared_bits(name: str, module: nn.Module, attribute: str) -> int:
    declared = f"cost: {type(module).__name__} at {name or 'the top'!r} declares {attribute}"
    return guards.whole(declared, getattr(module, attribute, REAL_BITS), 1, REAL_BITS)


def _is_depthwise(module: nn.Module) -> bool:
    return getattr(module, "groups", 1) == getattr(module, "in_channels", None) != 1


Counted = list[tuple[int, int, int]]  # memory_bits, flops, bops of each layer


def strict(layers: Sequence[Layer]) -> Counted:
    """The precision of a MAC is the wider of its operands; every parameter at its real width.

    A MAC of operands of w and a bits, both quantized, is w * a BOPs: what the bitwise dot product
    of k-bit numbers takes (DoReFa-Net, arXiv:1606.06160, section 2.1). So 1 bit with 1 bit is one
    BOP. Any real-valued operand makes a FLOP. Batch norms count as they are after fusing the
    statistics: one scale and one shift per channel at 32 bits.
    """
    return [(layer.stored_bits, *_split(layer.macs, layer.weight_bits, layer.input_bits)) for layer in layers]


def dcp_nas(layers: Sequence[Layer]) -> Counted:
    """DCP-NAS, Table 11: every parameter at the width of the network's narrowest weights.

    That is one bit in a 1-bit network and 32 in a real-valued one (its row of ResNet-18). In a
    network with 1-bit activations a MAC of a 1-bit weight is a BOP whatever it is multiplied with,
    depthwise convolutions excepted; without (its rows "1/32") everything is a FLOP. Of k-bit
    networks the table has no row: a MAC of k-bit weights is k * a BOPs, a being the width of the
    network's narrowest activations (ours).
    """
    bits, input_bits = _narrowest(layers)
    return [
        (
            layer.params * bits,
            *_split(layer.macs, REAL_BITS if layer.role == "depthwise" else layer.weight_bits, input_bits),
        )
        for layer in layers
    ]


def cp_nas(layers: Sequence[Layer]) -> Counted:
    """CP-NAS, Table 3: layers that multiply by real-valued weights at 32 bits, all else narrow.

    Real-valued are the stem's convolutions and the classifier, and in WRN-22 the 1x1 convolutions
    of shortcuts; every other parameter takes as many bits as the network's narrowest weights. A MAC
    of a 1-bit weight is a BOP in a network with 1-bit activations, whatever it is multiplied with.
    58 BOPs make an operation, not 64: with XNOR-Net's speed-up, which the paper quotes, the FLOPs
    of its WRN-22 (BONN) come out to the digit.
    """
    bits, input_bits = _narrowest(layers)
    return [
        (
            layer.params * (REAL_BITS if layer.multiplies_real_weights else bits),
            *_split(layer.macs, layer.weight_bits, input_bits),
        )
        for layer in layers
    ]


def mmdet_legacy(layers: Sequence[Layer]) -> Counted:
    """DCP-NAS, Table 13, real-valued rows: as the flops counter of old mmdetection.

    FLOPs are MACs plus biases of convolutions, two per element of a batch norm, one per element of
    a ReLU or of a pooling's input, whatever the precision; memory is the trainable parameters at 32
    bits.
    """
    return [(layer.params_trainable * REAL_BITS, layer.macs + layer.elementwise, 0) for layer in layers]


def _narrowest(layers: Sequence[Layer]) -> tuple[int, int]:
    """Bits of the narrowest weights and of the narrowest activations of the network."""
    return (
        min((layer.weight_bits for layer in layers), default=REAL_BITS),
        min((layer.input_bits for layer in layers), default=REAL_BITS),
    )


def _split(macs: int, weight_bits: int, input_bits: int) -> tuple[int, int]:
    """``(flops, bops)``. Bitwise where both operands are quantized and that costs no more."""
    bops_per_mac = weight_bits * input_bits
    if max(weight_bits, input_bits) == REAL_BITS or bops_per_mac > 64:
        return macs, 0
    return 0, macs * bops_per_mac


CONVENTIONS: dict[str, Callable[[Sequence[Layer]], Counted]] = {
    "strict": strict,
    "dcp-nas": dcp_nas,
    "cp-nas": cp_nas,
    "mmdet-legacy": mmdet_legacy,
}
#: BOPs that cost as much as one FLOP: 64 in Bi-Real Net and ReActNet, 58 in XNOR-Net.
BOPS_PER_FLOP = dict.fromkeys(CONVENTIONS, 64) | {"cp-nas": 58}
