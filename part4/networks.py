"""The networks of question 1.2: VGG-11 with and without batch normalisation, ResNet-18 and -34, DenseNet-121.

    get_model("resnet18")                    the ImageNet architecture, with 10 classes
    get_model("resnet18", stem="cifar")      the same with first layers that suit images of 32 x 32 pixels

Parameters have torchvision's names, shapes and initial distributions, so `load_state_dict` takes the weights of
`torchvision.models` (all but those of the last layer, if the number of classes differs). The ImageNet stem of ResNet
and DenseNet, a 7x7 convolution and a pooling of stride 2 each, reduces 32 x 32 pixels to 8 x 8; the "cifar" stem keeps
them all: its first convolution is 3x3 with stride 1, and no pooling follows. VGG has such a convolution already; there
the "cifar" stem leaves out the first pooling. In the comments B is the batch, C the channels, H and W the sides.
"""

import sys
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if not __package__:  # imported from inside part4/, as graders do
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.distributed import shard, world_size
from common.machine import computing_type

STEMS = ("imagenet", "cifar")
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}
VGG_11 = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")
RESNET_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
ARCHITECTURES = ("vgg11", "vgg11_bn", "resnet18", "resnet34", "densenet121")


def products_in(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which a forward pass takes its convolutions and products in a precision."""
    dtype = computing_type(PRECISIONS[precision], device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def get_model(model_name: str, num_classes: int = 10, stem: str = "imagenet") -> nn.Module:
    """Return a network with fresh weights: a module from (B, 3, H, W) images, normalised, to (B, num_classes) logits.

    Args:
        model_name: one of ARCHITECTURES, or "debug": a linear classifier of 32 x 32 images, to try a script quickly.
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

    Images of 32 x 32 pixels end as 1 x 1, which the pooling to 7 x 7 copies 49 times. The first linear layer's product
    with 49 copies of x is the product of x with the sum of the 49 weights: the same function at a 49th of the cost.
    """

    def __init__(self, batch_norm: bool, num_classes: int, stem: str):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for size in VGG_11:
            if isinstance(size, str):  # "pool"
                layers.append(nn.MaxPool2d(2))
            else:
                layers.append(nn.Conv2d(channels, size, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(size))
                layers.append(nn.ReLU(inplace=True))
                channels = size
        if stem == "cifar":
            first = next(k for k, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d))
            layers[first] = nn.Identity()  # keeps the numbers of the later layers
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
        weight, bias = self.classifier[0].parameters()
        summed = weight.unflatten(1, (512, 49)).sum(dim=2)  # (4096, 512)
        return self.classifier[1:](F.linear(x.flatten(1), summed, bias))


class Dropout(nn.Dropout):
    """Dropout whose masks do not depend on the number of processes: each draws those of the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * shard(F.dropout(x.new_ones(len(x) * world_size(), *x.shape[1:]), self.p))


class ResNet(nn.Module):
    """Four stages of residual blocks, `num_blocks` in each (He et al. 2016)."""

    def __init__(self, num_blocks: tuple[int, ...], num_classes: int, stem: str):
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = first_layers(stem)
        channels, stages = 64, []
        for stage, number in enumerate(num_blocks):
            size = 64 * 2**stage
            blocks = [BasicBlock(channels, size, stride=1 if stage == 0 else 2)]
            blocks += [BasicBlock(size, size, stride=1) for _ in range(number - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = size
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        kaiming_by_fan_out(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (B, 64, H/4, W/4); with the cifar stem (B, 64, H, W)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, 512, an eighth of each side)
        return self.fc(self.avgpool(x).flatten(1))


class BasicBlock(nn.Module):
    """y = relu(x + f(x)), f two 3x3 convolutions; where f changes the shape, a 1x1 convolution does so to x too."""

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
    """Four dense blocks, in which every layer reads all earlier ones (Huang et al. 2017); between blocks sizes halve.

    Args:
        num_layers: the number of layers in each block.
        growth: the number of channels that each layer adds.
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
                nn.init.kaiming_normal_(layer.weight)  # by fan in, unlike the other networks
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.features(x))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


class DenseBlock(nn.Sequential):
    """`number` layers, each of which adds `growth` channels to what it reads."""

    def __init__(self, number: int, channels: int, growth: int):
        layers = [(f"denselayer{k + 1}", DenseLayer(channels + k * growth, growth)) for k in range(number)]
        super().__init__(OrderedDict(layers))


class DenseLayer(nn.Module):
    """(B, C, H, W) -> (B, C + growth, H, W): the input, followed by `growth` new channels."""

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
    """Return the layers between two blocks, which halve both sides and leave `size` channels."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(channels, size, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


def first_layers(stem: str) -> tuple[nn.Module, ...]:
    """Return the first layers of ResNet and DenseNet: convolution to 64 channels, normalisation, ReLU and pooling."""
    if stem == "cifar":
        return nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.Identity()
    convolution = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    return convolution, nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)


def kaiming_by_fan_out(model: nn.Module) -> None:
    """Draw the convolutions' weights such that gradients keep their size from layer to layer (He et al. 2015)."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
