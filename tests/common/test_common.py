"""The foundation: errors, devices, random streams, atomic files, data location, experiments, figures."""

import functools
import hashlib
import http.server
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from argparse import Namespace

import pytest
import torch

from common.data import find_data
from common.errors import (
    ArgumentParser,
    CommandError,
    StopRequest,
    non_negative_int,
    positive_float,
    positive_int,
    run_command,
)
from common.experiment import Job, experiment_parser, read_results, run_jobs, write_results
from common.machine import ROOT, get_device, provenance, seeded_generator
from common.run_folder import RunFolder, load_checkpoint, read_metrics, write_atomically


def raises(error):
    raise error


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (CommandError("no such model"), 2, "no such model"),
        (CommandError("diverged", exit_code=1), 1, "diverged"),
        (OSError(28, "No space left on device", "x.pt"), 2, "No space left on device: x.pt"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_run_command_ends_in_one_line(error, exit_code, line, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: raises(error))
    assert stop.value.code == exit_code
    assert capsys.readouterr().err.endswith(f": {line}\n")


def test_run_command_hides_no_defect_of_ours():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (positive_int, {"1": 1, "12": 12}, ["0", "-1", "1.5", "x"]),
        (non_negative_int, {"0": 0}, ["-1", "x"]),
        (positive_float, {"1e-3": 0.001}, ["0", "-1", "nan", "inf", "x"]),
    ],
)
def test_argument_types(kind, good, bad):
    parser = ArgumentParser()
    parser.add_argument("--value", type=kind)
    for text, value in good.items():
        assert parser.parse_args([f"--value={text}"]).value == value
    for text in bad:
        with pytest.raises(CommandError, match="argument --value"):
            parser.parse_args([f"--value={text}"])


def test_devices():
    assert get_device("cpu").type == "cpu"
    assert get_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("abacus", "cuda:99", "cpu:x", ""):
        with pytest.raises(CommandError, match="cannot be used here") as error:
            get_device(name)
        assert "\n" not in str(error.value)


def test_streams_are_repeatable_and_independent():
    def first(seed, stream):
        return torch.rand(3, generator=seeded_generator(seed, stream)).tolist()

    assert first(1, "weights") == first(1, "weights")
    assert len({tuple(first(seed, stream)) for seed in (0, 1, 2**40) for stream in ("weights", "training", "held out")}) == 9


def test_streams_do_not_depend_on_the_hash_seed():
    code = "from common.machine import seeded_generator as s; print(s(3, 'weights').initial_seed())"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True
        ).stdout
        for seed in ("1", "2")
    }
    assert seen == {f"{seeded_generator(3, 'weights').initial_seed()}\n".encode()}


def test_provenance_names_no_path_of_the_machine():
    assert set(provenance()) == {"command", "commit", "versions", "hardware"}
    assert str(ROOT) not in json.dumps(provenance())


def test_write_atomically_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: raises(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 nor a zip"])
def test_load_checkpoint_refuses_other_files(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CommandError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "x.pt")


def test_load_checkpoint_notices_a_flipped_bit_in_the_weights(tmp_path):
    torch.save({"step": 1, "arguments": {}, "model": torch.full((1000,), 7.0)}, tmp_path / "x.pt")
    assert load_checkpoint(tmp_path / "x.pt")["step"] == 1
    content = bytearray((tmp_path / "x.pt").read_bytes())
    content[content.index(torch.full((10,), 7.0).numpy().tobytes()) + 2] ^= 1
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CommandError, match="damaged"):
        load_checkpoint(tmp_path / "x.pt")


def test_load_checkpoint_runs_no_code(tmp_path):
    """A pickle that would call a function when it is loaded."""
    torch.save({"step": 1, "arguments": functools.partial(print, "owned")}, tmp_path / "x.pt")
    with pytest.raises(CommandError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "x.pt")


