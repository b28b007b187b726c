"""Look at convolutional networks in a browser: images under four corruptions, and the filters of one in NumPy at work.

    python part4/train.py --model_name resnet18 --run_dir runs/resnet18
    python part4/train_numpy.py --run_dir runs/numpy
    python part4/explore.py --checkpoint runs/resnet18 runs/numpy

Of a run of train.py the page shows what the network says of each image; a run of train_numpy.py runs in the page
itself. It needs no server or network.
"""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
import torch
from PIL import Image
from torch import Tensor

from common.command import ArgumentParser, non_empty, run_command
from common.data import input_file
from common.errors import InputError, reason_of
from common.page import floats, write_page
from common.paths import short_path
from common.run_folder import load_checkpoint
from part4.cifar10 import SHAPES, ImageData, load_images, normalise, to_unit
from part4.corruptions import CORRUPTIONS, SEVERITIES
from part4.networks import get_model
from part4.sources import CLASSES, SIDE


def main() -> None:
    args = build_parser().parse_args()
    runs = [run_data(Path(run)) for run in args.checkpoint]
    page = Path(args.page) if args.page else Path(args.checkpoint[0]) / "explore.html"
    write_page(page, Path(__file__).with_name("explore.html"), {"runs": runs})
    print(f"{short_path(page)}: open it in a browser")


def run_data(run: Path) -> dict[str, Any]:
    """Return what the page needs of one finished run.

    Raises:
        FileNotFoundError: the folder has no finished run.
        ValueError: it is not a run of train.py or train_numpy.py, or was trained on other images.
    """
    config, result = (read_json(run, name) for name in ("config.json", "result.json"))
    try:
        arguments, of_network = config["arguments"], config["script"] == "part4/train.py"
        checkpoint = load_checkpoint(input_file(run / ("best.pt" if of_network else "checkpoint.pt"), "a run of part4"))
        data = load_images(arguments["dataset"], arguments["data_dir"])
        if checkpoint["images"] != data.checksum:
            raise InputError(f"{short_path(run)} was trained on other images than those that are there now")
        chosen = torch.stack([(data.test.labels == label).nonzero()[0, 0] for label in range(len(CLASSES))])
        pixels, labels = data.test.take(chosen)
        shown = {
            "pictures": [png(image) for image in pixels],
            "labels": labels.tolist(),
            "classes": list(CLASSES if arguments["dataset"] == "cifar10" else SHAPES),
        }
        of_run = corruptions_data if of_network else filters_data
        return shown | of_run(checkpoint, to_unit(pixels), data, result["test_accuracy"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{short_path(run)} holds no run of part4 that fits together ({reason_of(error)})") from None


@torch.no_grad()
def corruptions_data(checkpoint: dict[str, Any], images: Tensor, data: ImageData, accuracy: float) -> dict[str, Any]:
    """Return each image under each corruption, and the two classes that the network finds likeliest."""
    name = checkpoint["arguments"]["model_name"]
    model = get_model(name, stem=checkpoint["arguments"]["stem"])
    model.load_state_dict(checkpoint["model"])
    model.eval()

    def top(images: Tensor) -> list[list[tuple[int, float]]]:
        p, classes = model(normalise(images, checkpoint["mean"], checkpoint["std"])).softmax(dim=1).topk(2)
        return [list(zip(row, (round(q, 4) for q in ps))) for row, ps in zip(classes.tolist(), p.tolist())]

    corruptions = []
    for corruption, transform in CORRUPTIONS.items():
        severities = []
        for severity in SEVERITIES:
            corrupted = transform(severity)(images)
            pictures = [png(image) for image in (255 * corrupted).round().byte()]
            severities.append({"pictures": pictures, "top": top(corrupted)})
        corruptions.append({"name": corruption, "severities": severities})
    about = f"{name}, trained on {data.name}, names the class of {100 * accuracy:.1f} % of the test images."
    return {"name": name, "about": about, "top": top(images), "corruptions": corruptions}


def filters_data(checkpoint: dict[str, Any], images: Tensor, data: ImageData, accuracy: float) -> dict[str, Any]:
    """Return the weights of the network in NumPy that were best in validation, and the images as it reads them."""
    weights = checkpoint["best"]["network"]["weights"]
    blocks = [{"W": floats(weights[f"W_{k}"]), "b": floats(weights[f"b_{k}"])} for k in range(1, len(weights) // 2)]
    return {
        "name": "a network in NumPy",
        "about": f"Trained on {data.name}, it names the class of {100 * accuracy:.1f} % of the test images.",
        "side": SIDE,
        "weights": {"W_p": floats(weights["W_p"]), "b_p": floats(weights["b_p"]), "blocks": blocks},
        "images": [floats(image) for image in normalise(images, data.mean, data.std)],
    }


def png(pixels: Tensor) -> str:
    """Return (3, H, W) uint8 pixels as a PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def read_json(run: Path, name: str) -> Any:
    path = input_file(run / name, "a finished run of part4/train.py or part4/train_numpy.py")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{short_path(path)} is damaged: no JSON") from None


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--checkpoint",
        nargs="+",
        type=non_empty,
        required=True,
        help="run folders of part4's train.py or train_numpy.py",
    )
    add("--page", type=non_empty, help="file to write (default: explore.html in the first run folder)")
    return parser


if __name__ == "__main__":
    run_command(main)
