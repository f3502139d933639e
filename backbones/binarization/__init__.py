"""What makes a layer 1-bit (or k-bit): one file per method.

binarizer       ``Binarizer``, the value that describes a method, and the registry of names
signs           sign(x), its gradient estimators, and activation quantizers without parameters
reconstruction  the loss that pulls weights towards their binarized form
packing         what backward needs of 1-bit and k-bit values, in as few bytes as possible
xnor, bireal, reactnet, mcn, pcnn, bonn, bnas, dorefa, bnn, xnorpp, irnet, recu, adabin, fda, rebnn, rbonn, rbnn, ebn
                the methods; each registers its binarizers

Importing this package registers all of them.
"""

# Names are listed in the order of these imports.
# isort: off
from onebit.backbones.binarization.binarizer import (
    BINARIZERS,
    Binarizer,
    get_binarizer,
    no_activation,
    register_binarizer,
)
from onebit.backbones.binarization.signs import ApproxSign, ClippedSign, SignQuantizer, sign, sign_with
from onebit.backbones.binarization.xnor import XNOR, CentredScaledSign
from onebit.backbones.binarization.bireal import BIREAL, ScaledSign
from onebit.backbones.binarization.reactnet import REACTNET, RPReLU, RSign
from onebit.backbones.binarization.mcn import MCN, ModulatedSign
from onebit.backbones.binarization.pcnn import PCNN, ProjectedSign
from onebit.backbones.binarization.bonn import BONN, BayesianSign
from onebit.backbones.binarization.bnas import (
    BNAS_PCNN,
    BNAS_PCNN_W1A32,
    BNAS_XNOR,
    BNAS_XNOR_W1A32,
    ClosedFormAmplitude,
    LearnedAmplitude,
)
from onebit.backbones.binarization.dorefa import DOREFA2, DOREFA4, DoReFaActivation, DoReFaWeight
from onebit.backbones.binarization.bnn import BNN
from onebit.backbones.binarization.xnorpp import XNORPP, OutputScaledSign
from onebit.backbones.binarization.irnet import IRNET, BalancedSign
from onebit.backbones.binarization.recu import RECU, RectifiedSign
from onebit.backbones.binarization.adabin import ADABIN, AdaptiveSign, EqualizedSign, Maxout
from onebit.backbones.binarization.fda import FDA, FourierScaledSign, FourierSign
from onebit.backbones.binarization.rebnn import REBNN, ResilientSign
from onebit.backbones.binarization.rbonn import RBONN, RecurrentSign
from onebit.backbones.binarization.rbnn import RBNN, RotatedSign, StandardSign
from onebit.backbones.binarization.ebn import EBN, ChannelScaledSign
# isort: on

__all__ = [
    "ADABIN",
    "BINARIZERS",
    "BIREAL",
    "BNAS_PCNN",
    "BNAS_PCNN_W1A32",
    "BNAS_XNOR",
    "BNAS_XNOR_W1A32",
    "BNN",
    "BONN",
    "DOREFA2",
    "DOREFA4",
    "EBN",
    "FDA",
    "IRNET",
    "MCN",
    "PCNN",
    "RBNN",
    "RBONN",
    "REACTNET",
    "REBNN",
    "RECU",
    "XNOR",
    "XNORPP",
    "AdaptiveSign",
    "ApproxSign",
    "BalancedSign",
    "BayesianSign",
    "Binarizer",
    "CentredScaledSign",
    "ChannelScaledSign",
    "ClippedSign",
    "ClosedFormAmplitude",
    "DoReFaActivation",
    "DoReFaWeight",
    "EqualizedSign",
    "FourierScaledSign",
    "FourierSign",
    "LearnedAmplitude",
    "Maxout",
    "ModulatedSign",
    "OutputScaledSign",
    "ProjectedSign",
    "RPReLU",
    "RSign",
    "RectifiedSign",
    "RecurrentSign",
    "ResilientSign",
    "RotatedSign",
    "ScaledSign",
    "SignQuantizer",
    "StandardSign",
    "get_binarizer",
    "no_activation",
    "register_binarizer",
    "sign",
    "sign_with",
]
