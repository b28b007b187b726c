"""part4/train.py with one of the networks below: `networks.py NAME ARGUMENTS`.

All take the same steps in one process as in two; those with batch normalisation do so if one process normalises each
half of a batch by itself.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import part4.train
from common.command import run_command
from part4.networks import Dropout, get_model


class HalvesNormalised(nn.BatchNorm2d):
    """Batch normalisation of each half of the batch by itself: in one process, what two processes do."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        mean, variance = self.running_mean, self.running_var
        outputs, means, variances = [], [], []
        for half in x.chunk(2):
            self.running_mean, self.running_var = mean.clone(), variance.clone()
            outputs.append(super().forward(half))
            means.append(self.running_mean)
            variances.append(self.running_var)
        self.running_mean = torch.stack(means).mean(dim=0)
        self.running_var = torch.stack(variances).mean(dim=0)
        return torch.cat(outputs)


def small(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), *layers, nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))


def halves_normalised(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = HalvesNormalised
    return model


NETWORKS = {
    "convolution": lambda: small(),
    "normalised": lambda: small(nn.BatchNorm2d(4)),
    "halves": lambda: small(HalvesNormalised(4)),
    "dropout": lambda: small(Dropout()),
    "normalised_dropout": lambda: small(nn.BatchNorm2d(4), Dropout()),
    "vgg11": lambda: get_model("vgg11"),
    "resnet18": lambda: get_model("resnet18"),
    "resnet18_halves": lambda: halves_normalised(get_model("resnet18")),
}

if __name__ == "__main__":
    network = NETWORKS[sys.argv.pop(1)]
    part4.train.get_model = lambda *_, **__: network()
    run_command(part4.train.main)
