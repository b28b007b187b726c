"""Train an LSTM to continue a text, character by character.

    python part2/train.py --txt_file assets/grimm.txt         a book
    python part2/train.py --poems tang                        Tang poems; `--poems builtin` needs no download

Every `eval_every` steps the model reads the held-out text (the book's last tenth, a tenth of the poems), and the
weights with the lowest loss there are kept in best.pt. The training loss is that of one batch; it can lie above the
held-out loss, since dropout is on in training and off in evaluation. With `--average_weights D` an exponential moving
average of the weights is evaluated and kept in their place. Every `sample_every` steps, and at the end, the model
writes five texts greedily, each time from the same five first characters. `part2/generate.py` writes with a trained
model. Under torchrun several processes train together and take the same steps as one (`common/distributed.py`):

    torchrun --standalone --nproc_per_node 2 part2/train.py --txt_file assets/grimm.txt
"""

import math
import shlex
import sys
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common.command import (
    ArgumentParser,
    add_run_arguments,
    fraction,
    non_empty,
    non_negative_int,
    positive_float,
    positive_fraction,
    positive_int,
    run_command,
    seed_number,
)
from common.distributed import (
    all_gather,
    all_reduce,
    all_reduce_gradients,
    process_group,
    rank_zero_first,
    rank_zero_only,
    shard,
)
from common.errors import CommandError
from common.machine import GlobalGenerators, get_device, seeded_generator
from common.optimizers import OPTIMIZERS
from common.paths import readable, short_path
from common.run_folder import RunFolder
from common.training import LoopState, Training, default_interval
from part2.dataset import (
    HELD_OUT,
    UNKNOWN,
    Batch,
    ContiguousStreams,
    Corpus,
    RandomWindows,
    decode,
    encode,
    find_text,
    held_out_batches,
    unknown_numbers,
)
from part2.model import INITS, LSTM, PRECISIONS, TextGenerationModel
from part2.poems import END, FIRST_CHARACTERS, PoemBatches, PoemCorpus, held_out_poems
from recurrence.choice import RECURRENCES, choose_recurrence

NUM_SAMPLES, NUM_STAGES = 5, 5
PROMPT = "Sleeping beauty is"
# Defaults for poems. They are evaluated after each epoch; training ends when the held-out loss has risen.
POEM_DEFAULTS = {
    "seq_length": 50,
    "lstm_hidden_dim": 256,
    "lstm_num_layers": 1,
    "embedding_size": 128,
    "batch_size": 256,
    "patience": 1,
}
TRAIN_STEPS, POEM_EPOCHS = 10_000, 40
EVAL_EVERY = 500  # steps, at most
FREE_ARGUMENTS = ("train_steps", "num_epochs", "txt_file", "encoding", "poems", "recurrence")
COLUMNS = (
    "loss",
    "accuracy",
    "bits_per_character",
    "gradient_norm",
    "learning_rate",
    "characters_per_second",
    "seconds",
    "held_out_loss",
    "held_out_accuracy",
    "held_out_perplexity",
)


@dataclass
class Source:
    """A book or poems, as batches to train on and batches held out."""

    name: str
    batches: RandomWindows | ContiguousStreams | PoemBatches
    held_out: list[Batch]
    vocabulary: str
    checksum: int
    first_characters: str  # with which the samples begin
    end: str | None  # the character that ends a text

    @property
    def metadata(self) -> dict[str, Any]:
        """What a checkpoint says of the text."""
        return {"vocabulary": self.vocabulary, "end": self.end, "text_checksum": self.checksum}


@dataclass
class State(LoopState):
    """How well the model has done on the held-out text, and what it has written."""

    lowest_loss: float = math.inf  # held out
    lowest_step: int = 0
    evaluations_since: int = 0
    samples: list[dict[str, Any]] = field(default_factory=list)

    def is_lowest(self, held_out_loss: float) -> bool:
        """Note the loss of an evaluation, and return whether there was none lower."""
        self.evaluations_since += 1
        lowest = held_out_loss < self.lowest_loss
        if lowest:
            self.lowest_loss, self.lowest_step, self.evaluations_since = held_out_loss, self.step, 0
        return lowest


