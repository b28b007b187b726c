"""part4/networks.py: torchvision's counts, names and shapes, and the blocks by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from part4.networks import ARCHITECTURES, STEMS, BasicBlock, DenseLayer, get_model

COUNTS = {  # with 10 classes, and with ImageNet's 1000
    "vgg11": (128_807_306, 132_863_336),
    "vgg11_bn": (128_812_810, 132_868_840),
    "resnet18": (11_181_642, 11_689_512),
    "resnet34": (21_289_802, 21_797_672),
    "densenet121": (6_964_106, 7_978_856),
}
SHAPES = {
    "vgg11": {
        "features.0.weight": (64, 3, 3, 3),
        "features.0.bias": (64,),
        "features.3.weight": (128, 64, 3, 3),
        "features.6.weight": (256, 128, 3, 3),
        "features.8.weight": (256, 256, 3, 3),
        "features.18.weight": (512, 512, 3, 3),
        "classifier.0.weight": (4096, 25088),
        "classifier.3.weight": (4096, 4096),
        "classifier.6.bias": (10,),
    },
    "vgg11_bn": {
        "features.0.weight": (64, 3, 3, 3),
        "features.1.running_mean": (64,),
        "features.4.weight": (128, 64, 3, 3),
        "features.8.weight": (256, 128, 3, 3),
        "features.25.weight": (512, 512, 3, 3),
        "features.26.num_batches_tracked": (),
        "classifier.6.weight": (10, 4096),
    },
    "resnet18": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.bias": (128,),
        "layer4.1.bn2.weight": (512,),
        "fc.weight": (10, 512),
    },
    "resnet34": {"layer1.2.conv2.weight": (64, 64, 3, 3), "layer3.5.conv1.weight": (256, 256, 3, 3), "fc.bias": (10,)},
    "densenet121": {
        "features.conv0.weight": (64, 3, 7, 7),
        "features.norm0.bias": (64,),
        "features.denseblock1.denselayer1.norm1.weight": (64,),
        "features.denseblock1.denselayer1.conv1.weight": (128, 64, 1, 1),
        "features.denseblock1.denselayer6.conv2.weight": (32, 128, 3, 3),
        "features.transition1.conv.weight": (128, 256, 1, 1),
        "features.denseblock3.denselayer24.norm2.running_mean": (128,),
        "features.denseblock4.denselayer16.norm1.weight": (992,),
        "features.norm5.weight": (1024,),
        "classifier.weight": (10, 1024),
    },
}


def on_paper(*arguments, **options):
    """Return a model whose tensors have shapes but no values, which takes no time."""
    with torch.device("meta"):
        return get_model(*arguments, **options)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_are_torchvisions(name):
    assert tuple(sum(p.numel() for p in on_paper(name, k).parameters()) for k in (10, 1000)) == COUNTS[name]
    state = on_paper(name).state_dict()
    assert {key: tuple(state[key].shape) for key in SHAPES[name]} == SHAPES[name]


def test_how_many_tensors_there_are():
    """1 + 5 for each convolution with normalisation, 2 for each linear layer and for VGG's plain convolutions."""
    sizes = {name: len(on_paper(name).state_dict()) for name in ARCHITECTURES}
    assert sizes == {"vgg11": 22, "vgg11_bn": 62, "resnet18": 20 * 6 + 2, "resnet34": 36 * 6 + 2, "densenet121": 727}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_of_torchvision_load(name):
    models = pytest.importorskip("torchvision.models", reason="needs torchvision")
    theirs, ours = getattr(models, name)(num_classes=10).eval(), get_model(name).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(ours(x), theirs(x), atol=1e-4)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("name", ["debug", *ARCHITECTURES])
def test_any_batch_any_size_any_number_of_classes(name, stem):
    for batch, side, classes in [(1, 32, 10), (5, 32, 7), (2, 64, 10), (3, 224, 1000)]:
        if name == "debug" and side != 32:
            continue
        model = on_paper(name, classes, stem).eval()
        assert model(torch.empty(batch, 3, side, side, device="meta")).shape == (batch, classes)


@pytest.mark.parametrize(
    ("name", "imagenet", "cifar"),
    [("vgg11", 1, 2), ("vgg11_bn", 1, 2), ("resnet18", 1, 4), ("resnet34", 1, 4), ("densenet121", 1, 4)],
)
def test_the_cifar_stem_keeps_resolution(name, imagenet, cifar):
    """Compare the side before the last pooling, for images of 32 x 32; only the first layer's parameters differ."""
    sides = []
    for stem in STEMS:
        model = on_paper(name, stem=stem).eval()
        last = model.layer4 if name.startswith("resnet") else model.features
        last.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
        model(torch.empty(2, 3, 32, 32, device="meta"))
    assert sides == [imagenet, cifar]
    a, b = ({key: value.shape for key, value in on_paper(name, stem=stem).state_dict().items()} for stem in STEMS)
    first = "conv1.weight" if name.startswith("resnet") else "features.conv0.weight"
    differing = [key for key in a if a[key] != b[key]]
    assert a.keys() == b.keys() and differing == ([] if name.startswith("vgg") else [first])
    assert name.startswith("vgg") or b[first] == (64, 3, 3, 3)


