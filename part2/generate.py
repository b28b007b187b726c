"""Let a trained model write (UvA 2021, question 2.4b-c; UvA 2019, question 2.1b-c and the bonus 2.2).

    python part2/generate.py --checkpoint RUN --prompt "Sleeping beauty is" --length 200 --temperature 0.5

The model reads the prompt, keeps its state, and adds one character after the other; each costs the same, however long
the text has become. Several prompts or samples are written one after the other, each from random numbers of its own.
"""

import sys
from pathlib import Path

import torch

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.command import ArgumentParser, non_negative_float, non_negative_int, positive_int, run_command
from common.machine import get_device, seeded_generator
from part2.dataset import decode, encode
from part2.model import load_model


def main() -> None:
    args = build_parser().parse_args()
    model, checkpoint = load_model(args.checkpoint, get_device(args.device))
    vocabulary, end = checkpoint["vocabulary"], checkpoint["end"]
    prompts = [encode(prompt, vocabulary) for prompt in args.prompt]
    texts = [(number, prompt) for number, prompt in enumerate(prompts) for _ in range(args.num_samples)]
    for number, (which, prompt) in enumerate(texts):
        generator = seeded_generator(args.seed, f"text {number}")
        if not prompt:  # as in training: from a random character
            prompt = [int(torch.randint(len(vocabulary), (), generator=generator))]
        if len(texts) > 1:
            print(f"--- {args.prompt[which]!r}, {number % args.num_samples + 1} of {args.num_samples}")
        print(decode(prompt, vocabulary), end="", flush=True)
        characters = model.write(torch.tensor(prompt).unsqueeze(1), args.temperature, generator, args.top_k)
        for _ in range(args.length):
            character = vocabulary[next(characters)]
            if character == end:
                break
            print(character, end="", flush=True)
        print()


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, help="run folder of part2/train.py (its best weights), or a checkpoint file")
    add("--prompt", nargs="+", default=[""], help="beginning of the text; if empty, a random character")
    add("--length", type=non_negative_int, default=200, help="number of characters to add")
    add(
        "--temperature",
        type=non_negative_float,
        default=0.5,
        help="draw from softmax(p / temperature); 0: always take the likeliest",
    )
    add("--top_k", type=positive_int, help="draw only among this many likeliest characters")
    add("--num_samples", type=positive_int, default=1, help="number of texts from each prompt")
    add("--seed", type=non_negative_int, default=0, help="seed of the draws")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    return parser


if __name__ == "__main__":
    run_command(main)
