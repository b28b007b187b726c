"""Look at recurrent networks in a browser: a palindrome digit by digit, and what each makes of it.

    python part1/train.py --model_type RNN --input_length 29 --preset long_memory --run_dir runs/RNN
    python part1/train.py --model_type LSTM --input_length 29 --preset long_memory --run_dir runs/LSTM
    python part1/explore.py --checkpoint runs/RNN runs/LSTM

The page holds the weights, and runs the equations itself (`recurrent.js`), without a server or network.
"""

import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
from common.command import ArgumentParser, non_empty, run_command
from common.page import floats, write_page
from common.paths import short_path
from part1.grads_over_time import load_run
from part1.lstm import LSTM


def main() -> None:
    args = build_parser().parse_args()
    networks = [network_data(Path(run)) for run in args.checkpoint]
    page = Path(args.page) if args.page else Path(args.checkpoint[0]) / "explore.html"
    data = {"networks": networks, "length": min(network["length"] for network in networks)}
    write_page(page, Path(__file__).with_name("explore.html"), data)
    print(f"{short_path(page)}: open it in a browser")


def network_data(run: Path) -> dict[str, Any]:
    """Return what the page needs of one run: the sizes, weights and origin of its network."""
    models, palindromes = load_run(run, num_palindromes=1)
    model = models["trained"]
    name, T = "LSTM" if isinstance(model, LSTM) else "RNN", palindromes.shape[1]
    d = (model.W_x if isinstance(model, LSTM) else model.W_hx).shape[1]
    return {
        "name": f"the {name}",
        "model": name,
        "about": f"{model.num_hidden} units, trained on palindromes of {T} digits",
        "length": T,
        "d": d,
        "n": model.num_hidden,
        "weights": {parameter: floats(weight) for parameter, weight in model.named_parameters()},
    }


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--checkpoint", nargs="+", type=non_empty, required=True, help="run folders of part1/train.py, RNN or LSTM")
    add("--page", type=non_empty, help="file to write (default: explore.html in the first run folder)")
    return parser


if __name__ == "__main__":
    run_command(main)
