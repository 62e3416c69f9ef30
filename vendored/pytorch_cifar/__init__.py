"""Clean-room implementation of the CIFAR-10 classifiers of kuangliu/pytorch-cifar @ 49b7aa9.

Constructors, state_dicts and outputs are the same. Every network also has the four active-learning
getters of superannotateai/active_learning @ aa2b9ae. README.md lists the differences.
"""

from vendored.pytorch_cifar.densenet import (
    DenseNet121,
    DenseNet161,
    DenseNet169,
    DenseNet201,
    densenet_cifar,
)
from vendored.pytorch_cifar.dla import DLA, SimpleDLA
from vendored.pytorch_cifar.dpn import DPN26, DPN92
from vendored.pytorch_cifar.efficientnet import EfficientNetB0
from vendored.pytorch_cifar.googlenet import GoogLeNet
from vendored.pytorch_cifar.lenet import LeNet
from vendored.pytorch_cifar.mobilenet import MobileNet, MobileNetV2
from vendored.pytorch_cifar.pnasnet import PNASNetA, PNASNetB
from vendored.pytorch_cifar.preact_resnet import (
    PreActResNet18,
    PreActResNet34,
    PreActResNet50,
    PreActResNet101,
    PreActResNet152,
)
from vendored.pytorch_cifar.regnet import RegNetX_200MF, RegNetX_400MF, RegNetY_400MF
from vendored.pytorch_cifar.resnet import ResNet18, ResNet34, ResNet50, ResNet101, ResNet152
from vendored.pytorch_cifar.resnext import (
    ResNeXt29_2x64d,
    ResNeXt29_4x64d,
    ResNeXt29_8x64d,
    ResNeXt29_32x4d,
)
from vendored.pytorch_cifar.senet import SENet18
from vendored.pytorch_cifar.shufflenet import ShuffleNetG2, ShuffleNetG3, ShuffleNetV2
from vendored.pytorch_cifar.vgg import VGG

__all__ = [
    "DLA",
    "DPN26",
    "DPN92",
    "VGG",
    "DenseNet121",
    "DenseNet161",
    "DenseNet169",
    "DenseNet201",
    "EfficientNetB0",
    "GoogLeNet",
    "LeNet",
    "MobileNet",
    "MobileNetV2",
    "PNASNetA",
    "PNASNetB",
    "PreActResNet18",
    "PreActResNet34",
    "PreActResNet50",
    "PreActResNet101",
    "PreActResNet152",
    "RegNetX_200MF",
    "RegNetX_400MF",
    "RegNetY_400MF",
    "ResNeXt29_2x64d",
    "ResNeXt29_4x64d",
    "ResNeXt29_8x64d",
    "ResNeXt29_32x4d",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "SENet18",
    "ShuffleNetG2",
    "ShuffleNetG3",
    "ShuffleNetV2",
    "SimpleDLA",
    "densenet_cifar",
]
