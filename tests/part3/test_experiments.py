"""The experiments on graphs: their plans, and their figures of little."""

import pytest

from common import experiment
from common.errors import CommandError
from common.experiment import read_results
from part3.experiments import citation, receptive_field


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


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (citation, ["--datasets", "karate"], "argument --datasets: invalid choice: 'karate'"),
        (citation, ["--runs", "0"], "argument --runs: must be at least 1, not 0"),
        (receptive_field, ["--layers", "0"], "argument --layers: must be at least 1, not 0"),
        (receptive_field, ["--jobs", "2"], "unrecognized arguments: --jobs 2"),
    ],
)
def test_impossible_sweeps_are_refused(script, words, message):
    with pytest.raises(CommandError, match=message):
        script.build_parser().parse_args(words)
