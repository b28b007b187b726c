"""part3/qm9/train.py as its users meet it: a process, its closing lines, its exit code and the folder it leaves."""

import copy
import inspect
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("torch_geometric", reason='pip install -e ".[molecules]"')
pytest.importorskip("rdkit", reason='pip install -e ".[molecules]"')

from torch import nn
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

import part3.qm9.train
from common import experiment
from common.errors import CommandError
from common.run_folder import read_metrics
from part3.experiments import qm9
from part3.qm9.baselines import baseline_losses
from part3.qm9.data import get_labels, get_mlp_features, split_and_scale
from part3.qm9.molecules import HARTREE, KCAL_PER_MOL, Molecules
from part3.qm9.networks import GNN, MLP, build_model
from part3.qm9.sources import BUILT_IN, read_built_in, read_table
from part3.qm9.train import compute_loss, evaluate_model, parse_arguments, permute_indices, read_source, schedule
from tests.harness import (
    ENVIRONMENT,
    POSIX,
    ROOT,
    assert_same_run,
    contents,
    failure_of,
    one_line,
    run_script,
    tensorboard_losses,
    train_under_fire,
)

TINY = ["--batch_size", "16", "--epochs", "3", "--print_every", "2"]
GRAPH = ["--model", "gnn", "--gnn_hidden_dims", "8", *TINY]
DEEP = [
    *GRAPH,
    "--residual",
    "--counts",
    "--max_ring",
    "6",
    "--schedule",
    "cosine",
    "--max_norm",
    "1",
    "--permute_training",
]
FLAT = ["--model", "mlp", "--mlp_hidden_dims", "16", "8", *TINY, "--permute_training"]


