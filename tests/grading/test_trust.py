"""Code that crashes, never ends, or cheats fails its probe; templates are not implemented; nothing is left behind."""

import os
import time

import pytest

from grading.answer import FAILED, HELD, OPEN, STUB
from grading.judging import judge_part
from grading.loading import Finder
from grading.submission import find_submission, folders_below
from tests.grading.solutions import LSTM, MODEL_2021, edited, notebook, solution
from tests.grading.test_forms import required

WRITES = """
import os, sys
for name in ("verdict.txt", "verdict", "result"):
    open(name, "w").write("passed")
for number in range(3, 30):
    try:
        os.write(number, b'{"status": "passed"}\\npassed\\n')
    except OSError:
        pass
print("passed", flush=True)
os._exit(0)
"""
TEMPLATES = {
    "lmu-2024": {
        f"part1/{file}.py": f"""\
import torch.nn as nn


class {name}(nn.Module):
    def __init__(self, seq_length, input_dim, num_hidden, num_classes, batch_size, device="cpu"):
        super({name}, self).__init__()
        # here

    def forward(self, x):
        # here
        pass
"""
        for file, name in (("vanilla_rnn", "VanillaRNN"), ("lstm", "LSTM"))
    }
    | {"part1/train.py": "model = None  # fixme\noptimizer = None  # fixme\n"},
    "uva-2021": {
        "part2/model.py": """\
import torch.nn as nn


class LSTM(nn.Module):
    def __init__(self, lstm_hidden_dim, embedding_size):
        super(LSTM, self).__init__()
        self.hidden_dim = lstm_hidden_dim
        pass
        self.init_parameters()

    def init_parameters(self):
        pass

    def forward(self, embeds):
        \"\"\"Forward pass.\"\"\"
        pass


class TextGenerationModel(nn.Module):
    def __init__(self, args):
        super().__init__()
        pass

    def forward(self, x):
        pass

    def sample(self, batch_size=4, sample_length=30, temperature=0.):
        pass
""",
        "part2/train.py": "def train(args):\n    model = ...\n    optimizer = ...\n",
        "part3/networks.py": """\
import torch.nn as nn


class MLP(nn.Module):
    def __init__(self, n_inputs, n_hidden, n_outputs):
        pass

    def forward(self, x):
        pass
        return out


class GNN(nn.Module):
    def __init__(self, n_node_features, n_edge_features, n_hidden, n_output, num_convolution_blocks):
        pass

    def forward(self, x, edge_index, edge_attr, batch_idx):
        return out
""",
        "part3/train.py": """\
from data import *
from networks import *


def permute_indices(molecules):
    return molecules


def compute_loss(model, molecules, criterion):
    \"\"\"The loss.\"\"\"
    return loss


def evaluate_model(model, data_loader, criterion, permute):
    return avg_loss


def train(model, lr, batch_size, epochs, seed, data_dir):
    train, valid, test = get_qm9(data_dir, model.device)
    criterion = ...
    optimizer = ...
    return model, criterion, optimizer
""",
        "part3/data.py": solution("uva-2021")["part3/data.py"],
        "part1/CNN.ipynb": notebook(
            "import numpy as np\n#cell\n"
            + "#cell\n".join(
                f"def {name}({arguments}):\n    out = None\n    pass\n    return out\n"
                for name, arguments in {
                    "zero_padding": "X, padding",
                    "convolution2D": "X, W, stride, padding",
                    "convolution2D_backward_filter": "out_grad, X, W, stride",
                    "convolution2D_backward_input": "out_grad, X, W, stride",
                    "pool_forward": "X, f, s",
                    "pool_back": "grad_pool, X, f, s",
                }.items()
            )
        ),
        "part1/main_cnn.py": "def evaluate_model(model, data_loader, device):\n    pass\n    return accuracy\n",
    },
    "uva-2020": {
        f"Part 1/{file}.py": f"""\
import torch.nn as nn


class {name}(nn.Module):
    def __init__(self, seq_length, input_dim, hidden_dim, num_classes, batch_size, device):
        super({name}, self).__init__()
        raise NotImplementedError

    def forward(self, x):
        raise NotImplementedError
"""
        for file, name in (("lstm", "LSTM"), ("gru", "GRU"), ("bi_lstm", "biLSTM"), ("peep_lstm", "peepLSTM"))
    },
}


