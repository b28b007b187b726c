"""Train an MLP or a graph network to predict atomisation energies of molecules (question 3.6).

    python part3/qm9/train.py --model gnn                                          a hundred built-in molecules
    python part3/qm9/train.py --model gnn --smiles_csv qm9_g4mp2.csv               a table of SMILES and energies
    python part3/qm9/train.py --model mlp --dataset qm9                            QM9, downloaded by PyTorch Geometric

After every epoch the model is validated, and the weights with the lowest loss there are kept in best.pt. They are then tested
twice: on the test molecules as they are, and with their atoms renumbered (question 3.6c).
"""

import math
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from common.errors import (
    ArgumentParser,
    CommandError,
    StopRequest,
    non_negative_int,
    positive_float,
    positive_int,
    run_command,
)
from common.machine import get_device, seeded_generator
from common.run_folder import RunFolder, load_checkpoint
from part3.qm9.baselines import baseline_losses, fit_counts
from part3.qm9.data import get_labels, split_and_scale
from part3.qm9.molecules import KCAL_PER_MOL, Molecules, ScaledMolecules, extra
from part3.qm9.networks import build_model
from part3.qm9.sources import read_built_in, read_qm9, read_smiles_csv

if TYPE_CHECKING:
    from torch_geometric.data import Batch

EVALUATION_BATCH = 1_000
COLUMNS = ("loss", "learning_rate", "examples_per_second", "seconds", "validation_loss", "validation_mae_mev")


def main() -> None:
    args = parse_arguments()
    model, device = build_model(args), get_device(args.device)
    train(model.to(device), args.lr, args.batch_size, args.epochs, args.seed, args.data_dir, args)


