"""Train an LSTM to continue a text, character by character.

    python part2/train.py --txt_file assets/grimm.txt         a book
    python part2/train.py --poems tang                        Tang poems; `--poems builtin` needs no download

Every `eval_every` steps the model reads the held-out text (the book's last tenth, a tenth of the poems), and the weights with
the lowest loss there are kept in best.pt. Every `sample_every` steps, and in the end, it writes five texts greedily, each time
from the same five first characters. `part2/generate.py` writes with what was trained. Several processes train together, and
take the same steps as one, where torchrun starts them (`common/distributed.py`):

    torchrun --standalone --nproc_per_node 2 part2/train.py --txt_file assets/grimm.txt
"""

import math
import shlex
import signal
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentTypeError, Namespace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.distributed import (
    by_first,
    first_goes_first,
    gather,
    process_group,
    rank,
    share,
    total,
    total_gradients,
)
from common.errors import (
    ArgumentParser,
    CommandError,
    StopRequest,
    non_negative_int,
    positive_float,
    positive_int,
    run_command,
)
from common.machine import get_device, seeded_generator, short_path
from common.run_folder import RunFolder
from part1.optimizers import OPTIMIZERS
from part2.dataset import (
    Batch,
    ContiguousStreams,
    Corpus,
    RandomWindows,
    decode,
    encode,
    find_text,
    held_out_batches,
    readable,
)
from part2.model import INITS, PRECISIONS, TextGenerationModel
from part2.poems import END, FIRST_CHARACTERS, PoemBatches, PoemCorpus, held_out_poems

HELD_OUT, NUM_SAMPLES, NUM_STAGES = 0.1, 5, 5
PROMPT = "Sleeping beauty is"
# After report 002; an evaluation each epoch, and the end when the held-out loss has risen.
POEM_DEFAULTS = {
    "seq_length": 50,
    "lstm_hidden_dim": 256,
    "lstm_num_layers": 1,
    "embedding_size": 128,
    "batch_size": 256,
    "eval_every": None,
    "patience": 1,
}
TRAIN_STEPS, POEM_EPOCHS = 10_000, 40
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


def main() -> None:
    args = parse_arguments()
    with process_group(args.batch_size):
        train(args)


