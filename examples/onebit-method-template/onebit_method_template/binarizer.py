"""Sign with the gradient of tanh."""

from torch import Tensor, nn

from onebit.backbones import Binarizer, register_binarizer, sign_with
from onebit.backbones.binarization import ScaledSign


def tanh_slope(x: Tensor) -> Tensor:
    """1 - tanh(x)^2, the derivative of tanh."""
    return 1 - x.tanh().square()


TanhSign = sign_with(slope=tanh_slope)

TANHSIGN = register_binarizer(
    Binarizer(
        name="tanhsign",
        source="onebit-method-template: put your paper here",
        input=TanhSign,
        weight=ScaledSign,
        activation=nn.PReLU,
    )
)