def train(
    model: nn.Module, lr: float, batch_size: int, epochs: int, seed: int, data_dir: str | None, args: Namespace | None = None
) -> tuple[nn.Module, float, float, list[float], dict[str, Any]]:
    """Train a model and test it with the weights that were best in validation.

    Args:
        model: an `MLP` or a `GNN`.
        lr: Adam's learning rate.
        batch_size: molecules a step.
        epochs: times through the training molecules.
        seed: of the order of the molecules and of their renumbering.
        data_dir: folder of the data sets; None: $DATA_DIR, else data/.
        args: what else the command line says; without it QM9 is trained on with the course's settings.

    Returns:
        The model with its best weights; its test losses (MSE in z-units), atoms numbered as given and anew; the validation
        losses of all epochs; what result.json says.
    """
    if args is None:
        args = parse_arguments(["--dataset", "qm9"])
        args.model = type(model).__name__.lower()
        args.lr, args.batch_size, args.epochs, args.seed, args.data_dir = lr, batch_size, epochs, seed, data_dir
    extra("torch_geometric.data")  # before there is a run folder
    source = read_source(args)
    train_set, valid_set, test_set = split_and_scale(source, args.num_train, seed, model.device)
    if isinstance(getattr(model, "counts", None), nn.Linear):
        model.start_from_counts(fit_counts(train_set))
    batches = TrainingBatches(train_set, batch_size, seed)
    valid, test = EvaluationBatches(valid_set), EvaluationBatches(test_set)
    criterion, train_steps = nn.MSELoss(), epochs * batches.steps_per_epoch
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    step, seconds, lowest_loss, best_epoch, val_losses = 0, 0.0, math.inf, 0, []

    run = RunFolder(args, f"part3/qm9/{args.model}_seed{seed}", COLUMNS)
    if run.checkpoint:
        if not torch.equal(run.checkpoint["energies"], energies_of(source)):
            raise CommandError(f"{run} was trained on other molecules: resume it with its own")
        model.load_state_dict(run.checkpoint["model"])
        optimizer.load_state_dict(run.checkpoint["optimizer"])
        step, seconds, val_losses = (run.checkpoint[key] for key in ("step", "seconds", "val_losses"))
        lowest_loss, best_epoch = run.checkpoint["lowest_loss"], run.checkpoint["best_epoch"]

    def save() -> None:
        run.save_checkpoint(
            step,
            energies=energies_of(source),
            model=model.state_dict(),
            optimizer=optimizer.state_dict(),
            seconds=seconds,
            lowest_loss=lowest_loss,
            best_epoch=best_epoch,
            val_losses=val_losses,
        )

    began = time.perf_counter() - seconds
    progress = tqdm(total=train_steps, initial=step, desc=args.model, unit="step", disable=None, leave=False)
    with run, progress, StopRequest() as stop:
        while step < train_steps:
            started = time.perf_counter()
            learning_rate = lr * schedule(args.schedule, step, train_steps)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            molecules = batches.batch(step)
            if args.permute_training:
                molecules = permute_indices(molecules, seeded_generator(seed, f"renumbering {step}"))
            step += 1

            model.train()
            loss = compute_loss(model, molecules, criterion)
            optimizer.zero_grad()
            loss.backward()
            if not math.isfinite(loss.item()):
                raise run.diverged(step, f"the loss is {loss.item():g}")
            if args.max_norm:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm=args.max_norm)
            optimizer.step()

            end_of_epoch = step % batches.steps_per_epoch == 0
            values = {"loss": loss.item(), "learning_rate": learning_rate}
            values["examples_per_second"] = len(molecules.y) / (time.perf_counter() - started)
            if end_of_epoch:
                epoch, validation_loss = step // batches.steps_per_epoch, evaluate_model(model, valid, criterion, permute=False)
                if not math.isfinite(validation_loss):
                    raise run.diverged(step, f"the validation loss is {validation_loss:g}")
                val_losses.append(validation_loss)
                mae = 1000 * train_set.std * evaluate_model(model, valid, nn.L1Loss(), permute=False)
                values |= {"validation_loss": validation_loss, "validation_mae_mev": mae}
                if validation_loss < lowest_loss:
                    lowest_loss, best_epoch = validation_loss, epoch
                    run.save_best(step, model=model.state_dict(), mean=train_set.mean, std=train_set.std)
                progress.set_postfix({"validation loss": f"{validation_loss:.4f}", "MAE": f"{mae:.0f} meV"})
            seconds = time.perf_counter() - began
            if end_of_epoch or step % args.print_every == 0:
                run.log(step, **values, seconds=round(seconds, 3))
            if end_of_epoch or stop.signal_number:
                save()
            progress.update()
            if stop.signal_number:
                message = f"stopped at step {step:,}; go on with: {run.resume_command()}"
                raise CommandError(message, 128 + stop.signal_number)

        model.load_state_dict(load_checkpoint(run.path / "best.pt")["model"])
        test_loss, permuted_test_loss = (evaluate_model(model, test, criterion, permute) for permute in (False, True))
        test_mae, permuted_test_mae = (evaluate_model(model, test, nn.L1Loss(), permute) for permute in (False, True))
        mev = 1000 * train_set.std
        result = {
            "test_loss": test_loss,
            "permuted_test_loss": permuted_test_loss,
            "test_mae": test_mae,
            "test_mae_mev": test_mae * mev,
            "test_mae_kcal_per_mol": test_mae * train_set.std / KCAL_PER_MOL,
            "permuted_test_mae_mev": permuted_test_mae * mev,
        }
        for name, (squared, absolute) in baseline_losses(train_set, test_set).items():
            result |= {f"{name}_loss": squared, f"{name}_mae_mev": absolute * mev}
        result |= {
            "molecules": [len(train_set), len(valid_set), len(test_set)],
            "mean_ev": train_set.mean,
            "std_ev": train_set.std,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "best_epoch": best_epoch,
            "epochs": epochs,
            "seconds": round(seconds, 2),
        }
        run.write_result(result)
        draw(run.read_metrics(), batches.steps_per_epoch, run.path / "curves")
    describe(args, result, str(run))
    return model, test_loss, permuted_test_loss, val_losses, result


