"""The GPU's way against the equations in float64, differentiated by autograd: in Triton's interpreter, and on a GPU.

The interpreter shows whether the kernels compute what they should, not whether their threads wait for each other: that
needs the GPU, on which the same tests run where there is one.
"""

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from benchmarks.loops import lstm_loop, rnn_loop
from recurrence import gpu

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")

SHAPES = [(1, 1, 5), (2, 3, 16), (7, 17, 5), (7, 33, 40), (2, 3, 70)]  # T, B, n


@pytest.fixture(params=["cpu", "cuda"], scope="module")
def device(request):
    """The CPU with Triton's interpreter, or a GPU.

    The variable is set, and kernels that are interpreted are loaded, during these tests only: nothing else then takes
    CPU tensors for a GPU's. Triton itself is imported before, so that its own functions are not interpreted ones.
    """
    from triton import language as tl
    from triton.runtime.interpreter import InterpreterBuilder

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    create_dot = InterpreterBuilder.create_dot

    def create_dot_of_bfloat16(self, a, b, *others):
        """The interpreter keeps bfloat16 in integers, and would multiply these."""
        a, b = (self.cast_impl(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
        return create_dot(self, a, b, *others)

    with pytest.MonkeyPatch.context() as patch:
        if request.param == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")
            patch.setattr(InterpreterBuilder, "create_dot", create_dot_of_bfloat16)
        else:
            patch.delenv("TRITON_INTERPRET", raising=False)
        patch.delitem(sys.modules, "recurrence.gpu_kernels", raising=False)
        yield torch.device(request.param)
        sys.modules.pop("recurrence.gpu_kernels", None)


@pytest.fixture(params=["narrow", "wide"])
def way(request, monkeypatch):
    """Either way for every n; the wide one in parts of three steps."""
    limit = sys.maxsize if request.param == "narrow" else 0
    monkeypatch.setattr(gpu, "NARROW", {"tf32": limit, "ieee": limit})
    monkeypatch.setattr(gpu, "STEPS", 3)
    gpu._graphs.clear()
    return request.param


class Case:
    """Random tensors, the states and gradients that the loops get from them in float64, and those of `gpu`."""

    def __init__(self, device, T, B, n, gates, dtype=torch.float32, given=True, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def random(*shape, scale=1.0, dtype=dtype):
            return (scale * torch.randn(shape, generator=generator)).to(device, dtype)

        self.z, self.W = random(T, B, gates * n), random(gates * n, n, scale=n**-0.5)
        self.h_0 = random(B, n) if given else None
        self.c_0 = random(B, n, dtype=torch.float32) if given else None
        self.grad_h, self.grad_c_T = random(T, B, n), random(B, n, dtype=torch.float32)

    def rnn(self):
        h = gpu.rnn_forward(self.z, self.h_0, self.W)
        d_a, d_h_0 = gpu.rnn_backward(self.grad_h, h, self.W, self.h_0 is not None)
        return {"h": h, "d_a": d_a, "d_h_0": d_h_0, "d_W": self._d_W(d_a, h)}

    def lstm(self):
        h, c, gates = gpu.lstm_forward(self.z.clone(), self.h_0, self.c_0, self.W)
        d_a, d_h_0, d_c_0 = gpu.lstm_backward(
            self.grad_h, self.grad_c_T, gates, c, self.c_0, self.W, self.h_0 is not None
        )
        d_c_0 = None if self.c_0 is None else d_c_0
        return {"h": h, "c_T": c[-1], "d_a": d_a, "d_h_0": d_h_0, "d_c_0": d_c_0, "d_W": self._d_W(d_a, h)}

    def _d_W(self, d_a, h):
        """As the caller forms it."""
        first = int(self.h_0 is None)
        before = h[:-1] if self.h_0 is None else torch.cat((self.h_0[None], h[:-1]))
        return d_a[first:].flatten(0, 1).double().T @ before.flatten(0, 1).double()

    def rnn_expected(self):
        z, W, h_0, _ = self._in_float64()
        h = rnn_loop(z, h_0, W)
        gradients = torch.autograd.grad((h * self.grad_h.double()).sum(), (z, W, h_0))
        return self._named(gradients, h=h)

    def lstm_expected(self):
        z, W, h_0, c_0 = self._in_float64()
        h, c_T = lstm_loop(z, h_0, c_0, W)
        loss = (h * self.grad_h.double()).sum() + (c_T * self.grad_c_T.double()).sum()
        return self._named(torch.autograd.grad(loss, (z, W, h_0, c_0)), h=h, c_T=c_T)

    def _in_float64(self):
        zeros = torch.zeros_like(self.grad_c_T)
        tensors = self.z, self.W, zeros if self.h_0 is None else self.h_0, zeros if self.c_0 is None else self.c_0
        return [tensor.double().requires_grad_() for tensor in tensors]

    def _named(self, gradients, **outputs):
        d_z, d_W, *d_states = gradients
        states = {name: None if self.h_0 is None else d for name, d in zip(("d_h_0", "d_c_0"), d_states)}
        return {**outputs, "d_a": d_z, "d_W": d_W, **states}


def assert_equal(values, expected):
    """Float32 to its digits; a GPU's exp and division err in the last two bits."""
    assert values.keys() == expected.keys()
    for name, value in values.items():
        if value is None or expected[name] is None:
            assert value is expected[name] is None
        else:
            atol = (1e-5 if name.startswith("d_") else 1e-6) * (5 if value.is_cuda else 1)
            torch.testing.assert_close(value.double(), expected[name].detach(), rtol=1e-6, atol=atol, msg=name)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("T", "B", "n"), SHAPES)
def test_lstm_equals_the_equations(device, way, T, B, n, given):
    case = Case(device, T, B, n, gates=4, given=given)
    assert_equal(case.lstm(), case.lstm_expected())


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("T", "B", "n"), SHAPES)
def test_rnn_equals_the_equations(device, way, T, B, n, given):
    case = Case(device, T, B, n, gates=1, given=given)
    assert_equal(case.rnn(), case.rnn_expected())


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("T", "B", "n"), [(7, 3, 5), (2, 17, 40)])
def test_bfloat16_errs_by_no_more_than_its_digits(device, way, T, B, n, given):
    """Each result within 2 % of its largest number; cells are float32."""
    lstm, rnn = (Case(device, T, B, n, gates, torch.bfloat16, given) for gates in (4, 1))
    assert lstm.lstm()["c_T"].dtype == torch.float32
    for values, expected in ((lstm.lstm(), lstm.lstm_expected()), (rnn.rnn(), rnn.rnn_expected())):
        assert values["h"].dtype == values["d_a"].dtype == torch.bfloat16
        for name, value in values.items():
            if value is not None:
                assert (value.double() - expected[name]).abs().max() < 0.02 * expected[name].abs().max(), name


