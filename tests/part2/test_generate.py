"""part2/generate.py as its users meet it."""

import subprocess
import sys

import pytest
import torch

from part2.dataset import decode, encode
from part2.generate import before
from part2.model import choose, load_model
from tests.harness import POSIX, ROOT

pytestmark = POSIX
SMALL = "--lstm_num_hidden 16 --embedding_size 8 --batch_size 8 --train_steps 40 --eval_every 20".split()


@pytest.fixture(scope="module")
def trained(tried, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    for name, source in (("book", ["--txt_file", "LICENSE"]), ("poems", ["--poems", "builtin"])):
        ending = tried("part2.train", *SMALL, *source, "--run_dir", folder / name)
        assert ending.code == 0, ending.err
    return folder


@pytest.fixture
def write(tried):
    return lambda checkpoint, *words: tried("part2.generate", "--checkpoint", checkpoint, *words)


@pytest.fixture
def text(write):
    def written(*words):
        ending = write(*words)
        assert (ending.code, ending.err) == (0, "")
        return ending.out

    return written


def test_the_prompt_comes_first_and_length_characters_follow(text, trained):
    for length in (0, 1, 200):
        written = text(trained / "book", "--prompt", "the copy", "--length", length)
        assert written.startswith("the copy") and len(written) == len("the copy") + length + 1
    assert len(text(trained / "book", "--prompt", "", "--length", 5)) == 7
    assert len(text(trained / "book", "--length", 5)) == 7


def test_it_writes_what_the_model_says(text, trained):
    model, checkpoint = load_model(trained / "book")
    prompt = torch.tensor([[checkpoint["vocabulary"].index(character)] for character in "the copy"])
    expected = "".join(checkpoint["vocabulary"][k] for k in model.complete(prompt, 60)[:, 0])
    words = ["--prompt", "the copy", "--length", 60, "--temperature", 0]
    assert text(trained / "book", *words) == expected + "\n"
    assert text(trained / "book" / "best.pt", *words) == expected + "\n"


def test_seeds_temperatures_and_samples_are_independent(text, trained):
    def lines(*words):
        return text(trained / "book", "--prompt", "the", "--length", 40, *words)

    assert lines("--seed", 1) == lines("--seed", 1) != lines("--seed", 2)
    assert len({lines("--temperature", tau) for tau in (0, 0.5, 1, 2)}) == 4
    assert lines("--top_k", 1) == lines("--temperature", 0) != lines("--top_k", 5)
    several = text(trained / "book", "--prompt", "the", "copy", "--num_samples", 2, "--length", 10).split("--- ")[1:]
    assert [part.split("\n", 1)[0] for part in several] == [f"'{p}', {k} of 2" for p in ("the", "copy") for k in (1, 2)]
    assert len({part.split("\n", 1)[1] for part in several}) == 4


def test_top_p_narrows_the_choice(text, trained):
    def lines(*words):
        return text(trained / "book", "--prompt", "the", "--length", 40, *words)

    assert lines("--top_p", 1) == lines() == lines("--temperature", 0.5, "--seed", 0)
    assert lines("--top_p", 1e-9) == lines("--temperature", 0) != lines("--top_p", 0.9)


def test_beams_write_the_likeliest_texts(text, trained):
    model, checkpoint = load_model(trained / "book")
    prompts, vocabulary = ("the copy", "copy"), checkpoint["vocabulary"]
    expected = ""
    for prompt in prompts:
        texts, log_p, _ = model.beam_search(torch.tensor(encode(prompt, vocabulary)).unsqueeze(1), 30, beam_size=4)
        for k in range(2):
            written = decode(texts[:, 0, k], vocabulary)
            expected += f"--- {prompt!r}, {k + 1} of 2, log-probability {log_p[0, k] / 30:.3f} a character\n{written}\n"
    words = ["--length", 30, "--beam_size", 4]
    assert text(trained / "book", *words, "--num_samples", 2, "--prompt", *prompts) == expected
    assert text(trained / "book", *words, "--prompt", "the copy") == expected.splitlines()[1] + "\n"
    greedy = text(trained / "book", "--prompt", "the copy", "--temperature", 0)
    assert text(trained / "book", "--prompt", "the copy", "--beam_size", 1) == greedy


def test_beams_from_a_random_character(text, trained):
    """Only there a seed has something to draw."""
    first = {text(trained / "book", "--beam_size", 2, "--length", 0, "--seed", seed) for seed in range(9)}
    assert len(first) > 3 and all(len(written) == 2 for written in first)


def test_beams_end_where_they_should(text, trained):
    """A poem's end and --stop end the search of a text, so that they count in its log-probability."""
    words = ["--prompt", *"日紅", "--beam_size", 3, "--num_samples", 3, "--length", 60]
    poems = text(trained / "poems", *words)
    assert len(poems.splitlines()) == 12 and "□" not in text(trained / "poems", *words, "--no_rare")
    model, checkpoint = load_model(trained / "book")
    vocabulary, prompt = checkpoint["vocabulary"], torch.tensor([encode("t", checkpoint["vocabulary"])])
    stop = decode(model.complete(prompt, 40)[20:22, 0], vocabulary)
    texts, _, lengths = model.beam_search(prompt, 40, 2, [encode(stop, vocabulary)])
    added = [decode(texts[1 : 1 + lengths[0, k], 0, k], vocabulary) for k in range(2)]
    assert lengths.min() < 40
    words = ["--prompt", "t", "--beam_size", 2, "--num_samples", 2, "--length", 40]
    written = text(trained / "book", *words, "--stop", stop)
    assert [part.split("\n", 1)[1] for part in written.split("--- ")[1:]] == [
        f"t{one.removesuffix(stop)}\n" for one in added
    ]
    assert text(trained / "book", *words, "--stop", "\u00df") == text(trained / "book", *words)


def test_poems_end_with_their_end(text, trained):
    written = text(trained / "poems", "--prompt", *"日紅山夜湖海月", "--temperature", 0.5, "--length", 500)
    assert len(written.splitlines()) == 14  # each poem on one line


def test_the_text_comes_as_it_is_written(trained):
    """The first characters are there long before the last, through a pipe."""
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
        (["--top_p", "0"], "argument --top_p: must be above 0 and at most 1, not 0"),
        (["--top_p", "1.1"], "argument --top_p: must be above 0 and at most 1, not 1.1"),
        (["--beam_size", "0"], "argument --beam_size: must be at least 1, not 0"),
        (["--beam_size", "2", "--temperature", "1"], "--temperature: not with --beam_size, which draws nothing"),
        (["--beam_size", "2", "--top_k", "1"], "argument --top_k: not with --beam_size"),
        (["--beam_size", "2", "--top_p", "1"], "argument --top_p: not with --beam_size"),
        (["--beam_size", "2", "--seed", "0", "--prompt", "the"], "argument --seed: not with --beam_size"),
        (["--beam_size", "2", "--num_samples", "3"], "argument --num_samples: at most --beam_size, 2, not 3"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
    ],
)
def test_bad_input_ends_in_one_line(write, trained, words, message):
    assert message in write(trained / "book", *words).line