def compute_loss(model: nn.Module, molecules: "Batch", criterion: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return `criterion` of the predicted and the true z-scored energies (B,) of a batch."""
    return criterion(model.predict(molecules).squeeze(1), get_labels(molecules))


@torch.no_grad()
def evaluate_model(
    model: nn.Module, data_loader: Iterable["Batch"], criterion: Callable[[Tensor, Tensor], Tensor], permute: bool
) -> float:
    """Return the mean of a criterion over all molecules, whatever the batches' sizes.

    Args:
        criterion: a mean over molecules, as `nn.MSELoss()`.
        permute: number the atoms of each molecule anew, always in the same way.
    """
    was_training = model.training
    model.eval()
    total, count, generator = 0.0, 0, seeded_generator(0, "renumbering")
    for molecules in data_loader:
        if permute:
            molecules = permute_indices(molecules, generator)
        size = len(molecules.y)
        total, count = total + size * compute_loss(model, molecules, criterion).item(), count + size
    model.train(was_training)
    return total / count


def permute_indices(molecules: "Batch", generator: torch.Generator | None = None) -> "Batch":
    """Return a batch with the atoms of each molecule numbered anew, at random; the molecules remain the same."""
    keys = torch.rand(len(molecules.x), generator=generator, dtype=torch.float64).to(molecules.x.device)
    order = (molecules.batch + keys).argsort()  # shuffles within molecules: between two of them lies a whole number
    new_number = torch.empty_like(order)
    new_number[order] = torch.arange(len(order), device=order.device)
    permuted = molecules.clone()
    permuted.x, permuted.edge_index = molecules.x[order], new_number[molecules.edge_index]
    return permuted


class TrainingBatches:
    """The training molecules in a new order each epoch; a step's batch depends on the step and the seed alone."""

    def __init__(self, molecules: ScaledMolecules, batch_size: int, seed: int):
        self.molecules, self.batch_size, self.seed = molecules, batch_size, seed
        self.steps_per_epoch = math.ceil(len(molecules) / batch_size)
        self._epoch, self._order = -1, torch.empty(0)

    def batch(self, step: int) -> "Batch":
        """Return the batch of a step, counted from 0; an epoch's last is smaller where molecules run out."""
        epoch, number = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self.molecules), generator=seeded_generator(self.seed, f"epoch {epoch}"))
            self._epoch, self._order = epoch, order.to(self.molecules.labels.device)
        return self.molecules.batch(self._order[number * self.batch_size : (number + 1) * self.batch_size])


class EvaluationBatches:
    """All molecules in their order, large batches at a time."""

    def __init__(self, molecules: ScaledMolecules):
        self.molecules = molecules

    def __iter__(self) -> Iterator["Batch"]:
        for indices in torch.arange(len(self.molecules), device=self.molecules.labels.device).split(EVALUATION_BATCH):
            yield self.molecules.batch(indices)


