"""part2/generate.py as its users meet it."""

import os
import sys

import pytest
import torch

from tests.harness import ROOT, one_line, run_script

SMALL = [
    "--lstm_num_hidden",
    "16",
    "--embedding_size",
    "8",
    "--batch_size",
    "8",
    "--train_steps",
    "40",
    "--eval_every",
    "20",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    for name, source in (("book", ["--txt_file", "LICENSE"]), ("poems", ["--poems", "builtin"])):
        done = run_script("part2/train.py", *SMALL, *source, "--run_dir", folder / name)
        assert done.returncode == 0, done.stderr
    return folder


def write(checkpoint, *words, **options):
    return run_script("part2/generate.py", "--checkpoint", checkpoint, *words, **options)


def text(*arguments):
    done = write(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_prompt_comes_first_and_length_characters_follow(trained):
    for length in (0, 1, 200):
        written = text(trained / "book", "--prompt", "the copy", "--length", length)
        assert written.startswith("the copy") and len(written) == len("the copy") + length + 1
    assert len(text(trained / "book", "--prompt", "", "--length", 5)) == 7
    assert len(text(trained / "book", "--length", 5)) == 7


def test_it_writes_what_the_model_says(trained):
    from part2.model import load_model

    model, checkpoint = load_model(trained / "book")
    prompt = torch.tensor([[checkpoint["vocabulary"].index(character)] for character in "the copy"])
    expected = "".join(checkpoint["vocabulary"][k] for k in model.complete(prompt, 60)[:, 0])
    words = ["--prompt", "the copy", "--length", 60, "--temperature", 0]
    assert text(trained / "book", *words) == expected + "\n"
    assert text(trained / "book" / "best.pt", *words) == expected + "\n"


def test_seeds_temperatures_and_samples_are_independent(trained):
    def lines(*words):
        return text(trained / "book", "--prompt", "the", "--length", 40, *words)

    assert lines("--seed", 1) == lines("--seed", 1) != lines("--seed", 2)
    assert len({lines("--temperature", tau) for tau in (0, 0.5, 1, 2)}) == 4
    assert lines("--top_k", 1) == lines("--temperature", 0) != lines("--top_k", 5)
    several = text(trained / "book", "--prompt", "the", "copy", "--num_samples", 2, "--length", 10).split("--- ")[1:]
    assert [part.split("\n", 1)[0] for part in several] == [f"'{p}', {k} of 2" for p in ("the", "copy") for k in (1, 2)]
    assert len({part.split("\n", 1)[1] for part in several}) == 4


def test_poems_end_with_their_end(trained):
    written = text(trained / "poems", "--prompt", *"日紅山夜湖海月", "--temperature", 0.5, "--length", 500)
    assert len(written.splitlines()) == 14  # each poem on one line


def test_the_text_comes_as_it_is_written(trained):
    """The first characters are there long before the last, through a pipe."""
    import subprocess

    command = [
        sys.executable,
        "part2/generate.py",
        "--checkpoint",
        str(trained / "book"),
        "--prompt",
        "the",
        "--length",
        "100000000",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert len(process.stdout.read(100)) == 100
        process.stdout.close()  # as `| head` does
        assert process.wait(60) == 0 and process.stderr.read() == b""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--prompt", "the c\u00efpy"],
            "character 6 of 'the c\u00efpy' is '\u00ef' (U+00EF), which the model has never seen",
        ),
        (["--temperature", "-1"], "argument --temperature: must be a finite number of at least 0, not -1"),
        (["--temperature", "nan"], "must be a finite number of at least 0, not nan"),
        (["--length", "-1"], "argument --length: must be at least 0"),
        (["--top_k", "0"], "argument --top_k: must be at least 1"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
    ],
)
def test_bad_input_ends_in_one_line(trained, words, message):
    assert message in one_line(write(trained / "book", *words, env={**os.environ, "PYTHONUTF8": "1"}))


def test_checkpoints_that_hold_no_writer(trained, tmp_path):
    assert "none/checkpoint.pt" not in one_line(write(tmp_path / "none")) and "does not exist" in one_line(
        write(tmp_path / "none")
    )
    assert "checkpoint.pt does not exist: a checkpoint, or a run folder, of part2/train.py is expected" in one_line(
        write(tmp_path)
    )
    good = (trained / "book" / "best.pt").read_bytes()
    (tmp_path / "best.pt").write_bytes(good[:-100])
    assert "best.pt is damaged or not a checkpoint" in one_line(write(tmp_path))
    torch.save({"step": 1, "arguments": {}}, tmp_path / "best.pt")
    assert "holds no text model" in one_line(write(tmp_path))