def train(args: Namespace) -> None:
    device = get_device(args.device)
    with first_goes_first():
        if args.poems:
            corpus = PoemCorpus(args.poems, args.seq_length, args.max_vocabulary, args.data_dir, args.seed)
        else:
            corpus = Corpus(find_text(args.txt_file), HELD_OUT)
    if args.poems:
        batches, held_out = PoemBatches(corpus, args.batch_size, args.seed), list(held_out_poems(corpus, args.batch_size))
        name, first = Path(args.poems).stem, "".join(c for c in FIRST_CHARACTERS if c in corpus.vocabulary)
    else:
        source = ContiguousStreams if args.stateful else RandomWindows
        batches, held_out = source(corpus, args.seq_length, args.batch_size, args.seed), list(held_out_batches(corpus))
        name, first = Path(args.txt_file).stem, first_characters(corpus.vocabulary, args.seed)
    train_steps = args.num_epochs * batches.steps_per_epoch if args.num_epochs else args.train_steps
    eval_every = args.eval_every or batches.steps_per_epoch
    if args.schedule == "cosine":
        args.cosine_steps = args.cosine_steps or train_steps
    sample_every = args.sample_every or max(1, train_steps // NUM_STAGES)

    torch.manual_seed(args.seed)  # dropout
    sizes = Namespace(**vars(args), vocabulary_size=len(corpus.vocabulary), dropout=1 - args.dropout_keep_prob)
    model = TextGenerationModel(sizes, seeded_generator(args.seed, "weights")).to(device)
    optimizer = OPTIMIZERS[args.optimizer](model.parameters(), lr=args.learning_rate)
    step, seconds, state, lowest_loss, lowest_step, evaluations_since, samples = 0, 0.0, None, math.inf, 0, 0, []

    run = RunFolder(args, f"part2/{name}_seed{args.seed}", COLUMNS)
    if run.checkpoint:
        check_text(run, corpus)
        model.load_state_dict(run.checkpoint["model"])
        optimizer.load_state_dict(run.checkpoint["optimizer"])
        set_random_state(run.checkpoint["random_state"], device)
        step, seconds, samples = (run.checkpoint[key] for key in ("step", "seconds", "samples"))
        state = [(share(h).to(device), share(c).to(device)) for h, c in run.checkpoint["state"]] or None
        lowest_loss, lowest_step = run.checkpoint["lowest_loss"], run.checkpoint["lowest_step"]
        evaluations_since = run.checkpoint["evaluations_since"]
    described = {"vocabulary": corpus.vocabulary, "end": END if args.poems else None, "text_checksum": corpus.checksum}

    def save() -> None:
        run.save_checkpoint(
            step,
            **described,
            model=model.state_dict(),
            optimizer=optimizer.state_dict(),
            random_state=random_state(device),
            state=[(gather(h), gather(c)) for h, c in state or []],
            seconds=seconds,
            lowest_loss=lowest_loss,
            lowest_step=lowest_step,
            evaluations_since=evaluations_since,
            samples=samples,
        )

    @by_first
    def write_samples() -> None:
        texts = write_greedily(model, corpus.vocabulary, first, args.sample_length, described["end"])
        samples.append({"step": step, "texts": texts})
        run.write_json("samples.json", samples)
        run.log_text(step, "samples", "\n\n".join(f"`{readable(text)}`" for text in texts))
        progress.write("\n".join([f"step {step:,}:", *(f"    {readable(text)}" for text in texts)]), file=sys.stdout)

    began = time.perf_counter() - seconds
    progress = tqdm(total=train_steps, initial=step, desc=name, unit="step", disable=rank() > 0 or None, leave=False)
    shown = {}
    with run, progress, StopRequest() as stop:
        while step < train_steps and not (args.patience and evaluations_since >= args.patience):
            started = time.perf_counter()
            learning_rate = args.learning_rate * schedule(args, step)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            inputs, targets, fresh = batches.batch(step)  # (T, B) each: of several processes, this one's share
            inputs, targets = inputs.to(device), targets.to(device)
            real = targets >= 0
            num_targets = total(real.sum())  # of the whole batch
            step += 1

            # The state comes from the batch before, but no gradient goes back there: what is learnt reaches T steps back.
            logits, state = model.run(inputs, None if fresh else state)  # (T, B, K)
            state = [(h.detach(), c.detach()) for h, c in state]
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / num_targets  # (17): the mean
            optimizer.zero_grad()
            loss.backward()
            loss, stopping = total_gradients(model, loss, stop.signal_number)
            gradient_norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=args.max_norm)  # the norm before clipping
            if not (math.isfinite(loss.item()) and math.isfinite(gradient_norm.item())):
                raise run.diverged(step, f"the loss is {loss.item():g}, the gradient's norm {gradient_norm.item():g}")
            optimizer.step()

            evaluated = step % eval_every == 0 or step == train_steps
            if evaluated or step % args.print_every == 0:
                values = {
                    "loss": loss.item(),
                    "accuracy": total(((logits.argmax(dim=-1) == targets) & real).sum()).item() / num_targets.item(),
                    "bits_per_character": loss.item() / math.log(2),
                    "gradient_norm": gradient_norm.item(),
                    "learning_rate": learning_rate,
                    "characters_per_second": num_targets.item() / (time.perf_counter() - started),
                }
            if evaluated:
                held_out_loss, held_out_accuracy = evaluate(model, held_out, device)
                if not math.isfinite(held_out_loss):
                    raise run.diverged(step, f"the held-out loss is {held_out_loss:g}")
                perplexity = math.exp(held_out_loss)
                values |= {
                    "held_out_loss": held_out_loss,
                    "held_out_accuracy": held_out_accuracy,
                    "held_out_perplexity": perplexity,
                }
                shown["held-out perplexity"] = f"{perplexity:.2f}"
                evaluations_since += 1
                if held_out_loss < lowest_loss:
                    lowest_loss, lowest_step, evaluations_since = held_out_loss, step, 0
                    run.save_best(step, **described, model=model.state_dict(), held_out_loss=held_out_loss)
            seconds = time.perf_counter() - began
            if evaluated or step % args.print_every == 0:
                run.log(step, **values, seconds=round(seconds, 3))
                progress.set_postfix(
                    {"loss": f"{loss.item():.3f}", "accuracy": f"{values['accuracy']:.3f}"}
                    | {"bits/character": f"{values['bits_per_character']:.2f}"}
                    | shown
                )
            if step % sample_every == 0:
                write_samples()
            if evaluated or stopping:
                save()
            progress.update()
            if stopping:
                message = f"stopped at step {step:,}; go on with: {run.resume_command()}"
                raise CommandError(message, 128 + (stop.signal_number or signal.SIGTERM))

        if not (samples and samples[-1]["step"] == step):
            write_samples()
        run.log_embedding(step, model.embedding.weight, [readable(character) for character in corpus.vocabulary])
        run.write_result(
            {
                "held_out_loss": lowest_loss,
                "held_out_perplexity": math.exp(lowest_loss),
                "held_out_bits_per_character": lowest_loss / math.log(2),
                "best_step": lowest_step,
                "steps": step,
                "seconds": round(seconds, 2),
            }
        )
        if rank() > 0:
            return
        from common.figure import draw_curves  # matplotlib takes a second to import, needed only here

        draw_curves(run.read_metrics(), "held_out", run.path / "curves")
    print(
        f"{name}: held-out loss {lowest_loss:.4f} nats a character, {lowest_loss / math.log(2):.3f} bits, perplexity "
        f"{math.exp(lowest_loss):.2f}, at step {lowest_step:,} of {step:,}; {seconds:.1f} s; run folder {run}"
    )
    script = short_path(Path(__file__).with_name("generate.py"))
    prompt = PROMPT if set(PROMPT) <= set(corpus.vocabulary) else first[0]
    print(f"write with it: python {script} --checkpoint {run} --prompt {shlex.quote(prompt)} --length 200 --temperature 0.5")


