"""Let a trained model write: draw characters, or search for the likeliest text.

    python part2/generate.py --prompt "Once upon a time"                              the model of the tales in assets/
    python part2/generate.py --checkpoint RUN --prompt "Sleeping beauty is" --length 200 --temperature 0.5
    python part2/generate.py --checkpoint RUN --prompt "Sleeping beauty is" --length 40 --beam_size 5 --num_samples 3

UvA 2021, question 2.4b-c; UvA spring 2019, 2.1b-c and the bonus 2.2; UvA November 2019, also the bonus 2.3. The model
reads the prompt, keeps its state, and adds one character after the other; each costs the same, however long the text
has become. Several prompts or samples are written one after the other, each from random numbers of its own. With
--beam_size nothing is drawn: the texts are written when the search has ended, the likeliest first.
"""

import sys
import unicodedata
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

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
    positive_fraction,
    positive_int,
    run_command,
    seed_number,
)
from common.machine import get_device, seeded_generator
from part2.dataset import decode, encode
from part2.model import PRETRAINED, TextGenerationModel, load_model
from part2.poems import RARE

TEMPERATURE, SEED = 0.5, 0


def main() -> None:
    args = parse_arguments()
    model, checkpoint = load_model(args.checkpoint or PRETRAINED, get_device(args.device))
    vocabulary = checkpoint["vocabulary"]
    if args.no_rare and RARE in vocabulary:
        model.never_written.append(vocabulary.index(RARE))
    prompts = [encode(prompt, vocabulary) for prompt in args.prompt]
    texts = (found if args.beam_size else drawn)(model, checkpoint, prompts, args)
    for title, prompt, added in texts:
        if len(prompts) * args.num_samples > 1:
            print(f"--- {title}")
        print(printable(decode(prompt, vocabulary)), end="", flush=True)
        characters = takewhile(lambda character: character != checkpoint["end"], (vocabulary[k] for k in added))
        for text in before(args.stop, characters) if args.stop else characters:
            print(printable(text), end="", flush=True)
        print()


Text = tuple[str, list[int], Iterator[int]]  # title, prompt, and the characters that are added to it


def drawn(
    model: TextGenerationModel, checkpoint: dict[str, Any], prompts: list[list[int]], args: Namespace
) -> Iterator[Text]:
    """Yield the texts that are drawn, each while it is written."""
    for number in range(len(prompts) * args.num_samples):
        which, sample = divmod(number, args.num_samples)
        generator = seeded_generator(args.seed, f"text {number}")
        prompt = prompts[which] or random_character(model, generator)
        numbers = model.write(torch.tensor(prompt).unsqueeze(1), args.temperature, generator, args.top_k, args.top_p)
        title = f"{args.prompt[which]!r}, {sample + 1} of {args.num_samples}"
        yield title, prompt, (int(character) for character in islice(numbers, args.length))


def found(
    model: TextGenerationModel, checkpoint: dict[str, Any], prompts: list[list[int]], args: Namespace
) -> Iterator[Text]:
    """Yield the likeliest texts that beam search finds, the best first."""
    vocabulary = checkpoint["vocabulary"]
    ends = [encode(end, vocabulary) for end in (checkpoint["end"], args.stop) if end and set(end) <= set(vocabulary)]
    for which, prompt in enumerate(prompts):
        prompt = prompt or random_character(model, seeded_generator(args.seed, f"text {which}"))
        beams = model.beam_search(torch.tensor(prompt).unsqueeze(1), args.length, args.beam_size, ends)
        log_p, lengths = beams.log_probabilities[0, : args.num_samples], beams.lengths[0].tolist()
        for k in range(int(log_p.isfinite().sum())):
            title = f"{args.prompt[which]!r}, {k + 1} of {args.num_samples}"
            title += f", log-probability {log_p[k] / max(1, lengths[k]):.3f} a character"
            yield title, prompt, iter(beams.texts[len(prompt) : len(prompt) + lengths[k], 0, k].tolist())


def random_character(model: TextGenerationModel, generator: torch.Generator) -> list[int]:
    """Return the first character of a text without a prompt: a random one, as in training."""
    written = model.written_characters()
    return [written[int(torch.randint(len(written), (), generator=generator))]]


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


def parse_arguments() -> Namespace:
    parser = build_parser()
    args = parser.parse_args()
    if args.beam_size:
        for name in ("temperature", "top_k", "top_p", "seed"):
            if getattr(args, name) is not None and not (name == "seed" and "" in args.prompt):
                parser.error(f"argument --{name}: not with --beam_size, which draws nothing")
        if args.num_samples > args.beam_size:
            parser.error(f"argument --num_samples: at most --beam_size, {args.beam_size}, not {args.num_samples}")
    args.temperature = TEMPERATURE if args.temperature is None else args.temperature
    args.seed = SEED if args.seed is None else args.seed
    return args


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    run = "run folder of part2/train.py (its best weights) or checkpoint file; by default the tales' model in assets/"
    add("--checkpoint", type=non_empty, help=run)
    add("--prompt", nargs="+", default=[""], help="beginning of the text; if empty, a random character")
    add("--length", type=non_negative_int, default=200, help="number of characters to add")
    add("--stop", type=non_empty, metavar="TEXT", help="end before this text, if the model writes it")
    temperature = f"draw from softmax(p / temperature); 0: always take the likeliest (default: {TEMPERATURE})"
    add("--temperature", type=non_negative_float, help=temperature)
    add("--top_k", type=positive_int, help="draw only among this many likeliest characters")
    add("--top_p", type=positive_fraction, help="draw only among the likeliest that together have this probability")
    add("--beam_size", type=positive_int, help="instead of drawing: search for the likeliest texts, with so many beams")
    add("--no_rare", action="store_true", help=f"poems: never write {RARE}, which stands for rare characters")
    add("--num_samples", type=positive_int, default=1, help="number of texts from each prompt; of beams, the best")
    add("--seed", type=seed_number, help=f"seed of the draws (default: {SEED})")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    return parser


if __name__ == "__main__":
    run_command(main)
