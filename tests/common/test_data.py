"""Data files: atomic writes, files that are there, downloads, caches."""

import functools
import hashlib
import http.server
import os
import shutil
import ssl
import subprocess
import threading

import pytest
import torch

from common.data import cached_tensors, find_data, load_tensors, save_tensors, write_atomically
from common.errors import CommandError


def raises(error):
    raise error


def test_write_atomically_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: raises(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_data_that_is_there(tmp_path, monkeypatch):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("abc")
    assert find_data("text/a.txt", data_dir=str(tmp_path)) == tmp_path / "text" / "a.txt"
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert find_data("text/a.txt") == tmp_path / "text" / "a.txt"
    with pytest.raises(CommandError, match=r"b\.txt does not exist: put the file there"):
        find_data("text/b.txt")


def test_data_that_is_there_is_verified(tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    right, wrong = (hashlib.sha256(content).hexdigest() for content in (b"abc", b"other"))
    assert find_data("a.txt", str(tmp_path), sha256=right) == tmp_path / "a.txt"
    for url in (None, "https://localhost:1/a.txt"):
        with pytest.raises(CommandError, match=r"a\.txt is not the expected file \(its sha256 differs\): move it away"):
            find_data("a.txt", str(tmp_path), url, wrong)
    assert (tmp_path / "a.txt").read_text() == "abc"


@pytest.fixture
def https_server(tmp_path, monkeypatch):
    """A server on this machine with a certificate that this process trusts: its folder and its address."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    key, certificate, served = tmp_path / "key.pem", tmp_path / "certificate.pem", tmp_path / "served"
    served.mkdir()
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), functools.partial(Quiet, directory=str(served)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield served, f"https://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_downloads_are_verified(https_server, tmp_path, capsys):
    served, address = https_server
    (served / "a.txt").write_text("abc")
    right, wrong, data_dir = hashlib.sha256(b"abc").hexdigest(), "0" * 64, str(tmp_path / "data")
    with pytest.raises(CommandError, match="its sha256 differs"):
        find_data("text/a.txt", data_dir, f"{address}/a.txt", wrong)
    assert not list((tmp_path / "data" / "text").iterdir())
    assert find_data("text/a.txt", data_dir, f"{address}/a.txt", right).read_text() == "abc"
    assert not capsys.readouterr().err  # no progress bar if stderr is not a terminal
    with pytest.raises(CommandError, match=r"cannot be downloaded \(.*\): put the file at .*b\.txt by hand"):
        find_data("text/b.txt", data_dir, f"{address}/b.txt", right)
    with pytest.raises(ValueError, match="https"):
        find_data("text/c.txt", data_dir, "http://localhost/a.txt", right)


def test_saved_tensors_come_back_and_a_flipped_bit_is_noticed(tmp_path):
    path, weights = tmp_path / "x.pt", torch.full((1000,), 7.0)
    save_tensors(path, {"weights": weights, "names": ["a", ("b", 1)]})
    found = load_tensors(path)
    assert torch.equal(found["weights"], weights) and found["names"] == ["a", ("b", 1)]
    content = bytearray(path.read_bytes())
    content[content.index(weights[:10].numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        load_tensors(path)


def test_a_cache_is_made_once(tmp_path, capsys):
    path, made = tmp_path / "cache" / "x.pt", []

    def make():
        made.append(True)
        return {"pixels": torch.arange(6)}

    for _ in range(3):
        assert torch.equal(cached_tensors(path, make)["pixels"], torch.arange(6))
    assert len(made) == 1 and list(path.parent.iterdir()) == [path]
    assert not capsys.readouterr().err


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "foreign", "code"])
def test_a_damaged_cache_is_made_anew_and_says_so(tmp_path, capsys, damage):
    path, content = tmp_path / "x.pt", torch.full((1000,), 7.0)
    assert torch.equal(cached_tensors(path, lambda: content), content)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(content[:10].numpy().tobytes()) + 2] ^= 1
    damaged = {"empty": b"", "cut": whole[: len(whole) // 2], "bit": bytes(flipped), "foreign": b"no tensors"}
    if damage == "code":
        torch.save(functools.partial(print, "executed"), path)
    else:
        path.write_bytes(damaged[damage])
    assert torch.equal(cached_tensors(path, lambda: content), content)
    captured = capsys.readouterr()
    assert captured.err.startswith(str(path)) and captured.err.count("\n") == 1
    assert "is damaged" in captured.err and captured.err.endswith("made anew\n")
    assert not captured.out and path.read_bytes() == whole
    cached_tensors(path, lambda: pytest.fail("made anew once more"))


def test_two_processes_may_make_a_cache_at_once(tmp_path):
    """Here the second begins, and ends, while the first makes its content."""
    path = tmp_path / "x.pt"

    def make():
        cached_tensors(path, lambda: torch.zeros(1))
        return torch.ones(1)

    assert cached_tensors(path, make) == 1 and load_tensors(path) == 1
    assert list(tmp_path.iterdir()) == [path]