def train(*words, script="part3/qm9/train.py", **options):
    return run_script(script, *words, **options)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    done = train(*DEEP, "--run_dir", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar where there is no terminal
    result, comparison, closing = done.stdout.splitlines()
    assert re.fullmatch(
        r"GNN, 10 test molecules: loss \d\.\d{5}, with atoms renumbered \d\.\d{5}; mean absolute error \d+\.\d meV = "
        r"\d+\.\d\d kcal/mol, renumbered \d+\.\d meV",
        result,
    )
    assert re.fullmatch(
        r"for comparison: the training mean \d+\.\d meV, a linear fit to the counts of atoms and bonds \d+\.\d meV, "
        r"chemical accuracy 43\.4 meV \(1 kcal/mol\)",
        comparison,
    )
    assert re.fullmatch(
        r"best after epoch \d of 3; \d+\.\d s; run folder .*run; "
        r"these are the built-in molecules, too few to learn from: .*",
        closing,
    )
    return folder


def test_the_run_folder(reference):
    names = {re.sub(r"^events\..*", "events", path.name) for path in reference.iterdir()}
    files = (
        "config.json",
        "metrics.csv",
        "events",
        "checkpoint.pt",
        "checkpoint.previous.pt",
        ".lock",
        "best.pt",
        "result.json",
        "curves.png",
        "curves.pdf",
    )
    assert names == set(files)
    metrics = read_metrics(reference / "metrics.csv")
    assert metrics["loss"] == tensorboard_losses(reference)
    assert [step for step, _ in metrics["loss"]] == [2, 4, 6, 8, 10, 12, 14, 16, 18]  # 81 molecules: 6 steps an epoch
    assert [step for step, _ in metrics["validation_loss"]] == [6, 12, 18]
    rates = [rate for _, rate in metrics["learning_rate"]]
    assert rates == sorted(rates, reverse=True) and 0 < rates[-1] < 1e-4


def test_the_result_can_be_computed_again(reference):
    """From best.pt and the molecules alone, molecule by molecule."""
    best = torch.load(reference / "best.pt", weights_only=True)
    result = json.loads((reference / "result.json").read_text())
    model = build_model(parse_arguments(DEEP)).eval()
    model.load_state_dict(best["model"])
    train_set, valid_set, test_set = split_and_scale(read_built_in())
    assert (best["mean"], best["std"]) == (train_set.mean, train_set.std) == (result["mean_ev"], result["std_ev"])

    def errors(molecules):
        with torch.no_grad():
            predicted = [model.predict(Batch.from_data_list([molecule])).item() for molecule in molecules]
        return [
            p * best["std"] + best["mean"] - e for p, e in zip(predicted, molecules.molecules.energies.tolist())
        ]  # eV

    mev = 1000 * sum(map(abs, errors(test_set))) / len(test_set)
    assert result["test_mae_mev"] == pytest.approx(mev, rel=1e-4)
    assert result["test_mae_kcal_per_mol"] == pytest.approx(mev / 1000 / KCAL_PER_MOL, rel=1e-4)
    squared = sum(error**2 for error in errors(test_set)) / len(test_set) / best["std"] ** 2
    assert result["test_loss"] == pytest.approx(squared, rel=1e-4)
    assert result["permuted_test_loss"] == pytest.approx(squared, rel=1e-4)
    assert result["molecules"] == [81, 9, 10]
    losses = dict(read_metrics(reference / "metrics.csv")["validation_loss"])
    lowest = min(losses, key=losses.get)
    assert lowest == best["step"] == 6 * result["best_epoch"]
    validated = sum(error**2 for error in errors(valid_set)) / len(valid_set) / best["std"] ** 2
    assert losses[lowest] == pytest.approx(validated, rel=1e-4)
    squared, absolute = baseline_losses(train_set, test_set)["counts"]
    assert (result["counts_loss"], result["counts_mae_mev"]) == pytest.approx((squared, absolute * 1000 * best["std"]))


def test_same_seed_same_run_from_inside_the_part_and_as_a_module(reference, tmp_path):
    assert train(*DEEP, "--run_dir", tmp_path / "inside", cwd=ROOT / "part3" / "qm9", script="train.py").returncode == 0
    assert_same_run(tmp_path / "inside", reference)
    command = [sys.executable, "-m", "part3.qm9.train", *DEEP, "--run_dir", str(tmp_path / "module")]
    assert subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True).returncode == 0
    assert_same_run(tmp_path / "module", reference)


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("words", [DEEP, FLAT])
def test_killed_at_every_write(tmp_path, words):
    assert train(*words, "--run_dir", tmp_path / "whole").returncode == 0
    writes = train_under_fire("tests.part3.qm9.preloaded", "write", tmp_path, *words)
    losses = [(step, float(loss.expected)) for step, loss in tensorboard_losses(tmp_path / "whole")]
    best = torch.load(tmp_path / "whole" / "best.pt", weights_only=True)["model"]
    for number in range(1, writes + 1):
        folder = tmp_path / str(number)
        assert_same_run(folder, tmp_path / "whole")
        assert not list(folder.glob(".*.tmp"))
        assert tensorboard_losses(folder) == losses
        kept = torch.load(folder / "best.pt", weights_only=True)["model"]
        assert all(torch.equal(kept[name], best[name]) for name in best)


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("words", [DEEP, FLAT])
def test_killed_at_random_moments(tmp_path, words):
    longer = ["--epochs", "40"] if words is DEEP else ["--epochs", "150"]
    assert train(*words, *longer, "--run_dir", tmp_path / "whole").returncode == 0
    assert train_under_fire("tests.part3.qm9.preloaded", "random", tmp_path / "killed", *words, *longer) > 5
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@POSIX
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal_in_mid_epoch_then_resumed(tmp_path, monkeypatch, number, exit_code):
    words = [*FLAT, "--epochs", "12", "--batch_size", "2"]
    process = subprocess.Popen(
        [sys.executable, "part3/qm9/train.py", *words, "--run_dir", tmp_path / "run"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        time.sleep(0.02)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == exit_code
    step = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"]
    assert re.fullmatch(
        rf"train\.py: stopped at step {step:,}; go on with: python part3/qm9/train\.py .* --resume\n", error
    )
    resume = error.split("train.py ")[1].split()
    train_here(resume, monkeypatch)
    train_here([*words, "--run_dir", tmp_path / "whole"], monkeypatch)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def train_here(words, monkeypatch):
    """Run the script's `main` in this process, which has imported everything already, with one thread."""
    monkeypatch.setattr(sys, "argv", ["part3/qm9/train.py", *map(str, words)])
    monkeypatch.chdir(ROOT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        part3.qm9.train.main()
    finally:
        torch.set_num_threads(threads)


def fail_here(words, monkeypatch, capsys, exit_code=2):
    return failure_of(part3.qm9.train.main, "part3/qm9/train.py", words, monkeypatch, capsys, exit_code)


def test_unfit_resumptions_are_named(reference, tmp_path, monkeypatch, capsys):
    def resume(*words):
        return fail_here([*DEEP, *words, "--run_dir", reference, "--resume"], monkeypatch, capsys)

    assert "was trained with --max_ring 6, not 5" in resume("--max_ring", "5")
    assert "was trained with --epochs 3, not 4" in resume("--epochs", "4")  # the cosine depends on all steps
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table = tmp_path / "table.csv"
    table.write_bytes(BUILT_IN.read_bytes())
    words = [*FLAT, "--smiles_csv", table, "--run_dir", tmp_path / "run"]
    train_here(words, monkeypatch)
    moved = table.rename(tmp_path / "moved.csv")
    train_here([*FLAT, "--smiles_csv", moved, "--run_dir", tmp_path / "run", "--resume"], monkeypatch)
    table.write_text(BUILT_IN.read_text().replace("C,-0.625083", "C,-0.625084"))
    assert "was trained on other molecules or energies" in one_line(train(*words, "--resume"))
    assert "already holds a run" in fail_here(words, monkeypatch, capsys)
    lines = [f"C;{line.replace(',', ';')}" for line in BUILT_IN.read_text().splitlines()[1:]]
    table.write_text("\n".join(["all;SMILES;E", *lines, ""]))  # the same molecules by other names
    named = [*words, "--energy_column", "E", "--resume"]
    train_here(named, monkeypatch)
    for other in (["--smiles_column", "all"], ["--energy_unit", "eV"], ["--energy_kind", "total"]):
        with pytest.raises(CommandError, match="was trained on other molecules or energies"):
            train_here([*named, *other], monkeypatch)


def test_divergence_stops_with_a_clear_line(tmp_path, monkeypatch, capsys):
    error = fail_here([*FLAT, "--lr", "1e30", "--run_dir", tmp_path / "run"], monkeypatch, capsys, exit_code=1)
    assert re.search(r"diverged at step \d+: the .*loss is (nan|inf)", error) and "try a lower --learning_rate" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "transformer"], "argument --model: invalid choice: 'transformer'"),
        (["--epochs", "0"], "argument --epochs: must be at least 1, not 0"),
        (["--batch_size", "-1"], "argument --batch_size: must be at least 1"),
        (["--lr", "nan"], "must be a finite number above 0, not nan"),
        (["--mlp_hidden_dims", "8", "0"], "argument --mlp_hidden_dims: must be at least 1"),
        (["--gnn_num_blocks", "0"], "argument --gnn_num_blocks: must be at least 1"),
        (["--max_ring", "2"], "argument --max_ring: the smallest ring has 3 atoms, not 2"),
        (["--max_ring", "-3"], "argument --max_ring: must be at least 0"),
        (["--num_train", "82"], "num_train 82 is more than the 81 training molecules"),
        (
            ["--smiles_csv", "no.csv"],
            "no.csv does not exist: a table with the columns smiles and g4mp2_atom or u0 is expected",
        ),
        (["--smiles_csv", "LICENSE"], "LICENSE lacks a column"),
        (["--smiles_csv", "common"], "common is a folder"),
        (["--smiles_csv", ""], "argument --smiles_csv: must not be empty"),
        (["--smiles_csv", "a.csv", "--energy_unit", "rydberg"], "argument --energy_unit: invalid choice: 'rydberg'"),
        (["--smiles_csv", "a.csv", "--energy_kind", "free"], "argument --energy_kind: invalid choice: 'free'"),
        (["--energy_unit", "ev"], "argument --energy_unit: is about the table of --smiles_csv, which is not given"),
        (["--dataset", "qm9", "--energy_column", "u0"], "argument --energy_column: is about the table of"),
        (["--smiles_csv", "a.csv", "--dataset", "qm9"], "not allowed with argument"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
        (["--resume", "--run_dir", "part1"], "part1 holds no run that could be resumed"),
    ],
)
def test_bad_input_ends_in_one_line(words, message, capsys, monkeypatch):
    assert message in fail_here(words, monkeypatch, capsys)