def schedule(name: str, step: int, train_steps: int) -> float:
    """Return the factor of the learning rate at a step, counted from 0; the cosine comes after a rise over 2 % of the steps."""
    rise = min(1.0, (step + 1) / (train_steps // 50 + 1))
    return rise * 0.5 * (1 + math.cos(math.pi * step / train_steps)) if name == "cosine" else 1.0


def read_source(args: Namespace) -> Molecules:
    if args.smiles_csv:
        return read_smiles_csv(Path(args.smiles_csv))
    return read_qm9(args.data_dir) if args.dataset == "qm9" else read_built_in()


def energies_of(molecules: Molecules) -> Tensor:
    """Return what tells two sources apart: their number of molecules, and the sum of energies."""
    return torch.tensor([len(molecules.energies), molecules.energies.sum()], dtype=torch.float64)


def describe(args: Namespace, result: dict[str, Any], run: str) -> None:
    """Print what came out, beside what it should be compared with."""
    print(
        f"{args.model.upper()}, {result['molecules'][2]:,} test molecules: loss {result['test_loss']:.5f}, "
        f"with atoms renumbered {result['permuted_test_loss']:.5f}; mean absolute error {result['test_mae_mev']:.1f} meV = "
        f"{result['test_mae_kcal_per_mol']:.2f} kcal/mol, renumbered {result['permuted_test_mae_mev']:.1f} meV"
    )
    print(
        f"beside it: the training mean {result['mean_mae_mev']:.1f} meV, a line in the counts of atoms and bonds "
        f"{result['counts_mae_mev']:.1f} meV, chemical accuracy {1000 * KCAL_PER_MOL:.1f} meV (1 kcal/mol)"
    )
    built_in = not args.smiles_csv and args.dataset == "builtin"
    print(
        f"best after epoch {result['best_epoch']} of {result['epochs']}; {result['seconds']:.1f} s; run folder {run}"
        + ("; these are the built-in molecules, too few to learn from: --smiles_csv or --dataset qm9" if built_in else "")
    )


def draw(metrics: dict[str, list[tuple[int, float]]], steps_per_epoch: int, path: Path) -> None:
    """Draw a run's training and validation loss against the epoch."""
    from common.figure import new_figure, save_figure  # matplotlib takes a second to import, needed only here

    figure, (axes,) = new_figure()
    for name, style in (("loss", {"color": "0.6", "linewidth": 0.8}), ("validation_loss", {"marker": "o"})):
        steps, values = zip(*metrics[name])
        label = "training batch" if name == "loss" else "validation"
        axes.plot([step / steps_per_epoch for step in steps], values, label=label, **style)
    axes.set(xlabel="epoch", ylabel="squared error of the z-score", yscale="log")
    axes.legend()
    save_figure(figure, path)


def parse_arguments(words: list[str] | None = None) -> Namespace:
    parser = ArgumentParser(description=__doc__.split("\n")[0], formatter_class=ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--model", choices=("mlp", "gnn"), default="mlp", help="on numbered atoms, or on the graph")
    add("--mlp_hidden_dims", type=positive_int, nargs="+", default=[128, 128, 128, 128], help="MLP: units of each hidden layer")
    add("--gnn_hidden_dims", type=positive_int, default=64, help="GNN: numbers an atom carries")
    add("--gnn_num_blocks", type=positive_int, default=2, help="GNN: blocks of two convolutions")
    add("--residual", action="store_true", help="GNN: blocks add to their normalised input")
    add("--counts", action="store_true", help="GNN: adds a line in the counts of atoms and bonds, fitted first")
    add("--max_ring", type=non_negative_int, default=0, help="GNN: atoms know of rings of up to so many atoms; 0: of none")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--dataset", choices=("builtin", "qm9"), default="builtin", help="100 molecules, or QM9 (downloaded)")
    source.add_argument("--smiles_csv", help="instead: a table with the columns smiles and g4mp2_atom or u0, in Hartree")
    add("--num_train", type=positive_int, help="train on so many molecules only")
    add("--permute_training", action="store_true", help="number the atoms anew in every training batch")
    add("--lr", "--learning_rate", type=positive_float, default=1e-3, help="of Adam")
    add("--schedule", choices=("constant", "cosine"), default="constant", help="how the learning rate falls")
    add("--max_norm", "--clip_grad_norm", type=positive_float, help="limit of the gradient's norm; default none")
    add("--batch_size", type=positive_int, default=128, help="molecules a step")
    add("--epochs", type=positive_int, help="times through the training molecules; default 10, and 100 for the built-in ones")
    add("--seed", type=non_negative_int, default=42, help="of weights, order and renumbering")
    add("--print_every", type=positive_int, default=50, help="steps between two logged training batches")
    add("--data_dir", help="folder of the data sets; default $DATA_DIR, else data/")
    add("--run_dir", "--summary_path", help="run folder; by default a new one under runs/part3/qm9/")
    add("--resume", action="store_true", help="continue the run in --run_dir, or the last one of this name")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    args = parser.parse_args(words)
    built_in = not args.smiles_csv and args.dataset == "builtin"
    args.epochs = args.epochs or (100 if built_in else 10)  # an epoch of the built-in molecules is a single step
    if args.max_ring in (1, 2):
        parser.error(f"argument --max_ring: the smallest ring has 3 atoms, not {args.max_ring}")
    return args


if __name__ == "__main__":
    run_command(main)