@pytest.mark.parametrize("edition", TEMPLATES)
def test_an_empty_template_is_not_implemented(judged, edition):
    for one in judged(TEMPLATES[edition], edition):
        found = [finding for finding in one.findings if finding.required]
        states = {finding.state for finding in found}
        assert states <= {STUB, OPEN}, [(f.name, f.state, f.verdict.message) for f in found]
        assert not any(finding.could_not_be_judged for finding in found), one.question.number


def test_a_part_that_is_done_beside_one_that_is_not(judged):
    files = {"part2/model.py": MODEL_2021, "part2/train.py": TEMPLATES["uva-2021"]["part2/train.py"]}
    states = {one.question.number: {f.state for f in one.findings if f.required} for one in judged(files, "uva-2021")}
    assert states["2.3"] == states["2.4a"] == states["2.4b"] == {HELD}
    assert states["2.4a (training)"] == {STUB, OPEN}


@pytest.mark.parametrize(
    ("line", "broken", "message"),
    [
        ("import torch\n", WRITES, "its process ended without an answer, exit status 0"),
        ("import torch\n", "import os; os._exit(0)\n", "its process ended without an answer, exit status 0"),
        ("import torch\n", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n", "exit status -11"),
        ("import torch\n", "while True: pass\n", "no answer within 2 s"),
        ("import torch\n", "import time; time.sleep(60)\n", "no answer within 2 s"),
        ("import torch\n", "x = bytearray(2**36)\n", "MemoryError"),
        ("import torch\n", "raise SystemExit(0)\n", "SystemExit: 0"),
        ("import torch\n", "raise BaseException('no')\n", "BaseException: no"),
        ("import torch\n", "import urllib.request as r; r.urlopen('http://127.0.0.1:1')\nimport torch\n", "Error"),
        ("import torch\n", "assert False, 'passed'\n", "AssertionError: passed"),
    ],
)
def test_what_ends_a_process_fails_its_probe(server, tmp_path, line, broken, message):
    (tmp_path / "lstm.py").write_text(LSTM.replace(line, broken), encoding="utf-8")
    start = time.monotonic()
    verdict = server.judge("lmu-2024", "part1", tmp_path, tmp_path, "runs", "LSTM", 2)
    assert verdict.status in ("failed", "unusable")
    assert message in verdict.message
    assert time.monotonic() - start < 30
    (tmp_path / "lstm.py").write_text(LSTM, encoding="utf-8")
    assert server.judge("lmu-2024", "part1", tmp_path, tmp_path, "runs", "LSTM").status == "passed"


@pytest.mark.parametrize("module", ["part2.model", "part1.lstm", "recurrence.lstm", "common.paths", "report.build"])
def test_this_projects_own_solution_is_not_there(server, tmp_path, module):
    (tmp_path / "model.py").write_text(f"from {module} import *\n", encoding="utf-8")
    verdict = server.judge("uva-2021", "part2", tmp_path, tmp_path, "runs", "LSTM")
    assert verdict.status == "unusable"
    own = "model.py does not define LSTM"  # `part2.model` may be the submission's own file
    assert verdict.message in (
        own,
        f"No module named {module.split('.')[0]!r}: it is not installed here, or was not handed in",
    )


def test_an_import_of_this_projects_model_from_a_part_of_the_same_name(judged):
    files = solution("uva-2021") | {"part2/model.py": "from part2.model import *\n"}
    states = {state if state == HELD else state[0] for state in required(judged(files, "uva-2021", "part2")).values()}
    assert HELD not in states and FAILED in states


def test_a_probe_sees_nothing_of_the_user(server, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    (tmp_path / "lstm.py").write_text(
        "import os\nassert 'SECRET_TOKEN' not in os.environ\n"
        "assert os.path.expanduser('~') not in (" + repr(os.path.expanduser("~")) + ", os.getcwd())\n"
        "assert not os.listdir('.')\nopen('left.txt', 'w').write('x')\n" + LSTM,
        encoding="utf-8",
    )
    for _ in range(2):
        verdict = server.judge("lmu-2024", "part1", tmp_path, tmp_path, "runs", "LSTM")
        assert verdict.status == "passed", verdict
    assert [path.name for path in tmp_path.iterdir()] == ["lstm.py"]  # no compiled files either


def test_a_package_that_is_missing_is_said_and_does_not_count_as_held(judged):
    text = LSTM.replace(
        "import torch\n", "import torch\nimport torch_scatter\nimport seaborn\nseaborn.set_theme()\n", 1
    )
    text = text.replace("return p\n", "return torch_scatter.segment_csr(p)\n")
    (lstm,) = [one for one in judged({"part1/lstm.py": text}, "lmu-2024") if one.question.number == "1.6"]
    found = [finding for finding in lstm.findings if finding.required]
    assert {finding.verdict.message for finding in found} == {
        "it uses torch_scatter.segment_csr, and torch_scatter is not installed here"
    }
    assert not lstm.holds and not any(finding.could_not_be_judged for finding in found)


def test_prints_and_threads_do_no_harm(server, tmp_path):
    text = "import threading, time\nprint('failed')\nthreading.Thread(target=time.sleep, args=(50,)).start()\n" + LSTM
    (tmp_path / "lstm.py").write_text(text, encoding="utf-8")
    assert server.judge("lmu-2024", "part1", tmp_path, tmp_path, "runs", "LSTM", 20).status == "passed"


def test_a_notebook_with_conflict_markers_is_named_as_that(judged):
    files = edited(solution("uva-2021"), [["part1/CNN.ipynb", '{"cells"', '<<<<<<< HEAD\n{"cells"']])
    (finding, *_) = judged(files, "uva-2021", "part1")[0].findings
    assert finding.verdict.message == "the notebook cannot be read: it holds git's conflict markers, at line 1"


def test_too_many_folders_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("grading.submission.MOST_FOLDERS", 5)
    for number in range(9):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(ValueError, match="more than 5 folders"):
        list(folders_below(tmp_path))


def test_one_changed_signature_is_one_remark(server, tmp_path):
    text = LSTM.replace("batch_size, device", "batch_size, vocabulary, layers, device")
    (tmp_path / "lstm.py").write_text(text, encoding="utf-8")
    from grading.editions import read_editions

    found = find_submission(tmp_path, [e for e in read_editions() if e.name == "lmu-2024"])
    remarks = [
        finding
        for one in judge_part(server, found, found.parts[0], 60)
        for finding in one.findings
        if finding.state == FAILED and finding.subject == "LSTM"
    ]
    assert len(remarks) == 1
    assert "its constructor asks for vocabulary, layers" in remarks[0].verdict.message
    assert remarks[0].verdict.place == "lstm.py:6"


def test_installed_packages_inside_a_submission_are_not_read(tmp_path):
    """They are many, and what they import are no names of the submission's."""
    for folder, package in ((".venv/lib", "one"), ("venv/lib", "two"), ("part1", "three")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "some.py").write_text(f"from {package}.lstm import LSTM\n", encoding="utf-8")
    (tmp_path / "part1" / "lstm.py").write_text(LSTM, encoding="utf-8")
    assert Finder(tmp_path / "part1", tmp_path).packages.keys() == {"part1", tmp_path.name, "three"}
