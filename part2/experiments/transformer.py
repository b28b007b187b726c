"""Train a Transformer to continue a text: torch.nn.TransformerEncoder, as large as an LSTM and as long in training.

    python -m part2.experiments.transformer --txt_file assets/grimm.txt --num_parameters 242559 --minutes 6.5

What `references.py` sets beside our LSTM: learned positions, a causal mask, layer normalisation before each sublayer,
and every window read from its beginning. Texts, batches and optimizer are those of `part2/train.py`. The learning rate
rises over the first steps and then falls as a cosine of the time that has gone by; evaluations count as time too. A
held-out character of a book is scored with half a window before it at least, which may begin in the training part.
"""

import math
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.command import (
    ArgumentParser,
    add_run_arguments,
    fraction,
    non_empty,
    positive_float,
    positive_int,
    run_command,
    seed_number,
)
from common.machine import GlobalGenerators, computing_type, get_device
from common.optimizers import OPTIMIZERS
from common.paths import readable
from common.run_folder import RunFolder
from common.training import LoopState, Training
from part2.dataset import HELD_OUT, IGNORED, Batch, Corpus, RandomWindows, find_text
from part2.model import PRECISIONS
from part2.poems import PoemBatches, PoemCorpus, held_out_poems

NUM_LAYERS, NUM_HEADS = 4, 4
WARM_UP = 100  # steps
NUM_EVALUATIONS = 20
COLUMNS = ("loss", "learning_rate", "seconds", "held_out_loss")


class Transformer(nn.Module):
    """The distribution of the next character after each one read: logits (T, B, K) for (T, B) character numbers.

    Args:
        vocabulary_size: K.
        seq_length: largest T.
        d_model: width of all layers, a multiple of NUM_HEADS.
        dropout: of the layers.
    """

    def __init__(self, vocabulary_size: int, seq_length: int, d_model: int, dropout: float = 0.0):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, d_model)
        self.positions = nn.Embedding(seq_length, d_model)
        layer = nn.TransformerEncoderLayer(d_model, NUM_HEADS, 4 * d_model, dropout, "gelu", norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, NUM_LAYERS, nn.LayerNorm(d_model), enable_nested_tensor=False)
        self.output = nn.Linear(d_model, vocabulary_size)
        for parameter in self.parameters():  # the layers are copies of one, weights included
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x) + self.positions.weight[: len(x), None]  # (T, B, d)
        mask = nn.Transformer.generate_square_subsequent_mask(len(x), device=x.device)
        return self.output(self.encoder(h, mask, is_causal=True))


def width(num_parameters: int, vocabulary_size: int, seq_length: int) -> int:
    """Return the `d_model` with which a Transformer has as many parameters as possible, but not more."""
    d = NUM_HEADS
    while size(d + NUM_HEADS, vocabulary_size, seq_length) <= num_parameters:
        d += NUM_HEADS
    return d


def size(d: int, K: int, T: int) -> int:
    """Return the number of parameters of a Transformer of width d, for K characters and windows of T."""
    layer = 12 * d**2 + 13 * d  # queries, keys, values and their projection, two linear maps, two normalisations
    return K * d + T * d + NUM_LAYERS * layer + 2 * d + d * K + K


@dataclass
class State(LoopState):
    """How often the model was evaluated, and how well it has done."""

    evaluations: int = 0
    lowest_loss: float = math.inf  # held out
    lowest_step: int = 0


def main() -> None:
    train(build_parser().parse_args())


