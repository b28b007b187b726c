"""What users give by mistake, or others by intent, ends in one line and exit code 2: tables of it, for every script."""

import argparse
import functools
import importlib
import io
import json
import math
import os
import random
import zipfile

import pytest
import torch

from common.errors import CommandError
from tests.harness import POSIX, ROOT

pytestmark = POSIX
SCRIPTS = ("part1.train", "part2.train", "part3.train", "part3.qm9.train", "part4.train", "part4.train_numpy")
OTHERS = ("part2.generate", "part2.download")
VALUES = (
    *(
        "",
        " ",
        "x",
        "-1",
        "0",
        "0.5",
        "1.5",
        "1e3",
        "nan",
        "inf",
        "-inf",
        "1e308",
        "1e-320",
        "1e999",
        "9" * 30,
        "9" * 5000,
    ),
    *("2147483647", "2147483648", "9223372036854775807", "18446744073709551616", "0x10", "1_0", "١", "None", "True"),
    *("a\nb", "\x1b[31m", "\udcff", "é", "--", "-", "a b", "/dev/null", "~", "*", "a/" * 2000, "x" * 5000),
)


def small(module):
    """The arguments of a training that takes a moment."""
    return {
        "part1.train": ["--train_steps", "4", "--num_hidden", "8", "--batch_size", "4", "--eval_every", "2"],
        "part2.train": ["--train_steps", "4", "--lstm_num_hidden", "8", "--batch_size", "4", "--eval_every", "2"],
        "part3.train": ["--epochs", "3", "--runs", "2"],
        "part3.qm9.train": ["--epochs", "2", "--mlp_hidden_dims", "8"],
        "part4.train": ["--dataset", "synthetic", "--num_train", "40", "--batch_size", "20", "--epochs", "2"],
        "part4.train_numpy": ["--num_train", "40", "--batch_size", "20", "--num_epochs", "2", "--channels", "2"],
    }[module]


@pytest.mark.parametrize("module", [*SCRIPTS, *OTHERS])
def test_every_argument_with_every_value(module):
    """A parser takes a value or refuses it in words; 35 values for each of some 140 arguments."""
    build_parser = importlib.import_module(module).build_parser
    needed = {"part2.generate": ["--checkpoint", "run"], "part2.download": ["grimm"]}.get(module, [])
    for action in build_parser()._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        for value in VALUES:
            words = [f"{action.option_strings[0]}={value}"] if action.option_strings else [value]
            try:
                parsed = getattr(build_parser().parse_args([*needed, *words]), action.dest)
            except CommandError as refusal:
                assert str(refusal)
                continue
            for one in parsed if isinstance(parsed, list) else [parsed]:
                if isinstance(one, float):
                    assert one == 0 or 1e-31 < abs(one) < 1e31 or 0 < one < 1
                if isinstance(one, int):
                    assert 0 <= one < 2**63


LARGEST = str(2**31 - 1)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("part1.train", ["--num_hidden", LARGEST]),
        ("part1.train", ["--num_hidden", "30000"]),
        ("part1.train", ["--input_length", LARGEST]),
        ("part1.train", ["--dataset", "randomcomb", "--input_length", LARGEST]),
        ("part1.train", ["--dataset", "bipalindrome", "--input_length", LARGEST]),
        ("part1.train", ["--batch_size", LARGEST]),
        ("part1.train", ["--num_classes", LARGEST]),
        ("part1.train", ["--input_length", "1000000", "--batch_size", "10000"]),
        ("part2.train", ["--lstm_num_hidden", LARGEST]),
        ("part2.train", ["--lstm_num_hidden", "30000"]),
        ("part2.train", ["--embedding_size", LARGEST]),
        ("part2.train", ["--lstm_num_layers", "2000000", "--lstm_num_hidden", "1000"]),
        ("part2.train", ["--batch_size", "100000000"]),
        ("part2.train", ["--seq_length", "100000", "--batch_size", "100000"]),
        ("part3.train", ["--num_hidden", LARGEST]),
        ("part3.train", ["--model", "gat", "--heads", LARGEST]),
        ("part3.train", ["--num_hidden", "40000", "--num_layers", "4"]),
        ("part3.qm9.train", ["--mlp_hidden_dims", LARGEST, LARGEST]),
        ("part3.qm9.train", ["--model", "gnn", "--gnn_hidden_dims", LARGEST]),
        ("part4.train_numpy", ["--channels", LARGEST]),
        ("part4.train_numpy", ["--channels", "100000", "100000"]),
    ],
)
def test_sizes_beyond_memory(tried, tmp_path, module, words):
    """With 1.5 GB for it: no traceback, and no run folder that would have to be removed before the next try."""
    line = tried(module, *small(module), *words, "--run_dir", tmp_path / "run", memory=1500).line
    assert "there is not enough memory for this" in line