def test_default_folders_are_numbered_and_the_last_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr("common.run_folder.ROOT", tmp_path)
    args = Namespace(run_dir=None, resume=False, size=3)
    for name in ("run", "run-2", "run-3"):
        with RunFolder(args, "part/run", ("loss",)) as run:
            assert run.path == tmp_path / "runs" / "part" / name
            run.log(1, loss=0.5)
            run.save_checkpoint(1)
            run.log(2, loss=0.25)
    assert read_metrics(run.path / "metrics.csv") == {"loss": [(1, 0.5), (2, 0.25)]}
    with RunFolder(Namespace(run_dir=None, resume=True, size=3), "part/run", ("loss",)) as resumed:
        assert resumed.path == run.path and resumed.checkpoint["step"] == 1
        assert resumed.read_metrics() == {"loss": [(1, 0.5)]}  # what came after the checkpoint will come again
    with pytest.raises(CommandError, match="no run to resume"):
        RunFolder(Namespace(run_dir=None, resume=True), "part/other", ())


def test_data_that_is_there(tmp_path, monkeypatch):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("abc")
    assert find_data("text/a.txt", data_dir=str(tmp_path)) == tmp_path / "text" / "a.txt"
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert find_data("text/a.txt") == tmp_path / "text" / "a.txt"
    with pytest.raises(CommandError, match=r"b\.txt does not exist: put the file there"):
        find_data("text/b.txt")


@pytest.fixture
def https_server(tmp_path, monkeypatch):
    """A server on this machine whose certificate this process trusts."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    certificate, served = tmp_path / "certificate.pem", tmp_path / "served"
    served.mkdir()
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(certificate), "-out", str(tmp_path / "c.pem")]
    subprocess.run(command, check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + (tmp_path / "c.pem").read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), functools.partial(Quiet, directory=str(served)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield served, f"https://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_downloads_are_verified(https_server, tmp_path):
    served, address = https_server
    (served / "a.txt").write_text("abc")
    right, wrong, data_dir = hashlib.sha256(b"abc").hexdigest(), "0" * 64, str(tmp_path / "data")
    with pytest.raises(CommandError, match="its sha256 differs"):
        find_data("text/a.txt", data_dir, f"{address}/a.txt", wrong)
    assert not list((tmp_path / "data" / "text").iterdir())
    assert find_data("text/a.txt", data_dir, f"{address}/a.txt", right).read_text() == "abc"
    with pytest.raises(CommandError, match=r"cannot be had \(.*\): put the file at .*b\.txt by hand"):
        find_data("text/b.txt", data_dir, f"{address}/b.txt", right)
    with pytest.raises(ValueError, match="https"):
        find_data("text/c.txt", data_dir, "http://localhost/a.txt", right)


def test_a_second_ctrl_c_interrupts_but_not_a_second_sigterm():
    with StopRequest() as stop:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


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


def test_jobs_run_once_and_results_keep_their_order(tmp_path):
    one, two = (experiment_parser("").parse_args(["--jobs", number]) for number in "12")
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


def test_results_come_back_with_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("common.experiment.RESULTS", tmp_path)
    rows = [{"model": "RNN", "T": 5, "accuracy": 0.5, "converged": True}]
    write_results("table", rows, seeds=[0])
    assert read_results("table") == [{"model": "RNN", "T": 5, "accuracy": 0.5, "converged": "True"}]
    assert json.loads((tmp_path / "table.json").read_text())["seeds"] == [0]
    with pytest.raises(CommandError, match="does not exist"):
        read_results("other")
    (tmp_path / "table.csv").write_text("")
    with pytest.raises(CommandError, match="holds no results"):
        read_results("table")


def test_figures_are_written_twice_and_the_same_each_time(tmp_path):
    from common.figure import new_figure, save_figure

    for name in ("first", "second"):
        figure, (axes,) = new_figure()
        axes.plot([0, 1], [0, 1], label="$T$")
        axes.legend()
        save_figure(figure, tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"first.pdf", "first.png", "second.pdf", "second.png"}
    assert (tmp_path / "first.pdf").read_bytes() == (tmp_path / "second.pdf").read_bytes()