def train(args: Namespace) -> None:
    # Data
    device = get_device(args.device)
    batches, held_out = poems(args) if args.poems else book(args)
    K = len(batches.corpus.vocabulary)

    # Model and optimizer
    name = f"transformer_{readable(Path(args.poems or args.txt_file).stem)}_seed{args.seed}"
    run = RunFolder(args, "part2/experiments/transformer.py", name, COLUMNS)
    run.metadata = {"text_checksum": batches.corpus.checksum}
    torch.manual_seed(args.seed)  # weights and dropout
    model = Transformer(K, args.seq_length, width(args.num_parameters, K, args.seq_length), args.dropout).to(device)
    optimizer = OPTIMIZERS[args.optimizer](model.parameters(), lr=args.learning_rate)
    dtype = computing_type(PRECISIONS[args.precision] or torch.float32, device)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)

    state, generators = State(), GlobalGenerators(device)
    with Training(run, 0, state, name, model=model, optimizer=optimizer, generators=generators) as training:
        while state.evaluations < NUM_EVALUATIONS:
            inputs, targets, _ = batches.batch(state.step)  # (T, B) each
            gone = min(state.seconds / (60 * args.minutes), 1)  # share of the time
            state.step += 1
            optimizer.param_groups[0]["lr"] = args.learning_rate * schedule(state.step, gone)

            # Forward, loss, backward, clip, step
            with precision:
                logits = model(inputs.to(device))  # (T, B, K)
            loss = F.cross_entropy(logits.float().flatten(0, 1), targets.to(device).flatten(), ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            gradient_norm = nn.utils.clip_grad_norm_(model.parameters(), args.max_norm)
            training.check_finite(loss=loss.item(), gradient_norm=gradient_norm.item())
            optimizer.step()

            # Evaluate
            values = {"loss": loss.item(), "learning_rate": optimizer.param_groups[0]["lr"]}
            due = gone >= (state.evaluations + 1) / NUM_EVALUATIONS
            if due:
                state.evaluations += 1
                with precision:
                    values["held_out_loss"] = evaluate(model, held_out, device)
                if values["held_out_loss"] < state.lowest_loss:
                    state.lowest_loss, state.lowest_step = values["held_out_loss"], state.step
            training.show(**{key: f"{value:.3g}" for key, value in values.items()})
            training.end_step(values, log=due or state.step % 10 == 0, checkpoint=due)
        run.write_result(result_of(state, sum(parameter.numel() for parameter in model.parameters())))
    print(f"{name}: held-out loss {state.lowest_loss:.4f} nats a character; run folder {run}")


def book(args: Namespace) -> tuple[RandomWindows, list[Batch]]:
    corpus = Corpus(find_text(args.txt_file), HELD_OUT)
    batches = RandomWindows(corpus, args.seq_length, args.batch_size, args.seed)
    return batches, list(held_out_windows(corpus, args.seq_length))


def poems(args: Namespace) -> tuple[PoemBatches, list[Batch]]:
    corpus = PoemCorpus(args.poems, args.seq_length, data_dir=args.data_dir, seed=args.seed)
    return PoemBatches(corpus, args.batch_size, args.seed), list(held_out_poems(corpus, args.batch_size))


def held_out_windows(corpus: Corpus, seq_length: int, batch_size: int = 256) -> Iterator[Batch]:
    """Yield the held-out tail in windows of `seq_length`, of each of which the second half is scored."""
    scored = -(-seq_length // 2)
    starts = np.arange(corpus.num_train - 1, corpus.size - 1, scored) - (seq_length - scored)
    tokens = np.concatenate([corpus.tokens.astype(np.int64), np.full(scored, IGNORED)])
    windows = torch.from_numpy(tokens[starts + np.arange(seq_length + 1)[:, None]])  # (T + 1, number of windows)
    for part in windows.split(batch_size, dim=1):
        inputs, targets = part[:-1].clamp(min=0), part[1:].clone()
        targets[: seq_length - scored] = IGNORED
        yield Batch(inputs, targets, fresh=True)


def schedule(step: int, gone: float) -> float:
    """Return the factor of the learning rate: up during WARM_UP steps, and down to 0 when all time has gone by."""
    return min(step / WARM_UP, 1) * 0.5 * (1 + math.cos(math.pi * gone))


@torch.no_grad()
def evaluate(model: Transformer, batches: list[Batch], device: torch.device) -> float:
    """Return the mean cross-entropy, in nats, over every target of the held-out batches."""
    model.eval()
    loss, count = 0.0, 0
    for inputs, targets, _ in batches:
        logits = model(inputs.to(device)).float().flatten(0, 1)
        loss += F.cross_entropy(logits, targets.to(device).flatten(), ignore_index=IGNORED, reduction="sum").item()
        count += int((targets >= 0).sum())
    model.train()
    return loss / count


def result_of(state: State, num_parameters: int) -> dict[str, Any]:
    return {
        "held_out_loss": state.lowest_loss,
        "best_step": state.lowest_step,
        "steps": state.step,
        "seconds": round(state.seconds, 2),
        "num_parameters": num_parameters,
    }


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--txt_file", type=non_empty, help="the book: a text, looked for here and in part2/")
    text.add_argument("--poems", type=non_empty, help="builtin, tang, or a file of chinese-poetry JSON")
    add("--num_parameters", type=positive_int, required=True, help="largest number of parameters")
    add("--minutes", type=positive_float, required=True, help="how long to train, evaluations included")
    add("--seq_length", type=positive_int, default=30, help="T: characters of a window or poem")
    add("--dropout", type=fraction, default=0.0, help="share that is left out in training")
    add("--precision", choices=PRECISIONS, default="float32", help="bf16: compute the products in bfloat16")
    add("--batch_size", type=positive_int, default=64, help="windows or poems in each step")
    add("--optimizer", choices=OPTIMIZERS, default="adam", help="momentum is SGD with momentum 0.9")
    add("--learning_rate", type=positive_float, default=1e-3, help="largest learning rate")
    add("--max_norm", type=positive_float, default=5.0, help="largest norm of the gradient")
    add("--seed", type=seed_number, default=0, help="seed of weights, windows and dropout")
    add("--data_dir", type=non_empty, help="folder of the data sets; default $DATA_DIR, else data/")
    add_run_arguments(parser, "part2/experiments")
    return parser


if __name__ == "__main__":
    run_command(main)