@torch.no_grad()
def evaluate(model: TextGenerationModel, batches: list[Batch], device: torch.device) -> tuple[float, float]:
    """Return mean cross-entropy in nats and accuracy over every character of the held-out batches."""
    model.eval()
    loss, correct, count, state = 0.0, 0, 0, None
    for inputs, targets, fresh in batches:
        logits, state = model.run(inputs.to(device), None if fresh else state)
        targets = targets.to(device)
        loss += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        correct += (logits.argmax(dim=-1) == targets).sum().item()
        count += (targets >= 0).sum().item()
    model.train()
    loss, correct, count = total(torch.tensor([loss, correct, count], dtype=torch.float64)).tolist()
    return loss / count, correct / count


def schedule(args: Namespace, step: int) -> float:
    """Return the factor of the learning rate at a step, counted from 0."""
    if args.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(step / args.cosine_steps, 1)))
    return args.learning_rate_decay ** (step // args.learning_rate_step)


def first_characters(vocabulary: str, seed: int) -> str:
    """Return the different characters that the samples start with: letters, where the text has enough of them."""
    letters = [character for character in vocabulary if character.isalpha()]
    chosen = letters if len(letters) >= NUM_SAMPLES else vocabulary
    order = torch.randperm(len(chosen), generator=seeded_generator(seed, "first characters"))
    return "".join(chosen[index] for index in order[:NUM_SAMPLES])


def write_greedily(model: TextGenerationModel, vocabulary: str, first: str, length: int, end: str | None) -> list[str]:
    """Return what the model writes from each first character: always the likeliest next one (question 2.4b), up to an `end`."""
    numbers = model.complete(torch.tensor([encode(first, vocabulary)]), length - 1)  # (length, B)
    texts = [decode(text, vocabulary) for text in numbers.t()]
    return [text.split(end)[0] for text in texts] if end else texts


def random_state(device: torch.device) -> list[Tensor]:
    """Return the state of the random generators that dropout draws from."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_random_state(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


def check_text(run: RunFolder, corpus: Corpus | PoemCorpus) -> None:
    """Raise a CommandError where a resumed run was trained on another text."""
    then, now = run.checkpoint["vocabulary"], corpus.vocabulary
    if then != now:
        differing = sorted(set(then) ^ set(now))
        raise CommandError(
            f"{run} was trained with another vocabulary: {len(then)} characters, not {len(now)}; "
            f"{readable(differing[0]) if differing else 'their order'} differs: resume it with its own text"
        )
    if run.checkpoint["text_checksum"] != corpus.checksum:
        raise CommandError(f"{run} was trained on another text: resume it with its own")


def keep_probability(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise ArgumentTypeError(f"must be above 0 and at most 1, not {text}")
    return value


def parse_arguments() -> Namespace:
    parser = ArgumentParser(description=__doc__.split("\n")[0], formatter_class=ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--txt_file", help="the book: a UTF-8 text, looked for from here and from part2/; default assets/grimm.txt")
    add("--poems", help="train on poems instead: builtin, tang, or a zip, folder or file of chinese-poetry JSON")
    add("--stateful", action="store_true", help="read the book in order and carry the state from batch to batch")
    add("--seq_length", "--input_seq_length", type=positive_int, default=30, help="T: characters of a window, or of a poem")
    add("--lstm_num_hidden", "--lstm_hidden_dim", dest="lstm_hidden_dim", type=positive_int, default=128, help="units a layer")
    add("--lstm_num_layers", type=positive_int, default=2, help="layers")
    add("--embedding_size", type=positive_int, default=64, help="size of a character's vector")
    add("--dropout_keep_prob", type=keep_probability, default=1.0, help="1 - dropout of each layer's output")
    add("--init", choices=INITS, default="uniform", help="of the weights")
    add("--precision", choices=PRECISIONS, default="float32", help="bf16: the recurrences in bfloat16")
    add("--batch_size", type=positive_int, default=64, help="windows, streams or poems a step")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--train_steps", type=positive_int, help="steps; default 10000")
    length.add_argument("--num_epochs", type=positive_int, help="instead: times through the text; default for poems 40")
    add("--optimizer", choices=OPTIMIZERS, default="adam", help="momentum is SGD with momentum 0.9")
    add("--learning_rate", "--lr", type=positive_float, default=2e-3, help="of the optimizer")
    add("--schedule", choices=("step", "cosine"), default="step", help="how the learning rate falls")
    add("--learning_rate_decay", type=positive_float, default=0.96, help="step: factor after every --learning_rate_step")
    add("--learning_rate_step", type=positive_int, default=5_000, help="step: steps between two decays")
    add("--cosine_steps", type=positive_int, help="cosine: steps until the learning rate is 0; default all")
    add("--max_norm", "--clip_grad_norm", type=positive_float, default=5.0, help="limit of the gradient's norm")
    add("--patience", type=non_negative_int, default=0, help="stop after so many evaluations without a lower loss; 0: never")
    add("--max_vocabulary", type=positive_int, default=3_500, help="poems: characters that are told apart")
    add("--seed", type=non_negative_int, default=0, help="of weights, windows and dropout")
    add("--eval_every", type=positive_int, default=500, help="steps between two evaluations, each with a checkpoint")
    add("--print_every", type=positive_int, default=10, help="steps between two logged training batches")
    add("--sample_every", type=positive_int, help="steps between two stages of samples; default a fifth of all")
    add("--sample_length", type=positive_int, default=30, help="characters of a sample")
    add("--data_dir", help="folder of the data sets; default $DATA_DIR, else data/")
    add("--run_dir", "--summary_path", help="run folder; by default a new one under runs/part2/")
    add("--resume", action="store_true", help="continue the run in --run_dir, or the last one of this name")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
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
