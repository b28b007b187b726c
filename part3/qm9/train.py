"""Train an MLP or a graph network to predict atomisation energies of molecules (question 3.6).

    python part3/qm9/train.py --model gnn                                          a hundred built-in molecules
    python part3/qm9/train.py --model gnn --smiles_csv qm9_g4mp2.csv               a table of SMILES and energies
    python part3/qm9/train.py --model gnn --smiles_csv mine.csv --energy_column E --energy_unit ev
    python part3/qm9/train.py --model mlp --dataset qm9                            QM9, downloaded by PyTorch Geometric

After every epoch the model is validated, and the weights with the lowest validation loss are kept in best.pt. In the
end these are tested twice: on the test molecules as they are, and with their atoms renumbered (question 3.6c).
"""

import math
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from common.interrupts import exit_on_interrupt

    exit_on_interrupt()  # while the imports below take their time
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from common.command import (
    ArgumentParser,
    add_run_arguments,
    non_empty,
    non_negative_int,
    positive_float,
    positive_int,
    run_command,
    seed_number,
)
from common.data import checksum_of
from common.errors import CommandError
from common.machine import get_device, seeded_generator
from common.run_folder import RunFolder
from common.training import LoopState, Training, TrainingBatches, default_interval
from part3.qm9.baselines import baseline_losses, fit_counts
from part3.qm9.data import get_labels, split_and_scale
from part3.qm9.molecules import KCAL_PER_MOL, Molecules, ScaledMolecules, import_optional
from part3.qm9.networks import GNN, MLP, build_model
from part3.qm9.sources import KINDS, UNITS, Columns, read_built_in, read_qm9, read_smiles_csv

if TYPE_CHECKING:
    from torch_geometric.data import Batch

EVALUATION_BATCH = 1_000
# What they change is in the molecules, which are compared.
TABLE_ARGUMENTS = ("smiles_csv", "smiles_column", "energy_column", "energy_unit", "energy_kind")
COLUMNS = ("loss", "learning_rate", "examples_per_second", "seconds", "validation_loss", "validation_mae_mev")


@dataclass
class State(LoopState):
    """The validation losses of all epochs so far."""

    val_losses: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest validation loss, counted from 1; the first of several."""
        return self.val_losses.index(min(self.val_losses)) + 1


def main() -> None:
    args = parse_arguments()
    model, device = build_model(args), get_device(args.device)
    train(model.to(device), args.lr, args.batch_size, args.epochs, args.seed, args.data_dir, args)


def train(
    model: MLP | GNN,
    lr: float,
    batch_size: int,
    epochs: int,
    seed: int,
    data_dir: str | None,
    args: Namespace | None = None,
) -> tuple[MLP | GNN, float, float, list[float], dict[str, Any]]:
    """Train a model and test it with the weights that were best in validation.

    Args:
        model: an `MLP` or a `GNN`.
        lr: Adam's learning rate.
        batch_size, epochs: molecules in each step, and passes over the training molecules.
        seed: of the order of the molecules and of their renumbering.
        data_dir: folder of the data sets; None: $DATA_DIR, else data/.
        args: all arguments of the command line; without them the model is trained on QM9 with the course's settings.

    Returns:
        The model with its best weights; its test losses (MSE in z-units), atoms numbered as given and renumbered; the
        validation losses of all epochs; the content of result.json.
    """
    args = args or course_arguments(model, lr, batch_size, epochs, seed, data_dir)

    # Data
    source = read_source(args, data_dir)
    train_set, valid_set, test_set = split_and_scale(source, args.num_train, seed, model.device)
    batches = TrainingBatches(len(train_set), batch_size, seed)
    train_steps = epochs * batches.steps_per_epoch
    args.print_every = args.print_every or default_interval(train_steps, 50)

    # Model and optimizer
    if getattr(model, "counts", None) is not None:
        model.start_from_counts(fit_counts(train_set))  # type: ignore[operator]
    run = RunFolder(args, "part3/qm9/train.py", f"{args.model}_seed{seed}", COLUMNS, TABLE_ARGUMENTS)
    check_molecules(run, source)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    scheduler = LambdaLR(optimizer, lambda step: schedule(args.schedule, step, train_steps))

    state, saved = State(), {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    with Training(run, train_steps, state, args.model, **saved) as training:
        model.train()
        while state.step < train_steps:
            molecules = train_set.batch(batches.indices(state.step).to(model.device))
            if args.permute_training:
                molecules = permute_indices(molecules, seeded_generator(seed, f"renumbering {state.step}"))
            state.step += 1

            # Forward, loss, backward, clip, step
            loss = compute_loss(model, molecules, nn.MSELoss())
            optimizer.zero_grad()
            loss.backward()
            training.check_finite(loss=loss.item())
            if args.max_norm:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm=args.max_norm)
            optimizer.step()

            # Evaluate
            values: dict[str, Any] = {
                "loss": loss.item(),
                "learning_rate": scheduler.get_last_lr()[0],
                "examples_per_second": training.per_second(len(molecules.y)),
            }
            end_of_epoch = state.step % batches.steps_per_epoch == 0
            if end_of_epoch:
                values |= validate(model, valid_set, training)
                state.val_losses.append(values["validation_loss"])
                if state.best_epoch == len(state.val_losses):
                    run.save_best(state.step, model=model.state_dict(), mean=train_set.mean, std=train_set.std)
            scheduler.step()
            training.end_step(values, log=end_of_epoch or state.step % args.print_every == 0, checkpoint=end_of_epoch)

        # Result
        model.load_state_dict(run.load_best()["model"])
        result = result_of(model, train_set, valid_set, test_set, state)
        run.write_result(result)
        draw(run.read_metrics(), batches.steps_per_epoch, run.path / "curves")
    describe(args.model, result, str(run), uses_built_in(args))
    return model, result["test_loss"], result["permuted_test_loss"], state.val_losses, result


def compute_loss(model: MLP | GNN, molecules: "Batch", criterion: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return `criterion` of the predicted and the true z-scored energies (B,) of a batch."""
    return criterion(model.predict(molecules).squeeze(1), get_labels(molecules))


