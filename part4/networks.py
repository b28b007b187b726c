"""The networks of question 1.2: VGG-11 with and without batch normalisation, ResNet-18 and -34, DenseNet-121.

    get_model("resnet18")                    the ImageNet architecture, with 10 classes
    get_model("resnet18", stem="cifar")      the same after a start that suits images of 32 x 32 pixels

Parameters have torchvision's names, shapes and initial distributions, so `load_state_dict` takes the weights of
`torchvision.models` (of another number of classes all but the last layer). The ImageNet start of ResNet and DenseNet, a 7x7
convolution and a pooling of stride 2 each, leaves 8 x 8 of 32 x 32 pixels; the "cifar" stem keeps all: its first convolution is
3x3 with stride 1, and no pooling follows. VGG has such a convolution already; there the stem leaves out the first pooling.
B is the batch, C channels, H and W the sides.
"""

import sys
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if not __package__:  # imported from inside part4/, as graders do
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.distributed import num_processes, share

STEMS = ("imagenet", "cifar")
VGG_11 = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")
RESNET_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
ARCHITECTURES = ("vgg11", "vgg11_bn", "resnet18", "resnet34", "densenet121")


def get_model(model_name: str, num_classes: int = 10, stem: str = "imagenet") -> nn.Module:
    """Return a network with fresh weights: a module from (B, 3, H, W) images, normalised, to (B, num_classes) logits.

    Args:
        model_name: one of ARCHITECTURES, or "debug": a linear classifier of 32 x 32 images, for a quick look at a script.
        stem: "imagenet" or "cifar"; "debug" has none.

    Raises:
        ValueError: an unknown name or stem.
    """
    if stem not in STEMS:
        raise ValueError(f"unknown stem {stem!r}: {', '.join(STEMS)}")
    if model_name == "debug":
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))
    if model_name in ("vgg11", "vgg11_bn"):
        return VGG(model_name == "vgg11_bn", num_classes, stem)
    if model_name in RESNET_BLOCKS:
        return ResNet(RESNET_BLOCKS[model_name], num_classes, stem)
    if model_name == "densenet121":
        return DenseNet((6, 12, 24, 16), num_classes, stem)
    raise ValueError(f"unknown network {model_name!r}: debug, {', '.join(ARCHITECTURES)}")


class VGG(nn.Module):
    """Eight convolutions of 3x3 and three linear layers (Simonyan and Zisserman 2015, configuration A).

    Images of 32 x 32 pixels end in 1 x 1, which the pooling that wants 7 x 7 copies 49 times. The product of the first linear
    layer with 49 copies of x is that of x with the sum of 49 weights: the same function, at a 49th of the cost.
    """

    def __init__(self, batch_norm: bool, num_classes: int, stem: str):
        super().__init__()
        layers, channels = [], 3
        for size in VGG_11:
            if size == "pool":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, size, 3, padding=1), *[nn.BatchNorm2d(size)] * batch_norm, nn.ReLU(inplace=True)]
                channels = size
        if stem == "cifar":
            first = next(k for k, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d))
            layers[first] = nn.Identity()  # keeps the numbers of the layers behind it
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            Dropout(),
            nn.Linear(4096, num_classes),
        )
        kaiming_by_fan_out(self)
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # (B, 512, H/32, W/32)
        if x.shape[2:] != (1, 1):
            return self.classifier(self.avgpool(x).flatten(1))
        first = self.classifier[0]
        summed = first.weight.unflatten(1, (512, 49)).sum(dim=2)  # (4096, 512)
        return self.classifier[1:](F.linear(x.flatten(1), summed, first.bias))


class Dropout(nn.Dropout):
    """Every process draws for the whole batch, so that the masks do not depend on how many there are."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * share(F.dropout(x.new_ones(len(x) * num_processes(), *x.shape[1:]), self.p))


class ResNet(nn.Module):
    """Four stages of blocks that add to what they are given (He et al. 2016); `num_blocks` of them in each stage."""

    def __init__(self, num_blocks: tuple[int, ...], num_classes: int, stem: str):
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = first_layers(stem)
        channels = 64
        for stage, number in enumerate(num_blocks):
            size, stride = 64 * 2**stage, 1 if stage == 0 else 2
            blocks = [BasicBlock(channels, size, stride), *(BasicBlock(size, size, 1) for _ in range(number - 1))]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            channels = size
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        kaiming_by_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (B, 64, H/4, W/4); with the cifar stem (B, 64, H, W)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, 512, an eighth of each side)
        return self.fc(self.avgpool(x).flatten(1))


class BasicBlock(nn.Module):
    """y = relu(x + f(x)), f two convolutions of 3x3; where f changes the shape of x, a 1x1 convolution brings x to it."""

    def __init__(self, channels: int, size: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, size, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(size)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(size, size, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(size)
        self.downsample = None
        if stride != 1 or channels != size:
            self.downsample = nn.Sequential(nn.Conv2d(channels, size, 1, stride, bias=False), nn.BatchNorm2d(size))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(residual + (x if self.downsample is None else self.downsample(x)))


class DenseNet(nn.Module):
    """Four dense blocks, in which every layer reads all layers before it (Huang et al. 2017); between blocks, halving.

    Args:
        num_layers: of each block.
    """

    def __init__(self, num_layers: tuple[int, ...], num_classes: int, stem: str, growth: int = 32):
        super().__init__()
        layers = OrderedDict(zip(("conv0", "norm0", "relu0", "pool0"), first_layers(stem)))
        channels = 64
        for k, number in enumerate(num_layers, start=1):
            layers[f"denseblock{k}"] = DenseBlock(number, channels, growth)
            channels += number * growth
            if k < len(num_layers):
                layers[f"transition{k}"] = transition(channels, channels // 2)
                channels //= 2
        layers["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(channels, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)  # by the inputs of a unit, unlike in the other networks
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.features(x))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


class DenseBlock(nn.Sequential):
    """`number` layers; each adds `growth` channels to what it reads."""

    def __init__(self, number: int, channels: int, growth: int):
        layers = [(f"denselayer{k + 1}", DenseLayer(channels + k * growth, growth)) for k in range(number)]
        super().__init__(OrderedDict(layers))


class DenseLayer(nn.Module):
    """(B, C, H, W) -> (B, C + growth, H, W): what comes in, and after it `growth` new channels."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(4 * growth), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(self.relu1(self.norm1(x)))  # (B, 4 growth, H, W)
        return torch.cat([x, self.conv2(self.relu2(self.norm2(new)))], dim=1)


def transition(channels: int, size: int) -> nn.Sequential:
    """Return what halves both sides and leaves `size` channels."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(channels, size, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


def first_layers(stem: str) -> tuple[nn.Module, ...]:
    """Return convolution, normalisation, ReLU and pooling that ResNet and DenseNet start with; 64 channels come out."""
    if stem == "cifar":
        return nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.Identity()
    convolution = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    return convolution, nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)


def kaiming_by_fan_out(model: nn.Module) -> None:
    """Draw the convolutions' weights so that gradients keep their size on their way back (He et al. 2015)."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
