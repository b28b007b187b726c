"""Experiments: their arguments, jobs that run once, and result files."""

import json

import pytest

from common import experiment
from common.command import non_negative_int
from common.errors import CommandError
from common.experiment import ExperimentParser, read_results, run_jobs, run_sweep, write_results
from common.jobs import Executor, Job

SCRIPT = """
import json, pathlib, sys
flag = "--twice" in sys.argv
rest = [word for word in sys.argv[1:] if word != "--twice"]
words = dict(zip(rest[::2], rest[1::2]))
folder = pathlib.Path(words["--run_dir"])
if words["--size"] == "13":
    print("first line\\nscript: thirteen is too much", file=sys.stderr)
    sys.exit(2)
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "calls", "a") as file:
    file.write("x")
(folder / "config.json").write_text(json.dumps({"arguments": {"size": int(words["--size"]), "twice": flag}}))
(folder / "result.json").write_text(json.dumps({"square": int(words["--size"]) ** 2 * (2 if flag else 1)}))
"""


@pytest.fixture
def clean_tree(monkeypatch):
    monkeypatch.setattr(experiment, "working_tree", lambda: ("1234", []))


def parse(*words):
    parser = ExperimentParser("Doc.", "part/sweep")
    parser.add_selection("--models", ("a", "b"), "which", choices=("a", "b"))
    parser.add_selection("--sizes", None, "which (default: 1 2; of b 1)", type=non_negative_int)
    parser.add_setting("--epochs", "--num_epochs", dest="num_epochs", type=int, default=10, help="passes")
    parser.add_setting("--dataset", help="images")
    parser.add_sweep_argument("--name", default="part", help="prefix")
    return parser.parse_args(words)


def test_the_parser_makes_an_executor():
    args = parse("--sizes", "3", "--jobs", "3")
    assert args.executor == Executor("local", jobs=3) and args.draw_only is False
    with pytest.raises(CommandError, match="argument --gpus: only with --executor slurm"):
        parse("--gpus", "1")


@pytest.mark.parametrize("words", ["", "--models b a b", "--num_epochs 10", "--jobs 2", "--name part"])
def test_the_whole_sweep_writes_the_committed_results(words, clean_tree):
    """Its arguments may be given, in any order, as long as they are the defaults."""
    args = parse(*words.split())
    assert args.whole and not args.settings and args.models == ("a", "b")
    assert (args.results, args.figures) == (experiment.RESULTS, experiment.FIGURES)


@pytest.mark.parametrize("words", ["--models b", "--sizes 1 2", "--epochs 9", "--dataset x", "--name mine"])
def test_any_other_sweep_keeps_its_results_with_its_runs(words):
    args = parse(*words.split())
    assert not args.whole
    assert args.results == args.figures == experiment.ROOT / "runs" / "part" / "sweep"


def test_chosen_values_are_sorted_and_none_is_there_twice():
    args = parse("--sizes", "10", "9", "10", "--models", "a")
    assert args.sizes == (9, 10) and args.models == ("a",)


def test_only_the_whole_sweep_is_drawn_from_the_committed_results():
    assert parse("--draw_only").committed and not parse("--draw_only", "--models", "a").committed


def test_a_part_may_add_to_the_committed_results(clean_tree):
    parser = ExperimentParser("Doc.", "part/sweep")
    parser.add_selection("--models", ("a", "b"), "which", choices=("a", "b"))
    parser.add_setting("--epochs", type=int, default=10, help="passes")
    assert not parser.parse_args(["--models", "a"]).add
    parser.let_parts_add()
    args = parser.parse_args(["--models", "a", "--add"])
    assert args.add and not args.whole and not args.committed
    assert (args.results, args.figures) == (experiment.RESULTS, experiment.FIGURES)
    for words in (["--epochs", "9"], ["--draw_only"]):
        with pytest.raises(CommandError, match="argument --add: only runs with the sweep's own settings can be added"):
            parser.parse_args([*words, "--add"])