@pytest.mark.parametrize("module", SCRIPTS)
@pytest.mark.parametrize("words", [["--seed", str(2**63 - 1)], ["--lr", "1e30"], ["--lr", "1e-30"]])
def test_the_largest_and_smallest_numbers(tried, tmp_path, module, words):
    """They train, or diverge with exit code 1."""
    ending = tried(module, *small(module), *words, "--run_dir", tmp_path / "run")
    assert ending.code in (0, 1) and (ending.code == 0 or "diverged" in ending.line), ending


@pytest.mark.parametrize(
    "device", ["mps", "xpu", "meta", "mkldnn", "vulkan", "privateuseone", "hpu", "", "a\nb", "cuda:-1"]
)
def test_devices_that_are_not_here(tried, tmp_path, device):
    for module in ("part1.train", "part3.qm9.train"):
        ending = tried(module, *small(module), "--run_dir", tmp_path / "run", "--device", device)
        assert "cannot be used here" in ending.line
    assert not list(tmp_path.iterdir())


def test_a_text_model_that_diverges(tried, tmp_path):
    """Its held-out loss of thousands of nats has a perplexity beyond all floats."""
    words = ["--optimizer", "sgd", "--learning_rate", "1000", "--txt_file", "LICENSE", "--max_norm", "1e30"]
    ending = tried("part2.train", *small("part2.train"), *words, "--run_dir", tmp_path / "run")
    assert ending.code in (0, 1) and "Traceback" not in ending.err, ending


# Input files

INPUTS = {
    "part2.train": ["--txt_file", "--poems"],
    "part3.qm9.train": ["--smiles_csv"],
    "part2.generate": ["--checkpoint"],
}
ASKED = [(module, flag) for module, flags in INPUTS.items() for flag in flags]


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """A folder of things that are no files one could read."""
    folder = tmp_path_factory.mktemp("strange")
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (folder / "circle").symlink_to("back")
    (folder / "back").symlink_to("circle")
    (folder / "dangling").symlink_to("nothing")
    (folder / "folder").mkdir()
    return folder


@pytest.mark.parametrize(("module", "flag"), ASKED)
@pytest.mark.parametrize(
    "name",
    [
        *("pipe", "loop", "circle", "dangling", "folder", "loop/text", "none", "none/text", "a\nb", "\x1b[31m"),
        *("/dev/zero", "/dev/null", "/dev/full", "/dev/stdin", "x" * 300, "/proc/self/mem"),
    ],
)
def test_input_that_is_no_regular_file(tried, tmp_path, strange, module, flag, name):
    ending = tried(
        module, flag, strange / name, *([] if module == "part2.generate" else ["--run_dir", tmp_path / "run"])
    )
    assert ending.line and ending.code == 2, ending
    assert not (tmp_path / "run").exists()


GARBAGE = {
    "empty": b"",
    "a NUL": b"smiles,u0\nC\0,1\n" * 10,
    "random bytes": random.Random(0).randbytes(5000),
    "Latin-1": "Müßiggang ist aller Laster Anfang. ".encode("latin-1") * 100,
    "a cut UTF-8": "日".encode() * 100 + b"\xe6\x97",
    "one line of a megabyte": b"x" * 2**20,
    "deep JSON": b"[" * 100_000,
    "deep objects": b'{"paragraphs":' * 50_000,
    "a JSON number": b"7",
    "JSON of another form": b'[{"paragraphs": 7}, {"paragraphs": [7]}]',
    "half of a zip": b"PK\x03\x04" + b"\0" * 100,
    "an end of a zip": b"PK\x05\x06" + b"\xff" * 18,
    "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x08echo bad\x85R.",
    "a text of one character": b"x",
    "CSV with a quote that never ends": b'smiles,u0\n"C,1\n' + b"C,1\n" * 1000,
    "a header alone": b"smiles,u0\n",
}


@pytest.mark.parametrize(("module", "flag"), ASKED)
@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("ending", ["", ".zip"])
def test_input_files_that_hold_something_else(tried, tmp_path, module, flag, content, ending):
    """A text of one long line can be trained on; all else is refused, and nothing is left behind."""
    path = tmp_path / f"input{ending}"
    path.write_bytes(content)
    words = [] if module == "part2.generate" else [*small(module), "--run_dir", tmp_path / "run"]
    found = tried(module, flag, path, *words)
    if found.code:
        assert found.line and found.code == 2 and not (tmp_path / "run").exists()
    else:
        assert flag == "--txt_file" and "Traceback" not in found.err


