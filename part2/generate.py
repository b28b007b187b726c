"""Let a trained model write (UvA 2021, question 2.4b-c; UvA spring 2019, question 2.1b-c and the bonus 2.2).

    python part2/generate.py --checkpoint RUN --prompt "Sleeping beauty is" --length 200 --temperature 0.5

The model reads the prompt, keeps its state, and adds one character after the other; each costs the same, however long
the text has become. Several prompts or samples are written one after the other, each from random numbers of its own.
"""

import sys
import unicodedata
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
import torch

from common.command import (
    ArgumentParser,
    non_empty,
    non_negative_float,
    non_negative_int,
    positive_int,
    run_command,
    seed_number,
)
from common.machine import get_device, seeded_generator
from part2.dataset import decode, encode
from part2.model import load_model
from part2.poems import RARE


def main() -> None:
    args = build_parser().parse_args()
    model, checkpoint = load_model(args.checkpoint, get_device(args.device))
    vocabulary, end = checkpoint["vocabulary"], checkpoint["end"]
    if args.no_rare and RARE in vocabulary:
        model.never_written.append(vocabulary.index(RARE))
    prompts = [encode(prompt, vocabulary) for prompt in args.prompt]
    texts = [(number, prompt) for number, prompt in enumerate(prompts) for _ in range(args.num_samples)]
    for number, (which, prompt) in enumerate(texts):
        generator = seeded_generator(args.seed, f"text {number}")
        if not prompt:  # as in training: from a random character
            written = model.written_characters()
            prompt = [written[int(torch.randint(len(written), (), generator=generator))]]
        if len(texts) > 1:
            print(f"--- {args.prompt[which]!r}, {number % args.num_samples + 1} of {args.num_samples}")
        print(printable(decode(prompt, vocabulary)), end="", flush=True)
        numbers = model.write(torch.tensor(prompt).unsqueeze(1), args.temperature, generator, args.top_k)
        added = (vocabulary[character] for character in islice(numbers, args.length))
        characters = takewhile(lambda character: character != end, added)
        for text in before(args.stop, characters) if args.stop else characters:
            print(printable(text), end="", flush=True)
        print()


def before(stop: str, characters: Iterator[str]) -> Iterator[str]:
    """Yield the text before the first `stop`, in pieces; what may be its beginning is held back until that is known."""
    held = ""
    for character in characters:
        held += character
        if held == stop:
            return
        begun = next(size for size in range(len(held), -1, -1) if stop.startswith(held[len(held) - size :]))
        yield held[: len(held) - begun]
        held = held[len(held) - begun :]
    yield held


def printable(text: str) -> str:
    """Return a text with its line ends and tabs, but with terminal escapes and the like as Python writes them."""
    return "".join(
        repr(character)[1:-1]
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
        else character
        for character in text
    )


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    run = "run folder of part2/train.py (its best weights), or a checkpoint file"
    add("--checkpoint", type=non_empty, required=True, help=run)
    add("--prompt", nargs="+", default=[""], help="beginning of the text; if empty, a random character")
    add("--length", type=non_negative_int, default=200, help="number of characters to add")
    add("--stop", type=non_empty, metavar="TEXT", help="end before this text, if the model writes it")
    add(
        "--temperature",
        type=non_negative_float,
        default=0.5,
        help="draw from softmax(p / temperature); 0: always take the likeliest",
    )
    add("--top_k", type=positive_int, help="draw only among this many likeliest characters")
    add("--no_rare", action="store_true", help=f"poems: never write {RARE}, which stands for rare characters")
    add("--num_samples", type=positive_int, default=1, help="number of texts from each prompt")
    add("--seed", type=seed_number, default=0, help="seed of the draws")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    return parser


if __name__ == "__main__":
    run_command(main)