def test_checkpoints_that_hold_no_writer(write, trained, tmp_path):
    assert "none does not exist" in write(tmp_path / "none").line
    expected = "checkpoint.pt does not exist: a checkpoint, or a run folder, of part2/train.py is expected"
    assert expected in write(tmp_path).line
    good = (trained / "book" / "best.pt").read_bytes()
    (tmp_path / "best.pt").write_bytes(good[:-100])
    assert "best.pt is damaged or not a checkpoint" in write(tmp_path).line
    torch.save({"step": 1, "arguments": {}}, tmp_path / "best.pt")
    assert "holds no text model" in write(tmp_path).line


@pytest.mark.parametrize(
    ("stop", "written"),
    [
        ("aab", "aa"),
        ("ab", "aaa"),
        ("b", "aaaa"),
        ("aaaabc", ""),
        ("cab", "aaaab"),
        ("abcabca", "aaa"),
        ("abcabcabx", "aaaabcabcab"),
        ("x", "aaaabcabcab"),
        ("aaaaa", "aaaabcabcab"),
    ],
)
def test_before_a_text(stop, written):
    """As str.partition: whatever part of the text may be its beginning, such as aa before aab."""
    assert "".join(before(stop, iter("aaaabcabcab"))) == written == "aaaabcabcab".partition(stop)[0]


def test_writing_ends_before_a_text(write, text, trained):
    words = ["--prompt", "the", "--length", 300]
    whole = text(trained / "book", *words)
    stop = whole[150:153]
    assert text(trained / "book", *words, "--stop", stop) == "the" + whole[3:].partition(stop)[0] + "\n"
    assert text(trained / "book", *words, "--stop", "\u00df") == whole
    assert "argument --stop: must not be empty" in write(trained / "book", "--stop", "").line


def changed(path, name, folder, change):
    """A copy of a checkpoint with another vocabulary, of as many characters."""
    checkpoint = torch.load(path / "best.pt", weights_only=True)
    checkpoint["vocabulary"] = change(checkpoint["vocabulary"])
    torch.save(checkpoint, folder / name)
    return folder / name


def test_characters_that_stand_for_unknown_ones_are_never_written(text, trained, tmp_path):
    """The space, the commonest character, becomes U+FFFD; of the poems' rare one that is asked for."""
    book = changed(trained / "book", "book.pt", tmp_path, lambda vocabulary: vocabulary.replace(" ", "\ufffd"))
    for words in (["--temperature", 0], ["--temperature", 5, "--num_samples", 5], ["--prompt", "the\ufffd"]):
        written = text(book, *words, "--length", 300)
        assert "\ufffd" not in written.removeprefix("the\ufffd")
    model, _ = load_model(book)
    assert not (model.sample(50, 20, temperature=5) == torch.tensor(model.never_written)).any()

    words = ["--temperature", 5, "--num_samples", 20, "--length", 100]
    assert "□" in text(trained / "poems", *words) and "□" not in text(trained / "poems", *words, "--no_rare")


def test_terminal_escapes_are_written_in_letters(text, trained, tmp_path):
    path = changed(trained / "book", "x.pt", tmp_path, lambda text: text.replace("e", "\x1b").replace("t", "\x9b"))
    written = text(path, "--prompt", "h\x1b", "--length", 300)
    assert written.startswith("h\\x1b") and "\\x9b" in written and written.replace("\n", "").isprintable()


@pytest.mark.parametrize("temperature", [1e-320, 1e-45, 1e-31, 1e-30])
def test_the_smallest_temperatures_take_the_likeliest(temperature):
    logits = torch.tensor([[1.0, 3.0, 2.0], [-torch.inf, -5.0, -4.0]])
    assert choose(logits, temperature).tolist() == [1, 2]
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="the temperature must be a finite number of at least 0"):
            choose(logits, wrong)