def zip_of(members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


POEMS = zip_of({"poems.json": (ROOT / "part2" / "assets" / "quatrains.json").read_bytes()})


@pytest.mark.parametrize("place", [*range(0, len(POEMS), len(POEMS) // 30), *range(len(POEMS) - 80, len(POEMS), 7)])
def test_a_zip_with_one_flipped_byte(tried, tmp_path, place):
    damaged = bytearray(POEMS)
    damaged[place] ^= 0xFF
    (tmp_path / "poems.zip").write_bytes(damaged)
    words = [*small("part2.train"), "--sample_length", "3", "--run_dir", tmp_path / "run"]
    ending = tried("part2.train", "--poems", tmp_path / "poems.zip", *words)
    assert ending.code == 0 or (ending.line and ending.code == 2), ending  # not every byte matters


def test_archives_that_unpack_to_more_than_memory(tried, tmp_path):
    """Two GiB of zeros in two MB: refused at once, by what the archive says of itself."""
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(9):
            archive.writestr(f"{number}.json", bytes(2**27))
    (tmp_path / "bomb.pt").write_bytes((tmp_path / "bomb.zip").read_bytes())
    words = [*small("part2.train"), "--run_dir", tmp_path / "run"]
    assert "unpacks to more than" in tried("part2.train", "--poems", tmp_path / "bomb.zip", *words, memory=500).line
    assert "is damaged" in tried("part2.generate", "--checkpoint", tmp_path / "bomb.pt", memory=500).line


# Run folders


@pytest.fixture(scope="module")
def runs(tried, tmp_path_factory):
    """A finished run of every script."""
    folder = tmp_path_factory.mktemp("runs")
    for module in SCRIPTS:
        ending = tried(module, *small(module), "--run_dir", folder / module)
        assert ending.code == 0, ending
    return folder


def copy_of(run, folder):
    folder.mkdir()
    for path in run.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "a byte": lambda content: content[: len(content) // 3] + b"\xff" + content[len(content) // 3 + 1 :],
    "its end": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "another": lambda content: b'{"step": 7}',
    "longer": lambda content: content + b"more",
}


SLOW_SCRIPTS = [pytest.param(module, marks=pytest.mark.slow) for module in SCRIPTS[1:]]
FILES = ("checkpoint.pt", "checkpoint.previous.pt", "best.pt", "metrics.csv", "config.json", "result.json", ".lock")


@pytest.mark.parametrize("module", [SCRIPTS[0], *SLOW_SCRIPTS])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_run_folders(tried, runs, tmp_path, module, damage):
    """Each file of a run in turn: resumed all the same, or refused in one line that changes nothing."""
    for name in FILES:
        if (runs / module / name).exists():
            run = copy_of(runs / module, tmp_path / name)
            (run / name).write_bytes(DAMAGES[damage]((run / name).read_bytes()))
            ending = tried(module, *small(module), "--run_dir", run, "--resume")
            if ending.code:
                assert ending.line and name.endswith(".pt"), (name, ending)
            else:
                assert "Traceback" not in ending.err and ending.err.count("\n") <= 1, (name, ending)
                assert (run / "result.json").stat().st_size > 20


@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.csv", "config.json", "result.json", ".lock"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "link"])
def test_run_folders_with_something_else_in_the_place_of_a_file(tried, runs, tmp_path, name, kind):
    run = copy_of(runs / "part1.train", tmp_path / "run")
    (run / name).unlink(missing_ok=True)
    (tmp_path / "mine").write_text("mine")
    if kind == "folder":
        (run / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(run / name)
    else:
        (run / name).symlink_to({"loop": name, "link": tmp_path / "mine"}[kind])
    ending = tried("part1.train", *small("part1.train"), "--run_dir", run, "--resume")
    assert ending.code == 0 or (ending.line and ending.code == 2), ending
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_run_of_another_part_is_named(tried, runs):
    for mine, other in zip(SCRIPTS, SCRIPTS[1:] + SCRIPTS[:1]):
        line = tried(mine, *small(mine), "--run_dir", runs / other, "--resume").line
        assert f"holds a run of {other.replace('.', '/')}.py, not of {mine.replace('.', '/')}.py" in line


FORGED = {
    "no step": lambda c: c.pop("step"),
    "a text as step": lambda c: c.update(step="7"),
    "a negative step": lambda c: c.update(step=-7) or c["state"].update(step=-7),
    "another step in the state": lambda c: c["state"].update(step=2.5),
    "a list as arguments": lambda c: c.update(arguments=[]),
    "numbers as names": lambda c: c.update(arguments={1: 2}),
    "no state": lambda c: c.pop("state"),
    "a text as state": lambda c: c.update(state="x"),
    "a state with more": lambda c: c["state"].update(more=1),
    "a state of another kind": lambda c: c["state"].update(seconds="x"),
    "a tensor as state": lambda c: c.update(state=torch.zeros(3)),
    "no model": lambda c: c.pop("model"),
    "an empty model": lambda c: c.update(model={}),
    "a model of numbers": lambda c: c.update(model={name: 7 for name in c["model"]}),
    "transposed weights": lambda c: c.update(model={name: w.t() for name, w in c["model"].items() if w.dim() < 3}),
    "half of the weights": lambda c: c["model"].popitem(),
    "no optimizer": lambda c: c.pop("optimizer"),
    "an optimizer of another model": lambda c: c.update(optimizer={"state": {}, "param_groups": []}),
    "no vocabulary": lambda c: c.pop("vocabulary"),
    "numbers as vocabulary": lambda c: c.update(vocabulary=[1, 2, 3]),
    "a shorter vocabulary": lambda c: c.update(vocabulary="abc"),
    "no end": lambda c: c.pop("end"),
    "a number as end": lambda c: c.update(end=7),
    "NaN": lambda c: c["model"].update({name: w * math.nan for name, w in c["model"].items()}),
    "huge sizes": lambda c: c["arguments"].update(lstm_hidden_dim=2**40, embedding_size=2**40),
    "many layers": lambda c: c["arguments"].update(lstm_num_layers=10**9),
    "sizes that are none": lambda c: c["arguments"].update(lstm_hidden_dim="8"),
    "a tensor of 10^12 numbers, all the same": lambda c: c["model"].update(
        {name: torch.zeros(1).expand(10**6, 10**6) for name in c["model"]}
    ),
    "complex weights": lambda c: c["model"].update({name: w + 1j for name, w in c["model"].items()}),
    "an eval_every of 0": lambda c: c.update(eval_every=0),
    "a text as eval_every": lambda c: c.update(eval_every="x"),
    "no recurrence": lambda c: c.update(recurrence={}),
    "another recurrence": lambda c: c.update(recurrence={"name": "x"}),
    "a list as recurrence": lambda c: c.update(recurrence=[1]),
    "no rows": lambda c: c.update(metrics_rows="x"),
    "a script that is none": lambda c: c.update(script=7),
}


@pytest.mark.parametrize("name", FORGED)
def test_checkpoints_made_by_hand(tried, runs, tmp_path, name):
    """Of a text model: resumed, and written with."""
    run = copy_of(runs / "part2.train", tmp_path / "run")
    content = torch.load(run / "checkpoint.pt", weights_only=True)
    FORGED[name](content)
    torch.save(content, run / "checkpoint.pt")
    endings = [
        tried("part2.generate", "--checkpoint", run / "checkpoint.pt", "--length", 5, memory=1000),
        tried("part2.train", *small("part2.train"), "--train_steps", 6, "--run_dir", run, "--resume", memory=1000),
    ]
    for ending in endings:
        assert ending.code == 0 or ending.line, ending
    assert any(ending.code for ending in endings) or name in ("no rows", "no recurrence"), endings


def test_checkpoints_with_code_in_them_are_not_run(tried, tmp_path):
    torch.save({"step": 1, "arguments": functools.partial(print, "owned")}, tmp_path / "x.pt")
    assert "is damaged or not a checkpoint" in tried("part2.generate", "--checkpoint", tmp_path / "x.pt").line


def test_folders_that_cannot_be_written(tried, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nothing")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", "/dev/null", "/dev/null/run", "/proc/run", "x" * 300):
        assert tried("part1.train", *small("part1.train"), "--run_dir", folder, cwd=tmp_path).code == 2
    assert (tmp_path / "file").read_text() == "mine"
    for word in ("--run_dir", "--summary_path"):
        assert "must not be empty" in tried("part1.train", word, "").line


def test_names_of_files_that_are_no_text(tried, tmp_path):
    """Bytes that are not UTF-8, and a terminal's escapes: they train, and what is printed stays harmless."""
    for name in (os.fsdecode(b"caf\xe9"), "\x1b[31mred", "two\nlines", "a 'quoted' name", "日本"):
        path = tmp_path / f"{name}.txt"
        path.write_bytes((ROOT / "LICENSE").read_bytes())
        run = tmp_path / f"{name.encode(errors='replace').decode()} run"
        ending = tried("part2.train", *small("part2.train"), "--txt_file", path, "--run_dir", run)
        assert ending.code == 0 and not ending.err, ending
        assert ending.out.replace("\n", "").isprintable() or "\udcff" in ending.out
        assert json.loads((run / "config.json").read_text(encoding="utf-8"))["arguments"]["txt_file"] == str(path)
    unnamed = tmp_path / os.fsdecode(b"\xff")
    assert "TensorBoard wants a name in UTF-8" in tried("part1.train", "--run_dir", unnamed).line
