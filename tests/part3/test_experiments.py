"""The experiments on graphs: their plans, and their figures of little."""

import pytest
import torch

from common import experiment
from common.errors import CommandError
from common.experiment import read_results
from common.machine import seeded_generator
from part3 import train
from part3.citation import karate_club
from part3.experiments import bots, citation, convolution_attention, depth, receptive_field
from part3.gcn import GCN
from part3.graph import SparseMatrix, add_self_loops, normalise
from tests.harness import sweeps_below
from tests.part3.test_citation import NEEDS


@pytest.mark.parametrize("script", [citation, receptive_field])
def test_figures_are_drawn_from_the_committed_results(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "FIGURES", tmp_path)
    monkeypatch.setattr("sys.argv", [script.__file__, "--draw_only"])
    script.main()
    assert {path.suffix for path in tmp_path.iterdir()} == {".pdf", ".png"}
    assert "results and figure" in capsys.readouterr().out


def test_figures_of_a_single_run(tmp_path):
    citation.draw(read_results(citation.NAME)[:1], tmp_path)
    receptive_field.draw(receptive_field.measure(2, [5]), tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_one_run_has_no_deviation(tmp_path, monkeypatch, capsys):
    accuracies = {"accuracies": [0.5], "epochs": [7], "seconds": 1.0}
    monkeypatch.setattr(
        citation, "run_sweep", lambda jobs, _: {run: (job.run_dir, accuracies) for run, job in jobs.items()}
    )
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    words = "--datasets pubmed --models gcn --splits random --runs 1"
    monkeypatch.setattr("sys.argv", ["citation", *words.split()])
    citation.main()
    assert "pubmed, random, gcn: 50.00 (1 runs)" in capsys.readouterr().out
    assert (tmp_path / "runs" / "part3" / "citation" / "part3_citation.pdf").exists()


def test_the_whole_sweep_keeps_its_runs():
    args = citation.build_parser().parse_args(["--draw_only"])
    assert (
        args.whole
        and citation.training_job("cora", "public", "gat").with_settings(args.settings).run_dir.name
        == "cora_public_gat"
    )


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    return sweeps_below(tmp_path, train, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("script", "words", "names"),
    [
        (depth, "--dataset karate --layers 2 --seeds 1 --epochs 2", ["part3_depth"]),
        pytest.param(
            convolution_attention,
            "--models attention --runs 1 --epochs 2",
            ["part3_convolution_attention", "part3_convolution_attention_curves"],
            marks=NEEDS["cora"],
        ),
    ],
)
def test_the_smallest_sweep_is_drawn_beside_its_runs(script, words, names, sweep, tmp_path):
    """And again from the finished runs."""
    printed = sweep(script, words)
    results = tmp_path / "runs" / "part3" / names[0].removeprefix("part3_")
    figures = {f"{names[0]}.pdf", f"{names[0]}.png"}
    assert {path.name for path in results.iterdir()} == figures | {
        f"{name}.{suffix}" for name in names for suffix in ("csv", "json")
    }
    (results / f"{names[0]}.pdf").unlink()
    assert printed.endswith(sweep(script, words + " --draw_only")) and (results / f"{names[0]}.pdf").exists()
    assert all("_epochs_2" in run.parent.name for run in tmp_path.rglob("result.json"))


def test_the_depth_of_a_run_is_measured_at_the_weights_that_were_tested(sweep, tmp_path):
    sweep(depth, "--dataset karate --models gcn --layers 2 --seeds 4 --epochs 30")
    (row,) = read_results(depth.NAME, tmp_path / "runs" / "part3" / "depth")
    club = karate_club()
    A_hat, model = normalise(add_self_loops(club.A)), GCN([34, 32, 2], generator=seeded_generator(4, "weights")).eval()
    distances = [depth.mean_distance(model.embed(A_hat, club.features))]
    model.load_state_dict(torch.load(next(tmp_path.rglob("checkpoint.pt")), weights_only=True)["model"])
    distances.append(depth.mean_distance(model.embed(A_hat, club.features)))
    assert [row["distance_initial"], row["distance_trained"]] == [pytest.approx(d, rel=1e-5) for d in distances]
    correct = (model(A_hat, club.features).argmax(dim=1) == club.labels).double()
    assert row["accuracy"] == pytest.approx(correct[club.test].mean().item())
    assert row["training_accuracy"] == pytest.approx(correct[club.train].mean().item())


def test_the_distance_of_nodes_is_the_mean_over_pairs():
    H = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = [1 - torch.cosine_similarity(H[i], H[j], dim=0) for i in range(6) for j in range(6) if i != j]
    assert depth.mean_distance(H) == pytest.approx(sum(pairs).item() / 30)
    dead = torch.cat([H, torch.zeros(2, 3)])  # nodes without a direction
    assert depth.mean_distance(dead) == pytest.approx(depth.mean_distance(H))
    number = torch.arange(4)
    assert depth.mean_distance(SparseMatrix(number, number, torch.ones(4), (4, 4))) == pytest.approx(1)  # orthogonal
    assert depth.mean_distance(torch.ones(5, 2)) == pytest.approx(0)
    assert depth.mean_distance(torch.zeros(5, 2)) == 0


def test_attention_to_bots_is_compared_with_an_equal_share():
    """Person 0 hears person 1, bot 600 and itself; person 1 hears bot 601 and itself."""
    edges = torch.tensor([[1, 600, 0, 601, 1, 600, 601], [0, 0, 0, 1, 1, 600, 601]])
    attention = torch.tensor([0.5, 0.2, 0.3, 0.4, 0.6, 1.0, 1.0])
    share, told_apart = bots.attention_to_bots(edges, attention)
    assert share == pytest.approx((3 * 0.2 + 2 * 0.4) / 2)
    assert told_apart == 1  # the friend's edge has 1.5 times an equal share, those of bots 0.6 and 0.8


def test_the_social_graph_is_what_its_numbers_say():
    A, x, labels = bots.social_graph(bots.GIVEN_AWAY, torch.Generator().manual_seed(0))
    assert A.shape == (750, 750) and labels.bincount(minlength=3)[2] == bots.BOTS
    friends = A.to_dense()[: bots.PEOPLE, : bots.PEOPLE]
    same = labels[: bots.PEOPLE, None] == labels[None, : bots.PEOPLE]
    assert friends.sum(1).mean() == pytest.approx(bots.FRIENDS, rel=0.1)
    assert (friends * same).sum() / friends.sum() == pytest.approx(bots.SAME_OPINION, abs=0.02)
    assert A.row_sums()[bots.PEOPLE :].mean() == pytest.approx(bots.BEFRIENDED, rel=0.02)  # drawn twice counts once
    assert x[bots.PEOPLE :, 1].mean() - x[: bots.PEOPLE, 1].mean() == pytest.approx(bots.GIVEN_AWAY, abs=0.3)


def test_bots_with_mean_weights_get_an_equal_share(sweep, tmp_path):
    sweep(bots, "--seeds 3 --epochs 2")
    rows = read_results(bots.NAME, tmp_path / "runs" / "part3" / "bots")
    assert len(rows) == 8 and {row["seed"] for row in rows} == {3}
    for row in rows:
        is_mean = row["weights"] == "mean"
        assert (row["share"] == 1 and row["told_apart"] == 0.5) == is_mean and 0 <= row["accuracy"] <= 1


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (citation, ["--datasets", "karate"], "argument --datasets: invalid choice: 'karate'"),
        (citation, ["--runs", "0"], "argument --runs: must be at least 1, not 0"),
        (receptive_field, ["--layers", "0"], "argument --layers: must be at least 1, not 0"),
        (receptive_field, ["--jobs", "2"], "unrecognized arguments: --jobs 2"),
        (depth, ["--models", "gat"], "argument --models: invalid choice: 'gat'"),
        (depth, ["--dataset", "facebook"], "argument --dataset: invalid choice: 'facebook'"),
        (convolution_attention, ["--epochs", "0"], "argument --epochs: must be at least 1, not 0"),
        (bots, ["--seeds", "-1"], "argument --seeds: must be at least 0, not -1"),
    ],
)
def test_impossible_sweeps_are_refused(script, words, message):
    with pytest.raises(CommandError, match=message):
        script.build_parser().parse_args(words)