@torch.no_grad()
def evaluate_model(
    model: MLP | GNN, data_loader: Iterable["Batch"], criterion: Callable[[Tensor, Tensor], Tensor], permute: bool
) -> float:
    """Return the mean of a criterion over all molecules, whatever the batches' sizes.

    Args:
        criterion: a mean over molecules, such as `nn.MSELoss()`.
        permute: renumber the atoms of each molecule at random, in the same way every time.
    """
    was_training = model.training
    model.eval()
    generator = seeded_generator(0, "renumbering")
    total, count = 0.0, 0
    for molecules in data_loader:
        if permute:
            molecules = permute_indices(molecules, generator)
        size = len(molecules.y)
        total += size * compute_loss(model, molecules, criterion).item()
        count += size
    model.train(was_training)
    return total / count


def permute_indices(molecules: "Batch", generator: torch.Generator | None = None) -> "Batch":
    """Return a batch with the atoms of each molecule renumbered at random; the molecules remain the same."""
    keys = torch.rand(len(molecules.x), generator=generator, dtype=torch.float64).to(molecules.x.device)
    order = (molecules.batch + keys).argsort()  # keys are below 1, so atoms are shuffled within their molecule only
    new_number = torch.empty_like(order)
    new_number[order] = torch.arange(len(order), device=order.device)
    permuted = molecules.clone()
    permuted.x = molecules.x[order]
    permuted.edge_index = new_number[molecules.edge_index]
    return permuted