def test_finite_differences(device, way):
    """(L(v + e) - L(v - e)) / 2e for some entries of each tensor; e = 0.01, and the float32 of L adds up in float64."""
    case = Case(device, 4, 3, 5, gates=4)

    def loss():
        h, c, _ = gpu.lstm_forward(case.z.clone(), case.h_0, case.c_0, case.W)
        return ((h * case.grad_h).double().sum() + (c[-1] * case.grad_c_T).double().sum()).item()

    gradients = case.lstm()
    for tensor, name in ((case.z, "d_a"), (case.W, "d_W"), (case.h_0, "d_h_0"), (case.c_0, "d_c_0")):
        for index in (0, tensor.numel() // 2, tensor.numel() - 1):
            entry = tensor.view(-1)[index : index + 1]
            value, losses = entry.clone(), []
            for e in (0.01, -0.01):
                entry.copy_(value + e)
                losses.append(loss())
            entry.copy_(value)
            assert (losses[0] - losses[1]) / 0.02 == pytest.approx(gradients[name].view(-1)[index].item(), abs=1e-3)


@pytest.mark.parametrize("strides", ["expanded", "transposed", "one step"])
def test_gradients_that_are_not_contiguous(device, way, strides):
    lstm, rnn = (Case(device, 5, 3, 8, gates) for gates in (4, 1))
    for case in (lstm, rnn):
        case.grad_h = {
            "expanded": case.grad_h[:1, :1, :1].expand(5, 3, 8),
            "transposed": case.grad_h.transpose(0, 2).contiguous().transpose(0, 2),
            "one step": torch.stack((case.grad_h, case.grad_h), dim=1)[:, 0],
        }[strides]
        case.grad_c_T = case.grad_c_T.T.contiguous().T
        before = case.grad_h.clone()
        values, expected = (case.lstm(), case.lstm_expected()) if case is lstm else (case.rnn(), case.rnn_expected())
        assert_equal(values, expected)
        assert torch.equal(case.grad_h, before)


def test_gates_take_the_memory_of_z_and_nothing_else_is_written(device, way):
    case = Case(device, 4, 3, 5, gates=4)
    tensors = case.h_0, case.c_0, case.W, case.grad_h, case.grad_c_T
    before, z = [tensor.clone() for tensor in tensors], case.z.clone()
    h, c, gates = gpu.lstm_forward(z, case.h_0, case.c_0, case.W)
    assert gates.data_ptr() == z.data_ptr()
    g, i, f, o = gates.chunk(4, dim=-1)
    c_before = torch.cat((case.c_0[None], c[:-1]))
    torch.testing.assert_close(g * i + c_before * f, c)  # (8)
    torch.testing.assert_close(c.tanh() * o, h)  # (9)
    saved = [tensor.clone() for tensor in (gates, c)]
    gpu.lstm_backward(case.grad_h, case.grad_c_T, gates, c, case.c_0, case.W, True)
    rnn = Case(device, 4, 3, 5, gates=1)
    z_before = rnn.z.clone()
    rnn.rnn()
    for tensor, was in zip((*tensors, gates, c, rnn.z), (*before, *saved, z_before)):
        assert torch.equal(tensor, was)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the interpreter
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
def test_what_is_not_finite_comes_through(device, way, value):
    """In one sequence; the others are as without it."""
    for gates in (4, 1):
        case = Case(device, 4, 3, 5, gates)
        case.z[1, 1, ::2] = value
        values, expected = (case.lstm(), case.lstm_expected()) if gates == 4 else (case.rnn(), case.rnn_expected())
        assert torch.isnan(values["h"][1:, 1]).any() == (value != value)
        assert_equal_with_nan(values, expected)


def assert_equal_with_nan(values, expected):
    for name, value in values.items():
        torch.testing.assert_close(value.double(), expected[name].detach(), rtol=1e-5, atol=1e-5, equal_nan=True)


def test_same_shapes_again_with_other_values(device, way):
    """On a GPU the second call captures a graph, the third replays it: no value may stay from the call before."""
    for seed in range(3):
        for given in (True, False):
            lstm, rnn = (Case(device, 7, 3, 5, gates, given=given, seed=seed) for gates in (4, 1))
            assert_equal(lstm.lstm(), lstm.lstm_expected())
            assert_equal(rnn.rnn(), rnn.rnn_expected())
    if device.type == "cuda" and way == "wide":
        assert len(gpu._graphs) <= gpu.MAX_GRAPHS and None not in gpu._graphs.values()


def test_graphs_that_are_used_least_recently_leave(device, way, monkeypatch):
    monkeypatch.setattr(gpu, "MAX_GRAPHS", 3)
    for B in (1, 2, 1, 2, 1, 2):
        case = Case(device, 3, B, 5, gates=4)
        assert_equal(case.lstm(), case.lstm_expected())
        assert len(gpu._graphs) <= 3


def test_width_decides(monkeypatch):
    monkeypatch.setattr(gpu, "NARROW", {"tf32": 40, "ieee": 16})
    assert gpu._is_narrow(torch.zeros(64, 16)) and not gpu._is_narrow(torch.zeros(68, 17))
    assert gpu._is_narrow(torch.zeros(17, 17, dtype=torch.bfloat16))


def test_where_it_is_available(device):
    z = torch.zeros(2, 3, 4, device=device)
    assert gpu.supports(z) and gpu.supports(z.bfloat16())
    assert not gpu.supports(z.double()) and not gpu.supports(z[:, :0])
    assert not gpu.is_available(torch.device("meta"))
    assert len(gpu.version()) == 12 and int(gpu.version(), 16) >= 0


def test_import_costs_nothing_and_the_cpu_is_no_gpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    code = (
        "import sys, torch; from recurrence import gpu; z = torch.zeros(1, 1, 4); "
        "sys.exit(gpu.supports(z) or any(name.split('.')[0] == 'triton' for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