def test_every_flag_changes_something(tmp_path, monkeypatch):
    """Each argument alters the weights or the log of an otherwise equal run."""
    monkeypatch.setattr(part3.qm9.train, "draw", lambda *arguments: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table = tmp_path / "table.csv"
    table.write_text("\n".join(BUILT_IN.read_text().splitlines()[:60]) + "\n")
    base = {"mlp": FLAT[:-1], "gnn": GRAPH}
    variants = {
        "mlp": [
            ["--mlp_hidden_dims", "8"],
            ["--permute_training"],
            ["--lr", "0.01"],
            ["--batch_size", "8"],
            ["--epochs", "2"],
        ],
        "gnn": [
            ["--gnn_hidden_dims", "4"],
            ["--gnn_num_blocks", "1"],
            ["--residual"],
            ["--counts"],
            ["--max_ring", "4"],
        ],
    }
    variants["mlp"] += [["--schedule", "cosine"], ["--max_norm", "0.01"], ["--seed", "1"], ["--num_train", "50"]]
    variants["mlp"] += [["--smiles_csv", table], ["--print_every", "1"]]
    for model, words in base.items():
        seen = []
        for number, variant in enumerate([[], *variants[model]]):
            folder = tmp_path / f"{model}{number}"
            train_here([*words, *variant, "--run_dir", folder], monkeypatch)
            checkpoint, rows, _ = contents(folder)
            seen.append((variant, [value.tolist() for value in checkpoint["model"].values()], len(rows)))
        for variant, weights, num_rows in seen[1:]:
            assert (weights, num_rows) != seen[0][1:], variant


# ---- the functions, by the course's names ----


class Constant(nn.Module):
    """Predicts 0 for every molecule."""

    def predict(self, molecules):
        return torch.zeros(len(molecules.y), 1)


def test_the_loss_compares_each_molecule_with_its_own_label():
    """A prediction (B, 1) less labels (B,) would be a table (B, B)."""
    batch = split_and_scale(read_built_in())[0].batch(torch.arange(7))
    assert compute_loss(Constant(), batch, nn.MSELoss()).item() == pytest.approx(
        get_labels(batch).square().mean().item()
    )
    seen = []
    compute_loss(Constant(), batch, lambda prediction, label: seen.extend((prediction.shape, label.shape)))
    assert seen == [(7,), (7,)]


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_an_evaluation_does_not_depend_on_the_batches(size):
    """With the library's loader, as the course's code has it."""
    test = split_and_scale(read_built_in())[2]
    torch.manual_seed(0)
    network, whole = GNN(5, 4, 8, 1, 2), test.batch(torch.arange(len(test)))
    loss = evaluate_model(network, DataLoader(test, batch_size=size), nn.MSELoss(), permute=False)
    assert loss == pytest.approx(compute_loss(network, whole, nn.MSELoss()).item(), rel=1e-5)
    assert network.training


def test_renumbering_keeps_the_molecules_and_reaches_every_order():
    molecules = split_and_scale(read_built_in())[0]
    batch = molecules.batch(torch.arange(5))
    before = copy.deepcopy(batch.to_dict())
    permuted = permute_indices(batch)
    assert all(torch.equal(batch[name], before[name]) for name in before)  # the original is as it was
    assert torch.equal(permuted.batch, batch.batch) and torch.equal(permuted.edge_attr, batch.edge_attr)
    assert torch.equal(permuted.batch[permuted.edge_index[0]], batch.batch[batch.edge_index[0]])
    for ends in (0, 1):  # each bond still joins the same elements
        assert torch.equal(permuted.x[permuted.edge_index[ends]], batch.x[batch.edge_index[ends]])

    def atoms_of(graph, part):
        degree = graph.edge_index[0].bincount(minlength=len(graph.x))
        return sorted((*x.tolist(), d.item()) for x, d in zip(graph.x[part], degree[part]))

    for k in range(5):
        part = slice(batch.ptr[k], batch.ptr[k + 1])
        assert atoms_of(permuted, part) == atoms_of(batch, part)
    water = molecules.batch(torch.tensor([next(k for k, m in enumerate(molecules) if len(m.x) == 3)]))
    generator = torch.Generator().manual_seed(0)
    orders = {
        tuple(get_mlp_features(permute_indices(water, generator)).nonzero().flatten().tolist()) for _ in range(50)
    }
    assert len(orders) == 3  # the middle atom has one of three numbers


def test_train_by_the_courses_names(tmp_path, monkeypatch):
    assert (
        list(inspect.signature(part3.qm9.train.train).parameters)[:6]
        == "model lr batch_size epochs seed data_dir".split()
    )
    monkeypatch.setattr(part3.qm9.train, "read_qm9", lambda data_dir: read_built_in())
    monkeypatch.setattr("common.run_folder.ROOT", tmp_path)
    torch.manual_seed(0)
    for model in (MLP(3509, [16], 1), GNN(5, 4, 8, 1, 2)):
        best, loss, permuted, losses, info = part3.qm9.train.train(model, 0.001, 32, 2, 7, str(tmp_path))
        assert (
            best is model and len(losses) == 2 and info["test_loss"] == loss and info["permuted_test_loss"] == permuted
        )
        assert (abs(loss - permuted) < 1e-5) == isinstance(model, GNN)
    assert {path.name for path in (tmp_path / "runs" / "part3" / "qm9").iterdir()} == {"mlp_seed7", "gnn_seed7"}


def test_with_a_rising_validation_loss_the_first_weights_are_kept(tmp_path, monkeypatch):
    """A learning rate that only makes it worse after the first epoch."""
    values = iter([1.0, 1.0, 2.0, 2.0, 3.0, 3.0])
    real = part3.qm9.train.evaluate_model
    monkeypatch.setattr(part3.qm9.train, "evaluate_model", lambda *a, **k: next(values, None) or real(*a, **k))
    train_here([*FLAT, "--run_dir", tmp_path / "run"], monkeypatch)
    best = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    last = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert best["step"] == 6 and last["step"] == 18
    assert not torch.equal(best["model"]["layers.0.weight"], last["model"]["layers.0.weight"])


def test_schedules():
    assert [schedule("constant", step, 4) for step in range(4)] == [1, 1, 1, 1]
    assert [schedule("cosine", step, 4) for step in range(4)] == pytest.approx([1, 0.853553, 0.5, 0.146447], rel=1e-5)


def test_the_table_arguments_reach_the_table(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table = tmp_path / "table.csv"
    table.write_text("s\te\nC\t-16.3\n")
    words = ["--smiles_csv", str(table), "--smiles_column", "S", "--energy_column", "E", "--energy_unit", "eV"]
    assert read_source(parse_arguments(words), None).energies.item() == pytest.approx(-16.3)
    energy = read_source(parse_arguments([*words, "--energy_kind", "total"]), None).energies.item()
    assert energy == pytest.approx(-16.3 + (37.846772 + 4 * 0.500273) * HARTREE)


def test_a_table_is_refused_in_a_function_as_well():
    with pytest.raises(CommandError):
        parse_arguments(["--dataset", "qm9", "--smiles_csv", "a.csv"])


# ---- the experiment ----


def test_the_comparison_runs_every_model_on_both_sizes():
    plan = qm9.full_plan()
    assert len(plan) == len(set(plan)) == len(qm9.MODELS) * 4
    for settings in qm9.MODELS.values():
        words = []
        for key, value in settings.items():
            words += [f"--{key}"] if value is True else [f"--{key}", str(value)]
        args = parse_arguments(words)
        assert all(getattr(args, key) == value for key, value in settings.items())
    folders = {qm9.training_job(*run, Path("table.csv")).run_dir for run in plan}
    assert len(folders) == len(plan)


def test_a_part_of_the_comparison():
    args = qm9.build_parser().parse_args("--models gnn mlp --num_train 500 --seeds 3 --epochs 2".split())
    assert qm9.chosen_plan(args) == [("GNN", 500, 3), ("MLP", 500, 3)] and args.settings == {"epochs": 2}
    with pytest.raises(CommandError, match="argument --models: invalid choice: 'rnn'"):
        qm9.build_parser().parse_args(["--models", "rnn"])


def test_rings_are_counted():
    molecules = read_built_in()
    kinds = qm9.by_rings(molecules)
    assert sum(kinds.values()).tolist() == [1] * 100
    smiles = [line.split(",")[0] for line in BUILT_IN.read_text().splitlines()[1:]]
    for k, text in enumerate(smiles):
        assert kinds["without rings"][k] == (not any(c.isdigit() for c in text)), text


def test_open_stereo_is_counted():
    """Butane has none, 2-butanol one centre, 2-butene one double bond, tartaric acid two centres."""
    found = qm9.by_stereo(["CCCC", "CCC(C)O", "CC=CC", "OC(=O)C(O)C(O)C(=O)O"])
    assert [name for k in range(4) for name, chosen in found.items() if chosen[k]] == [
        f"with {k} open stereo" for k in ("no", 1, 1, 2)
    ]


def test_molecules_that_look_alike():
    """Decalin and bicyclopentyl are the same to a network that only sees neighbours, but differ in their rings."""
    alike = ["C1CCCC2C1CCCC2", "C1CCCC1C2CCCC2"]
    lines = [f"{text},{-5 - k / 100}" for k, text in enumerate([*alike, "CCCC", "CC(C)C", "CCCC"])]
    table = "\n".join(["smiles,g4mp2_atom", *lines, ""])
    molecules = Molecules(**read_table(table.encode(), "table")["molecules"])
    count, deviation = qm9.twins(molecules, 0)
    assert count == 4 and deviation == pytest.approx(1000 * HARTREE * (0.005 + 0.01) / 2)
    count, deviation = qm9.twins(molecules, 6)
    assert count == 2 and deviation == pytest.approx(1000 * HARTREE * 0.01)  # the two butanes


def test_figures_are_drawn_from_the_committed_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "FIGURES", tmp_path)
    monkeypatch.setattr(sys, "argv", ["qm9.py", "--draw_only"])
    qm9.main()
    assert len(list(tmp_path.iterdir())) == 4 and "figures" in capsys.readouterr().out


def test_figures_of_a_single_short_run(tmp_path):
    def of_one(name):
        rows = experiment.read_results(name)
        return [
            row
            for row in rows
            if (row["model"], row["seed"], row.get("num_train", row.get("subset"))) == ("GNN", 1, 20_000)
        ][:1]

    rows, losses = of_one(qm9.NAME), of_one(f"{qm9.NAME}_curves")
    assert len(rows) == len(losses) == 1
    qm9.draw_curves(rows, losses, tmp_path)
    qm9.draw_errors(rows, tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 2
