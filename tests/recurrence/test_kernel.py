"""How the kernel gets compiled, and what it leaves as it was."""

import os
import stat
import subprocess
import sys

import pytest
import torch

from common.errors import InputError
from common.paths import ROOT
from recurrence import kernel
from recurrence.lstm import lstm_states
from recurrence.rnn import rnn_states
from tests.harness import ENVIRONMENT


@pytest.fixture
def empty_cache(tmp_path, monkeypatch, compiled_kernel):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "recurrent-and-graph-networks"


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("no-such-compiler", "the compiled recurrence needs a C compiler, and no-such-compiler is not here"),
        ("cc '", "the compiled recurrence needs a C compiler, and cc ' is not here"),
        ("false", "the recurrence does not compile with false: no message"),
    ],
)
def test_without_a_compiler_that_works(compiler, message, monkeypatch, empty_cache):
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(InputError, match=message):
        kernel.loaded.__wrapped__(torch.float32)
    assert not list(empty_cache.glob("*"))


def test_without_a_compiler_pytorch_computes(tmp_path):
    """In a process of its own, from the first call on; asked for by name, it says why not."""
    code = (
        "import torch; from recurrence.lstm import lstm_states\n"
        "z, W = torch.randn(3, 2, 8), torch.randn(8, 2)\n"
        "assert torch.equal(lstm_states(z, None, None, W)[0], lstm_states(z, None, None, W, 'bptt')[0])\n"
        "lstm_states(z, None, None, W, 'compiled')"
    )
    environment = {**ENVIRONMENT, "CC": "no-such-compiler", "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "the compiled recurrence needs a C compiler, and no-such-compiler is not here" in done.stderr


def test_it_is_compiled_once_into_a_folder_of_the_users_own(empty_cache):
    kernel.loaded.__wrapped__(torch.float32)
    (file,) = empty_cache.iterdir()
    assert stat.S_IMODE(empty_cache.stat().st_mode) == 0o700
    compiled = file.stat()
    kernel.loaded.__wrapped__(torch.float32)
    assert file.stat().st_mtime_ns == compiled.st_mtime_ns and list(empty_cache.iterdir()) == [file]


def test_a_file_for_each_type_compiler_and_processor(empty_cache, monkeypatch):
    for dtype in kernel.TYPES:
        kernel.loaded.__wrapped__(dtype)
    assert len(list(empty_cache.iterdir())) == 3
    monkeypatch.setenv("CC", "cc -g0")
    kernel.loaded.__wrapped__(torch.float32)
    monkeypatch.setattr(kernel, "_processor", lambda: "another")
    kernel.loaded.__wrapped__(torch.float32)
    assert len(list(empty_cache.iterdir())) == 5


def test_a_folder_in_which_others_may_write_is_not_trusted(empty_cache):
    empty_cache.mkdir(parents=True)
    empty_cache.chmod(0o777)
    kernel.loaded.__wrapped__(torch.float32)
    assert not list(empty_cache.iterdir())


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, compiled_kernel):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no folder can be made in a file
    kernel.loaded.__wrapped__(torch.float32)