def random_statistics(module):
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 2)
            for tensor in (layer.running_mean, layer.weight, layer.bias):
                nn.init.normal_(tensor)
    return module.double().eval()


def normalised(x, layer):
    """Return batch normalisation with running statistics, by its formula."""
    mean, var, weight, bias = (
        v[:, None, None] for v in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return weight * (x - mean) / (var + 1e-5).sqrt() + bias


@pytest.mark.parametrize(("channels", "size", "stride"), [(4, 4, 1), (4, 8, 2), (4, 8, 1), (4, 4, 2)])
def test_a_basic_block_by_hand(channels, size, stride):
    block = random_statistics(BasicBlock(channels, size, stride))
    x = torch.randn(2, channels, 8, 8, dtype=torch.float64)
    f = normalised(F.conv2d(x, block.conv1.weight, stride=stride, padding=1), block.bn1).clamp(min=0)
    f = normalised(F.conv2d(f, block.conv2.weight, padding=1), block.bn2)
    if (size, stride) == (channels, 1):
        assert block.downsample is None
        shortcut = x
    else:
        shortcut = torch.einsum("oi,bihw->bohw", block.downsample[0].weight[:, :, 0, 0], x[:, :, ::stride, ::stride])
        shortcut = normalised(shortcut, block.downsample[1])
    assert torch.allclose(block(x), (f + shortcut).clamp(min=0), atol=1e-12)


def test_a_dense_layer_by_hand():
    layer = random_statistics(DenseLayer(6, growth=4))
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    original = x.clone()
    new = F.conv2d(normalised(x, layer.norm1).clamp(min=0), layer.conv1.weight)
    new = F.conv2d(normalised(new, layer.norm2).clamp(min=0), layer.conv2.weight, padding=1)
    assert new.shape == (2, 4, 8, 8)
    assert torch.allclose(layer(x), torch.cat([x, new], dim=1), atol=1e-12)
    assert torch.equal(x, original)  # the ReLU in place is not on the input


@pytest.mark.slow
def test_vggs_short_cut_is_the_same_function():
    """On 32 x 32 pixels the first linear layer reads one pixel, not its 49 copies: values and gradients agree."""
    torch.manual_seed(0)
    model = get_model("vgg11").eval()
    x, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    weights = [model.features[0].weight, model.classifier[0].weight, model.classifier[0].bias]
    logits = [model(x), model.classifier(model.avgpool(model.features(x)).flatten(1))]
    assert torch.allclose(*logits, atol=1e-5)
    gradients = [torch.autograd.grad(F.cross_entropy(values, labels), weights) for values in logits]
    for a, b in zip(*gradients):
        assert torch.allclose(a, b, atol=1e-6)


def test_initial_weights_have_torchvisions_distributions():
    torch.manual_seed(0)
    resnet, densenet = get_model("resnet18"), get_model("densenet121")
    assert resnet.conv1.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 49)), rel=0.05)  # by fan out
    assert resnet.layer3[0].conv1.weight.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.02)
    assert resnet.fc.weight.abs().max().item() <= 1 / math.sqrt(512)  # torch's default
    assert densenet.features.conv0.weight.std().item() == pytest.approx(math.sqrt(2 / (3 * 49)), rel=0.05)  # by fan in
    assert not densenet.classifier.bias.any()
    for model in (resnet, densenet):
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert (layer.weight == 1).all() and not layer.bias.any()


@pytest.mark.slow
def test_vggs_initial_weights_have_torchvisions_distributions():
    model = get_model("vgg11_bn")
    assert model.features[4].weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)
    assert not model.features[4].bias.any() and not model.classifier[3].bias.any()
    for k in (0, 3, 6):
        assert model.classifier[k].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert [layer.p for layer in model.classifier if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize("name", ["debug", "resnet18", "densenet121"])
def test_an_image_answers_for_itself_and_one_batch_can_be_learnt(name):
    torch.manual_seed(0)
    model = get_model(name)
    x, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert abs(losses[0] - math.log(10)) < 1.2 and losses[-1] < 0.2 * losses[0]
    model.eval()
    changed = x.clone()
    changed[3] += 1
    with torch.no_grad():
        differs = (model(changed) - model(x)).abs().amax(dim=1) > 1e-5
    assert differs.tolist() == [k == 3 for k in range(8)]


def test_unknown_networks_and_stems_are_refused():
    message = "unknown network 'resnet50': debug, vgg11, vgg11_bn, resnet18, resnet34, densenet121"
    with pytest.raises(ValueError, match=message):
        get_model("resnet50")
    with pytest.raises(ValueError, match="unknown stem 'tiny': imagenet, cifar"):
        get_model("resnet18", stem="tiny")
