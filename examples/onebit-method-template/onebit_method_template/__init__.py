"""A binarizer, ``tanhsign``, and a backbone, ``tinynet``: importing this package registers both."""

from onebit_method_template.backbone import TinyNet
from onebit_method_template.binarizer import TANHSIGN

__all__ = ["TANHSIGN", "TinyNet"]
__version__ = "0.1.0"