def test_what_adds_to_the_committed_results_starts_from_a_clean_tree(monkeypatch):
    monkeypatch.setattr(experiment, "working_tree", lambda: ("1234", ["part1/train.py"]))
    parser = ExperimentParser("Doc.", "part/sweep")
    parser.add_selection("--models", ("a", "b"), "which", choices=("a", "b"))
    parser.let_parts_add()
    with pytest.raises(CommandError, match=r"^part1/train\.py is not as committed"):
        parser.parse_args(["--models", "a", "--add"])


def test_the_whole_sweep_does_not_start_in_a_changed_tree(monkeypatch):
    monkeypatch.setattr(experiment, "working_tree", lambda: ("1234", ["part1/train.py", "part2/train.py"]))
    with pytest.raises(CommandError, match=r"^part1/train\.py is not as committed.*add --allow_dirty$"):
        parse()
    for words in ("--allow_dirty", "--draw_only", "--models a", "--epochs 1"):
        parse(*words.split())


def test_jobs_run_once_and_results_keep_their_order(tmp_path):
    one, two = Executor(jobs=1), Executor(jobs=2)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    jobs = [Job(str(script), tmp_path / f"run{size}", {"size": size}) for size in (3, 1, 2)]
    for _ in range(2):
        assert run_jobs(jobs, two) == [{"square": 9}, {"square": 1}, {"square": 4}]
    assert (tmp_path / "run3" / "calls").read_text() == "x"
    assert run_jobs([Job(str(script), tmp_path / "flag", {"size": 3, "twice": True})], one) == [{"square": 18}]
    with pytest.raises(CommandError, match="run3 holds a run with --size 3, not 4"):
        run_jobs([Job(str(script), tmp_path / "run3", {"size": 4})], one)
    with pytest.raises(CommandError, match="exit code 2: script: thirteen is too much"):
        run_jobs([Job(str(script), tmp_path / "run13", {"size": 13})], one)


def test_runs_with_other_settings_have_other_folders(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    jobs = {k: Job(str(tmp_path / "script.py"), tmp_path / f"lr_0.{k}", {"size": k}) for k in (3, 1)}
    args = parse("--models", "a")
    assert run_sweep(jobs, args)[3] == (tmp_path / "lr_0.3", {"square": 9})
    args.settings = {"size": 5}
    found = run_sweep(jobs, args)
    assert list(found) == [3, 1] and found[1] == (tmp_path / "lr_0.1_size_5", {"square": 25})
    assert run_sweep(jobs, parse("--models", "a"))[1].result == {"square": 1}


def test_draw_only_starts_no_run_and_finds_those_that_are_finished(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    jobs = {k: Job(str(tmp_path / "script.py"), tmp_path / f"run{k}", {"size": k}) for k in (3, 1)}
    with pytest.raises(CommandError, match="no run of this sweep is finished"):
        run_sweep(jobs, parse("--models", "a", "--draw_only"))
    run_jobs([jobs[1]], Executor())
    assert list(run_sweep(jobs, parse("--models", "a", "--draw_only"))) == [1]
    assert not jobs[3].run_dir.exists()


def test_results_come_back_with_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("common.experiment.RESULTS", tmp_path)
    rows = [{"model": "RNN", "T": 5, "accuracy": 0.5, "converged": True}]
    write_results("table", rows, seeds=[0])
    assert read_results("table") == [{"model": "RNN", "T": 5, "accuracy": 0.5, "converged": "True"}]
    assert json.loads((tmp_path / "table.json").read_text())["seeds"] == [0]
    write_results("table", [{"T": 6}], tmp_path / "mine")
    assert read_results("table", tmp_path / "mine") == [{"T": 6}] and read_results("table")[0]["T"] == 5
    with pytest.raises(CommandError, match="does not exist"):
        read_results("other")
    (tmp_path / "table.csv").write_text("")
    with pytest.raises(CommandError, match="holds no results"):
        read_results("table")
