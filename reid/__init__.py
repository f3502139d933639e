"""Floor 3: the backbones inside torchreid.

Importing this package makes ``torchreid.models.build_model(name, num_classes, pretrained=False)``
work for every name of :func:`onebit.backbones.list_backbones`. ``resnet18``, ``resnet34`` and ``resnet50``
are this suite's from then on, so that a name means one network on every board; torchreid's own stay
available as ``torchreid_resnet18`` and so on. Further names of the naming rule (``resnet18_w24``)
are made known by :func:`register`.

model               backbone, pooling, BN neck, classifier
datasets            torchreid's readers behind checks
evaluation          CMC and mAP
runner              trains and scores one row
torchreid_adapter   all that is known about torchreid's inside
"""

from onebit import backbones
from onebit.reid.model import ReIDModel, builder
from onebit.reid.torchreid_adapter import register_model

__all__ = ["ReIDModel", "register"]


def register(name: str) -> None:
    """Let ``torchreid.models.build_model`` find the backbone ``name``.

    Raises:
        InputError: not a backbone; the message lists near matches.
    """
    backbones.backbone_config(name)
    register_model(name, builder(name))


for _name in backbones.list_backbones():
    register_model(_name, builder(_name))