def schedule(name: str, step: int, train_steps: int) -> float:
    """Return the factor of the learning rate at a step, counted from 0; "cosine" first rises over 2 % of the steps."""
    if name == "constant":
        return 1.0
    rise = min(1.0, (step + 1) / (train_steps // 50 + 1))
    return rise * 0.5 * (1 + math.cos(math.pi * step / train_steps))


def validate(model: MLP | GNN, valid_set: ScaledMolecules, training: Training) -> dict[str, float]:
    """Return the mean squared error in z-units and the mean absolute error in meV."""
    loss = evaluate_model(model, valid_set.batches(EVALUATION_BATCH), nn.MSELoss(), permute=False)
    training.check_finite(validation_loss=loss)
    mae = evaluate_model(model, valid_set.batches(EVALUATION_BATCH), nn.L1Loss(), permute=False)
    mae_mev = 1000 * valid_set.std * mae
    training.show(validation_loss=f"{loss:.4f}", MAE=f"{mae_mev:.0f} meV")
    return {"validation_loss": loss, "validation_mae_mev": mae_mev}


def result_of(
    model: MLP | GNN, train_set: ScaledMolecules, valid_set: ScaledMolecules, test_set: ScaledMolecules, state: State
) -> dict[str, Any]:
    """Test a model, with the atoms numbered as given and renumbered, and return the content of result.json."""

    def test(criterion: nn.Module, permute: bool) -> float:
        return evaluate_model(model, test_set.batches(EVALUATION_BATCH), criterion, permute)

    mae = test(nn.L1Loss(), permute=False)
    mev = 1000 * test_set.std
    result = {
        "test_loss": test(nn.MSELoss(), permute=False),
        "permuted_test_loss": test(nn.MSELoss(), permute=True),
        "test_mae": mae,
        "test_mae_mev": mae * mev,
        "test_mae_kcal_per_mol": mae * test_set.std / KCAL_PER_MOL,
        "permuted_test_mae_mev": test(nn.L1Loss(), permute=True) * mev,
    }
    for name, (squared, absolute) in baseline_losses(train_set, test_set).items():
        result |= {f"{name}_loss": squared, f"{name}_mae_mev": absolute * mev}
    return result | {
        "molecules": [len(train_set), len(valid_set), len(test_set)],
        "mean_ev": train_set.mean,
        "std_ev": train_set.std,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "best_epoch": state.best_epoch,
        "epochs": len(state.val_losses),
        "seconds": round(state.seconds, 2),
    }


def read_source(args: Namespace, data_dir: str | None) -> Molecules:
    import_optional("torch_geometric.data")  # where it is missing, the command ends before there is a run folder
    if args.smiles_csv:
        columns = Columns(args.smiles_column, args.energy_column, args.energy_unit, args.energy_kind)
        return read_smiles_csv(Path(args.smiles_csv), columns)
    return read_qm9(data_dir) if args.dataset == "qm9" else read_built_in()


def check_molecules(run: RunFolder, source: Molecules) -> None:
    """Record a checksum of all molecules; raise a CommandError where a resumed run was trained on other ones."""
    molecules = {"number": len(source.energies), "sha256": checksum_of(source)}
    if run.keep("molecules", molecules) != molecules:
        raise CommandError(f"{run} was trained on other molecules or energies: resume it with its own")


def describe(model: str, result: dict[str, Any], run: str, built_in: bool) -> None:
    """Print the result, and what to compare it with."""
    print(
        f"{model.upper()}, {result['molecules'][2]:,} test molecules: loss {result['test_loss']:.5f}, "
        f"with atoms renumbered {result['permuted_test_loss']:.5f}; "
        f"mean absolute error {result['test_mae_mev']:.1f} meV = {result['test_mae_kcal_per_mol']:.2f} kcal/mol, "
        f"renumbered {result['permuted_test_mae_mev']:.1f} meV"
    )
    print(
        f"for comparison: the training mean {result['mean_mae_mev']:.1f} meV, a linear fit to the counts of atoms and "
        f"bonds {result['counts_mae_mev']:.1f} meV, chemical accuracy {1000 * KCAL_PER_MOL:.1f} meV (1 kcal/mol)"
    )
    hint = "; these are the built-in molecules, too few to learn from: use --smiles_csv or --dataset qm9"
    print(
        f"best after epoch {result['best_epoch']} of {result['epochs']}; {result['seconds']:.1f} s; run folder {run}"
        f"{hint if built_in else ''}"
    )


def draw(metrics: dict[str, list[tuple[int, float]]], steps_per_epoch: int, path: Path) -> None:
    """Draw a run's training and validation loss against the epoch."""
    from common.figure import new_figure, save_figure  # Matplotlib takes a second to import

    figure, (axes,) = new_figure()

    def plot(name: str, **style: Any) -> None:
        epochs = [step / steps_per_epoch for step, _ in metrics[name]]
        axes.plot(epochs, [value for _, value in metrics[name]], **style)

    dot = "." if len(metrics["loss"]) == 1 else None  # a line needs two points
    plot("loss", label="training batch", color="0.6", linewidth=0.8, marker=dot)
    plot("validation_loss", label="validation", marker="o")
    axes.set(xlabel="epoch", ylabel="squared error of the z-score", yscale="log")
    axes.legend()
    save_figure(figure, path)


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--model", choices=("mlp", "gnn"), default="mlp", help="an MLP on numbered atoms, or a GNN on the graph")
    hidden_dims = [128, 128, 128, 128]
    add("--mlp_hidden_dims", type=positive_int, nargs="+", default=hidden_dims, help="MLP: units of each hidden layer")
    add("--gnn_hidden_dims", type=positive_int, default=64, help="GNN: size of an atom's vector")
    add("--gnn_num_blocks", type=positive_int, default=2, help="GNN: blocks of two convolutions")
    add("--residual", action="store_true", help="GNN: each block adds to its normalised input")
    add("--counts", action="store_true", help="GNN: add a linear function of the counts of atoms and bonds")
    add("--max_ring", type=non_negative_int, default=0, help="GNN: size of the largest rings shown to atoms; 0: none")
    source = parser.add_mutually_exclusive_group()
    datasets = ("builtin", "qm9")
    source.add_argument("--dataset", choices=datasets, default="builtin", help="100 molecules, or QM9 (downloaded)")
    table = "instead: a table of SMILES and energies at 0 K, separated by commas, semicolons or tabs"
    source.add_argument("--smiles_csv", type=non_empty, help=table)
    add("--smiles_column", default="smiles", help="table: its column of SMILES")
    add("--energy_column", help="table: its column of energies; default g4mp2_atom, or else u0")
    add("--energy_unit", type=str.lower, choices=tuple(UNITS), default="hartree", help="table: unit of its energies")
    kinds = "table: energies less those of the atoms, or not; default total for a column u0, else atomisation"
    add("--energy_kind", choices=KINDS, help=kinds)
    add("--num_train", type=positive_int, help="train on this many molecules only")
    add("--permute_training", action="store_true", help="renumber the atoms in every training batch")
    add("--lr", "--learning_rate", type=positive_float, default=1e-3, help="learning rate of Adam")
    add("--schedule", choices=("constant", "cosine"), default="constant", help="how the learning rate changes")
    add("--max_norm", "--clip_grad_norm", type=positive_float, help="largest norm of the gradient; default: no limit")
    add("--batch_size", type=positive_int, default=128, help="molecules in each step")
    add("--epochs", type=positive_int, help="passes over the training molecules; default 10, for the built-in ones 100")
    add("--seed", type=seed_number, default=42, help="seed of weights, order and renumbering")
    interval = "steps between two logged training batches; default a twentieth of all, at most 50"
    add("--print_every", type=positive_int, help=interval)
    add("--data_dir", type=non_empty, help="folder of the data sets; default $DATA_DIR, else data/")
    add_run_arguments(parser, "part3/qm9")
    return parser


def parse_arguments(words: list[str] | None = None) -> Namespace:
    parser = build_parser()
    args = parser.parse_args(words)
    if args.epochs is None:
        args.epochs = 100 if uses_built_in(args) else 10  # an epoch of the built-in molecules is a single step
    if args.max_ring in (1, 2):
        parser.error(f"argument --max_ring: the smallest ring has 3 atoms, not {args.max_ring}")
    for name in TABLE_ARGUMENTS:
        if not args.smiles_csv and getattr(args, name) != parser.get_default(name):
            parser.error(f"argument --{name}: is about the table of --smiles_csv, which is not given")
    return args


def course_arguments(
    model: MLP | GNN, lr: float, batch_size: int, epochs: int, seed: int, data_dir: str | None
) -> Namespace:
    """Return the arguments of a training on QM9 with the course's settings."""
    defaults = vars(parse_arguments(["--dataset", "qm9"]))
    chosen = {"lr": lr, "batch_size": batch_size, "epochs": epochs, "seed": seed, "data_dir": data_dir}
    return Namespace(**defaults | chosen | {"model": type(model).__name__.lower()})


def uses_built_in(args: Namespace) -> bool:
    return args.dataset == "builtin" and not args.smiles_csv


if __name__ == "__main__":
    run_command(main)