class CarriedState:
    """Every layer's (h, c), carried from batch to batch; of several processes each has those of its shard."""

    def __init__(self, device: torch.device):
        self.device = device
        self.layers: list[tuple[Tensor, Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"layers": [(all_gather(h), all_gather(c)) for h, c in self.layers]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.layers = [(shard(h).to(self.device), shard(c).to(self.device)) for h, c in saved["layers"]]


def main() -> None:
    args = parse_arguments()
    with process_group(args.batch_size):
        train(args)


def train(args: Namespace) -> None:
    # Data
    device = get_device(args.device)
    with rank_zero_first():
        source = poems(args) if args.poems else book(args)
    train_steps = args.num_epochs * source.batches.steps_per_epoch if args.num_epochs else args.train_steps
    interval = source.batches.steps_per_epoch if args.poems else default_interval(train_steps, EVAL_EVERY)
    if args.schedule == "cosine":
        args.cosine_steps = args.cosine_steps or train_steps  # recorded: more steps later do not change the schedule

    # Model and optimizer
    run = RunFolder(args, "part2/train.py", f"{source.name}_seed{args.seed}", COLUMNS, FREE_ARGUMENTS)
    check_text(run, source.vocabulary, source.checksum)
    recurrence = choose_recurrence(args.recurrence, LSTM.RECURRENCES, device, run.recorded("recurrence"))
    run.metadata = {"recurrence": recurrence, **source.metadata}
    eval_every = run.keep("eval_every", args.eval_every or interval)
    sample_every = run.keep("sample_every", args.sample_every or max(1, train_steps // NUM_STAGES))
    torch.manual_seed(args.seed)  # dropout
    model = build_model(args, source.vocabulary, recurrence["name"]).to(device)
    optimizer = OPTIMIZERS[args.optimizer](model.parameters(), lr=args.learning_rate)
    decay = (args.schedule, args.cosine_steps or train_steps, args.learning_rate_decay, args.learning_rate_step)
    scheduler = LambdaLR(optimizer, lambda step: schedule(step, *decay))
    average = averaged(model, args.average_weights)
    kept: Any = average.module if average else model  # whose weights are evaluated, and kept

    state, carried, generators = State(), CarriedState(device), GlobalGenerators(device)
    saved = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "carried": carried}
    saved |= {"average": average} if average else {}
    with Training(run, train_steps, state, source.name, **saved, generators=generators) as training:
        while state.step < train_steps and not (args.patience and state.evaluations_since >= args.patience):
            inputs, targets, fresh = source.batches.batch(state.step)  # (T, B) each: of several processes, a shard
            inputs, targets = inputs.to(device), targets.to(device)
            num_targets = all_reduce((targets >= 0).sum())  # of the whole batch
            state.step += 1

            # Forward, loss, backward, clip, step
            logits, layers = model.run(inputs, None if fresh else carried.layers)  # (T, B, K)
            carried.layers = [(h.detach(), c.detach()) for h, c in layers]  # no gradient goes back beyond this batch
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / num_targets  # (17)
            optimizer.zero_grad()
            loss.backward()
            loss, signal_number = all_reduce_gradients(model, loss, training.signal_number)
            gradient_norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=args.max_norm)  # before clipping
            training.check_finite(loss=loss.item(), gradient_norm=gradient_norm.item())
            optimizer.step()
            if average:
                average.update_parameters(model)

            # Evaluate
            evaluated = state.step % eval_every == 0 or state.step == train_steps
            logged, values = evaluated or state.step % args.print_every == 0, {}
            if logged:
                correct = all_reduce(((logits.argmax(dim=-1) == targets) & (targets >= 0)).sum())
                values = {
                    "loss": loss.item(),
                    "accuracy": correct.item() / num_targets.item(),
                    "bits_per_character": loss.item() / math.log(2),
                    "gradient_norm": gradient_norm.item(),
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "characters_per_second": training.per_second(num_targets.item()),
                }
                training.show(loss=f"{values['loss']:.3f}", accuracy=f"{values['accuracy']:.3f}")
            if evaluated:
                values |= evaluate(kept, source.held_out, device)
                training.check_finite(held_out_loss=values["held_out_loss"])
                training.show(held_out_perplexity=f"{values['held_out_perplexity']:.2f}")
                if state.is_lowest(values["held_out_loss"]):
                    run.save_best(state.step, model=kept.state_dict())
            if state.step % sample_every == 0:
                write_samples(kept, source, state, args.sample_length, training)
            scheduler.step()
            training.end_step(values, log=logged, checkpoint=evaluated, signal_number=signal_number)

        # Result
        if not (state.samples and state.samples[-1]["step"] == state.step):
            write_samples(kept, source, state, args.sample_length, training)
        run.log_embedding(state.step, kept.embedding.weight, list(map(readable, source.vocabulary)))
        run.write_result(result_of(state, recurrence))
        run.draw_curves("held_out", noise="dropout" if args.dropout_keep_prob < 1 else None)
    describe(source, state, str(run))


def book(args: Namespace) -> Source:
    """Return a text file, of which the last tenth is held out."""
    corpus = Corpus(find_text(args.txt_file), HELD_OUT, args.encoding)
    Batches = ContiguousStreams if args.stateful else RandomWindows
    batches, held_out = Batches(corpus, args.seq_length, args.batch_size, args.seed), list(held_out_batches(corpus))
    name, first = readable(Path(args.txt_file).stem), first_characters(corpus.vocabulary, args.seed)
    return Source(name, batches, held_out, corpus.vocabulary, corpus.checksum, first, end=None)


def poems(args: Namespace) -> Source:
    """Return a collection of poems, of which a tenth is held out."""
    corpus = PoemCorpus(args.poems, args.seq_length, args.max_vocabulary, args.data_dir, args.seed)
    batches, held_out = PoemBatches(corpus, args.batch_size, args.seed), list(held_out_poems(corpus, args.batch_size))
    first = "".join(character for character in FIRST_CHARACTERS if character in corpus.vocabulary)
    return Source(readable(Path(args.poems).stem), batches, held_out, corpus.vocabulary, corpus.checksum, first, END)


def build_model(args: Namespace, vocabulary: str, recurrence: str) -> TextGenerationModel:
    """Return the model with its first weights, drawn from the seed."""
    settings = Namespace(
        vocabulary_size=len(vocabulary),
        never_written=unknown_numbers(vocabulary),
        embedding_size=args.embedding_size,
        lstm_hidden_dim=args.lstm_hidden_dim,
        lstm_num_layers=args.lstm_num_layers,
        dropout=1 - args.dropout_keep_prob,
        init=args.init,
        precision=args.precision,
        recurrence=recurrence,
    )
    return TextGenerationModel(settings, seeded_generator(args.seed, "weights"))


def averaged(model: TextGenerationModel, decay: float | None) -> AveragedModel | None:
    """Return what becomes the moving average of a model's weights, with a decay D that is above 0."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None


@torch.no_grad()
def evaluate(model: TextGenerationModel, batches: list[Batch], device: torch.device) -> dict[str, float]:
    """Return mean cross-entropy in nats, accuracy and perplexity over every character of the held-out batches."""
    model.eval()
    loss, correct, count, state = 0.0, 0.0, 0.0, None
    for inputs, targets, fresh in batches:
        logits, state = model.run(inputs.to(device), None if fresh else state)
        targets = targets.to(device)
        loss += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        correct += (logits.argmax(dim=-1) == targets).sum().item()
        count += (targets >= 0).sum().item()
    model.train()
    loss, correct, count = all_reduce(torch.tensor([loss, correct, count], dtype=torch.float64)).tolist()
    return {
        "held_out_loss": loss / count,
        "held_out_accuracy": correct / count,
        "held_out_perplexity": perplexity(loss / count),
    }


def perplexity(loss: float) -> float:
    """Return e to the loss in nats a character; of a loss above 700 that of 700, since floats end there."""
    return math.exp(min(loss, 700))


def schedule(step: int, kind: str, cosine_steps: int, decay: float, decay_every: int) -> float:
    """Return the factor of the learning rate at a step, counted from 0."""
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(step / cosine_steps, 1)))
    return decay ** (step // decay_every)


def first_characters(vocabulary: str, seed: int) -> str:
    """Return different characters for the samples to start with: letters, where the text has enough of them."""
    letters = [character for character in vocabulary if character.isalpha()]
    chosen = letters if len(letters) >= NUM_SAMPLES else vocabulary.replace(UNKNOWN, "")
    order = torch.randperm(len(chosen), generator=seeded_generator(seed, "first characters"))
    return "".join(chosen[index] for index in order[:NUM_SAMPLES])


def write_greedily(model: TextGenerationModel, vocabulary: str, first: str, length: int, end: str | None) -> list[str]:
    """Return what the model writes from each first character, always the likeliest next one, up to `end` (2.4b)."""
    numbers = model.complete(torch.tensor([encode(first, vocabulary)]), length - 1)  # (length, B)
    texts = [decode(text, vocabulary) for text in numbers.t()]
    return [text.split(end)[0] for text in texts] if end else texts


@rank_zero_only
def write_samples(model: TextGenerationModel, source: Source, state: State, length: int, training: Training) -> None:
    """Write one stage of samples: to samples.json, to TensorBoard and to the terminal."""
    run = training.run
    texts = write_greedily(model, source.vocabulary, source.first_characters, length, source.end)
    state.samples.append({"step": state.step, "texts": texts})
    run.write_json("samples.json", state.samples)
    run.log_text(state.step, "samples", "\n\n".join(f"`{readable(text)}`" for text in texts))
    training.print("\n".join([f"step {state.step:,}:", *(f"    {readable(text)}" for text in texts)]))


def result_of(state: State, recurrence: dict[str, str]) -> dict[str, Any]:
    return {
        "held_out_loss": state.lowest_loss,
        "held_out_perplexity": perplexity(state.lowest_loss),
        "held_out_bits_per_character": state.lowest_loss / math.log(2),
        "best_step": state.lowest_step,
        "steps": state.step,
        "seconds": round(state.seconds, 2),
        "recurrence": recurrence,
    }


@rank_zero_only
def describe(source: Source, state: State, run: str) -> None:
    loss = state.lowest_loss
    print(
        f"{source.name}: held-out loss {loss:.4f} nats a character, {loss / math.log(2):.3f} bits, "
        f"perplexity {perplexity(loss):.2f}, at step {state.lowest_step:,} of {state.step:,}; {state.seconds:.1f} s; "
        f"run folder {run}"
    )
    script = shlex.quote(short_path(Path(__file__).with_name("generate.py")))
    prompt = PROMPT if set(PROMPT) <= set(source.vocabulary) else source.first_characters[0]
    words = f"--checkpoint {shlex.quote(run)} --prompt {shlex.quote(prompt)} --length 200 --temperature 0.5"
    print(f"write with it: python {script} {words}")


def check_text(run: RunFolder, vocabulary: str, checksum: int) -> None:
    """Raise a CommandError where a resumed run was trained on another text."""
    then = run.recorded("vocabulary")
    if then is not None and then != vocabulary:
        differing = sorted(set(then) ^ set(vocabulary))
        raise CommandError(
            f"{run} was trained with another vocabulary: {len(then)} characters, not {len(vocabulary)}; "
            f"{readable(differing[0]) if differing else 'their order'} differs: resume it with its own text"
        )
    if run.recorded("text_checksum") not in (None, checksum):
        raise CommandError(f"{run} was trained on another text: resume it with its own")


def dropout_probability(text: str) -> float:
    """Return the probability that is kept, as which dropout is stored."""
    return round(1 - fraction(text), 12)  # 1 - 0.7 is 0.3


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--txt_file",
        type=non_empty,
        help="the book: a text, looked for here and in part2/; default assets/grimm.txt",
    )
    add(
        "--encoding", type=non_empty, help="of the book, as in latin-1; default as its byte order mark says, else utf-8"
    )
    add(
        "--poems",
        type=non_empty,
        help="train on poems instead: builtin, tang, or a zip, folder or file of chinese-poetry JSON",
    )
    add("--stateful", action="store_true", help="read the book in order and carry the state from batch to batch")
    add("--seq_length", "--input_seq_length", type=positive_int, default=30, help="T: characters of a window or poem")
    hidden = ("--lstm_num_hidden", "--lstm_hidden_dim")
    add(*hidden, dest="lstm_hidden_dim", type=positive_int, default=128, help="hidden units of each layer")
    add("--lstm_num_layers", type=positive_int, default=2, help="layers of LSTM")
    add("--embedding_size", type=positive_int, default=64, help="size of a character's vector")
    dropout = parser.add_mutually_exclusive_group()
    kept = "probability with which a unit of a layer's output is kept in training"
    dropout.add_argument("--dropout_keep_prob", type=positive_fraction, default=1.0, help=kept)
    dropout.add_argument(
        "--dropout",
        dest="dropout_keep_prob",
        type=dropout_probability,
        metavar="DROPOUT",
        help="instead: 1 - dropout_keep_prob",
    )
    add("--init", choices=INITS, default="uniform", help="how the first weights are drawn")
    add("--precision", choices=PRECISIONS, default="float32", help="bf16: compute the recurrences in bfloat16")
    add("--batch_size", type=positive_int, default=64, help="windows, streams or poems in each step")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--train_steps", type=positive_int, help="number of steps; default 10000")
    length.add_argument("--num_epochs", type=positive_int, help="instead: times through the text; default for poems 40")
    add("--optimizer", choices=OPTIMIZERS, default="adam", help="momentum is SGD with momentum 0.9")
    add("--learning_rate", "--lr", type=positive_float, default=2e-3, help="learning rate of the optimizer")
    add("--schedule", choices=("step", "cosine"), default="step", help="how the learning rate falls")
    add("--learning_rate_decay", type=positive_fraction, default=0.96, help="step: factor after --learning_rate_step")
    add("--learning_rate_step", type=positive_int, default=5_000, help="step: steps between two decays")
    add("--cosine_steps", type=positive_int, help="cosine: steps until the learning rate is 0; default all")
    add("--max_norm", "--clip_grad_norm", type=positive_float, default=5.0, help="largest norm of the gradient")
    average = "evaluate and keep a moving average, D average + (1 - D) weights at each step; default none"
    add("--average_weights", type=fraction, metavar="D", help=average)
    add(
        "--patience",
        type=non_negative_int,
        default=0,
        help="stop after this many evaluations without a lower loss; 0: never",
    )
    add("--max_vocabulary", type=positive_int, default=3_500, help="poems: number of characters that are told apart")
    add("--seed", type=seed_number, default=0, help="seed of weights, windows and dropout")
    interval = f"default a twentieth of all, at most {EVAL_EVERY}; for poems an epoch"
    add("--eval_every", type=positive_int, help=f"steps between two evaluations, each with a checkpoint; {interval}")
    add("--print_every", type=positive_int, default=10, help="steps between two logged training batches")
    add("--sample_every", type=positive_int, help="steps between two stages of samples; default a fifth of all")
    add("--sample_length", type=positive_int, default=30, help="characters of a sample")
    add("--data_dir", type=non_empty, help="folder of the data sets; default $DATA_DIR, else data/")
    ways = ("auto", *RECURRENCES)
    add("--recurrence", choices=ways, default="auto", help="loop: the equations step by step; auto: the fastest")
    add_run_arguments(parser, "part2")
    return parser


def parse_arguments() -> Namespace:
    parser = build_parser()
    if parser.parse_known_args()[0].poems:
        parser.set_defaults(**POEM_DEFAULTS)
    args = parser.parse_args()
    if args.poems and args.txt_file:
        parser.error("--txt_file and --poems exclude each other")
    if args.poems:
        args.num_epochs = None if args.train_steps else args.num_epochs or POEM_EPOCHS
    else:
        args.txt_file = args.txt_file or "assets/grimm.txt"
        args.train_steps = None if args.num_epochs else args.train_steps or TRAIN_STEPS
    return args


if __name__ == "__main__":
    run_command(main)