def test_a_damaged_file_is_compiled_again(empty_cache):
    kernel.loaded.__wrapped__(torch.float64)
    (file,) = empty_cache.iterdir()
    whole = file.read_bytes()
    file.unlink()  # the loaded one lives on
    file.write_bytes(whole[: len(whole) // 3])  # which the system would load all the same
    kernel.loaded.__wrapped__(torch.float64)
    assert whole in [path.read_bytes() for path in empty_cache.iterdir()]


def test_processes_that_compile_at_once(empty_cache):
    code = "import torch; from recurrence import kernel; kernel.loaded(torch.float32)"
    environment = {**ENVIRONMENT, "XDG_CACHE_HOME": str(empty_cache.parent), "PYTHONPATH": str(ROOT)}
    children = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert [path.suffix for path in empty_cache.iterdir()] == [".so"]


def test_very_small_numbers_stay_what_they_are(compiled_kernel):
    """Some compilers' fast arithmetic sets them to zero, in the whole process."""
    kernel.loaded(torch.float32)
    smallest = torch.tensor(1e-45)
    assert smallest > 0 and smallest / 2 * 2 + smallest > 0 and 5e-324 > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_a_number_comes_through(value, dtype, compiled_kernel):
    """It spreads as far as in PyTorch's operations."""
    z = torch.zeros(4, 3, 20, dtype=dtype)
    z[1, 1, 7] = value
    W = torch.full((20, 5), 0.5, dtype=dtype)
    for states in (
        lambda way: lstm_states(z, None, None, W, way)[0],
        lambda way: rnn_states(z, None, W[:, :1].expand(20, 20), way),
    ):
        found, expected = states("compiled"), states("bptt")
        assert torch.equal(found.isnan(), expected.isnan())
        torch.testing.assert_close(found.nan_to_num(), expected.nan_to_num(), rtol=0, atol=0.01)


@pytest.mark.parametrize("widths", ["-DVECTOR=16 -DROWS=6", "-DVECTOR=32 -DROWS=6", "-DVECTOR=64 -DROWS=12"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
def test_vectors_of_every_processor(widths, dtype, tolerance, monkeypatch, empty_cache):
    """Of NEON or SSE, AVX and AVX-512: compilers put those together that this processor does not have."""
    monkeypatch.setenv("CC", f"cc -Wno-psabi {widths}")
    compiled = kernel.loaded.__wrapped__(dtype)
    monkeypatch.setattr(kernel, "loaded", lambda dtype: compiled)
    for T, B, n in ((4, 33, 17), (3, 41, 40), (3, 5, 300)):
        generator = torch.Generator().manual_seed(0)
        z, W, h_0 = (torch.randn(shape, generator=generator) for shape in ((T, B, 4 * n), (4 * n, n), (B, n)))
        tensors = [tensor.to(dtype).requires_grad_() for tensor in (z, W / n**0.5, h_0)]
        found, expected = [], []
        for way, values in (("compiled", found), ("bptt", expected)):
            if way == "bptt":
                tensors = [tensor.detach().double().requires_grad_() for tensor in tensors]
            h, c = lstm_states(tensors[0], tensors[2], None, tensors[1], way)
            r = rnn_states(tensors[0][..., :n], tensors[2], tensors[1][:n], way)
            loss = h.double().sin().sum() + c.double().sum() + r.double().cos().sum()
            values += [h, c, r, *torch.autograd.grad(loss, tensors)]
        for ours, right in zip(found, expected):
            assert (ours.double() - right).norm() <= tolerance * right.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("B", [5, 40])
def test_the_same_bits_every_time(B, dtype, compiled_kernel):
    generator = torch.Generator().manual_seed(0)
    z, W = torch.randn(9, B, 400, generator=generator).to(dtype), torch.randn(400, 100, generator=generator).to(dtype)
    results = []
    for _ in range(5):
        tensors = z.clone().requires_grad_(), W.clone().requires_grad_()
        h, _ = lstm_states(tensors[0], None, None, tensors[1], "compiled")
        results.append((h, *torch.autograd.grad(h.float().square().sum(), tensors)))
    assert all(torch.equal(a, b) for result in results for a, b in zip(result, results[0]))


def test_gates_are_right_to_the_last_digits(compiled_kernel):
    """sigma(a) and tanh(a) over their whole range, in float32: the gates of one step from zero."""
    a = torch.linspace(-100, 100, 20_000)
    z = torch.stack((a, a, a, a), dim=0).t().reshape(1, -1, 4).contiguous()
    h, _, gates = kernel.lstm_forward(z, None, torch.zeros(len(a), 1), torch.zeros(4, 1))
    exact = torch.stack((a.double().tanh(), *3 * [a.double().sigmoid()]), dim=1)
    assert (gates[0] - exact).abs().max() < 2e-7
    assert (h[0, :, 0] - (exact[:, 0] * exact[:, 1]).tanh() * exact[:, 3]).abs().max() < 3e-7


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads are bound to cores on Linux only")
def test_as_many_threads_as_pytorch_has(compiled_kernel):
    """A child with one thread computes with one, whatever the number of cores."""
    code = (
        "import torch; from recurrence.lstm import lstm_states\n"
        "torch.set_num_threads(1)\n"
        "lstm_states(torch.randn(5, 64, 512), None, None, torch.randn(512, 128), 'compiled')\n"
        "import os; print(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    alone = subprocess.run(
        [sys.executable, "-c", "import torch, os; print(len(os.listdir('/proc/self/task')))"],
        env=ENVIRONMENT,
        capture_output=True,
    )
    assert int(done.stdout) <= int(alone.stdout)
