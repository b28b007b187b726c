"""The probes and their runner, on solutions broken on purpose: the right probe fails, with a reason that a reader
understands.

Each breaks one line of a solution that is correct.
"""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LSTM = textwrap.dedent("""\
    import torch
    from torch import nn


    class LSTM(nn.Module):
        def __init__(self, seq_length, input_dim, num_hidden, num_classes, batch_size, device):
            super().__init__()
            self.W_x, self.W_h, self.b, self.W_ph, self.b_p = (
                nn.Parameter(torch.empty(shape, device=device).uniform_(-0.1, 0.1))
                for shape in [(input_dim, 4 * num_hidden), (num_hidden, 4 * num_hidden), (4 * num_hidden,),
                              (num_hidden, num_classes), (num_classes,)]
            )
            self.state_shape = (batch_size, num_hidden)

        def forward(self, x):
            x = x if x.dim() == 3 else x.unsqueeze(2)
            h = c = torch.zeros(len(x), self.state_shape[1])
            for x_t in x.unbind(1):
                g, i, f, o = (x_t @ self.W_x + h @ self.W_h + self.b).chunk(4, 1)
                c = g.tanh() * i.sigmoid() + c * f.sigmoid()
                h = c.tanh() * o.sigmoid()
            p = h @ self.W_ph + self.b_p
            return p
    """)
ZEROS, FIRST_LINE, P = "torch.zeros(len(x), self.state_shape[1])", "import torch\n", "p = h @ self.W_ph + self.b_p"
BATCH_AS_TIME = "p = x.cumsum(0)[:, -1] @ self.W_x[:, :10]"  # a row sees the last digits of the rows before it

CASES = {  # the line to replace, by what, the probe to run, what it should find
    "prints": (FIRST_LINE, FIRST_LINE + "print('failed')\n", "equations_hold_for_equal_parameters", "passed"),
    "softmax": ("return p", "return p.softmax(1)", "output_is_logits", "every row sums to one: softmax was applied"),
    "batch as time": (P, BATCH_AS_TIME, "rows_are_independent_and_remembered", "digit 1 of 6 has no influence .*"),
    "rows leak": (
        "h @ self.W_h ",
        "h.roll(1, 0) @ self.W_h ",
        "rows_are_independent_and_remembered",
        ".* the logits of row .*",
    ),
    "fixed batch": (
        ZEROS,
        "torch.zeros(self.state_shape)",
        "any_batch_size",
        r"crashed: RuntimeError: .* \(lstm.py, line 19\)",
    ),
    "c(0) = 1": (ZEROS, ZEROS.replace("zeros", "ones"), "state_starts_at_zero", ".*the first state is not 0"),
    "no tanh": (
        "c.tanh() * o",
        "c * o",
        "equations_hold_for_equal_parameters",
        "with all parameters 0.05, .* off by .*",
    ),
    "no class": ("class LSTM", "class Lstm", "output_is_logits", "crashed: AttributeError: .* no attribute 'LSTM'"),
    "no Python": (
        "class LSTM",
        "clas LSTM",
        "output_is_logits",
        r"crashed: SyntaxError: invalid syntax \(lstm.py, line 5\)",
    ),
    "exits": (FIRST_LINE, "raise SystemExit(0)\n", "output_is_logits", r"crashed: SystemExit: 0 \(lstm.py, line 1\)"),
    "dies": (FIRST_LINE, "import os; os._exit(0)\n", "output_is_logits", "died without an answer, exit status 0"),
    "hangs": (FIRST_LINE, "while True: pass\n", "output_is_logits", "no answer within 5 s"),
    "no file": (LSTM, "", "dataset_items_are_palindromes", "crashed: ModuleNotFoundError: No module named 'dataset'"),
}


@pytest.mark.parametrize(("line", "broken", "name", "found"), CASES.values(), ids=CASES)
def test_a_broken_solution_fails_its_probe(tmp_path, run_probe, line, broken, name, found):
    assert line in LSTM
    (tmp_path / "part1").mkdir()
    (tmp_path / "part1" / "lstm.py").write_text(LSTM.replace(line, broken), encoding="utf-8")
    arguments = [] if name.startswith("dataset") else ["LSTM"]
    reason = run_probe("part1", name, *arguments, submission=tmp_path, timeout=5 if broken.startswith("while") else 120)
    assert re.fullmatch(found, reason), reason


MODEL = textwrap.dedent("""\
    import torch
    from torch import nn


    class TextGenerationModel(nn.Module):
        def __init__(self, args):
            super().__init__()
            self.embedding = nn.Embedding(args.vocabulary_size, args.embedding_size)
            self.lstm = nn.LSTM(args.embedding_size, args.lstm_hidden_dim)
            self.output = nn.Linear(args.lstm_hidden_dim, args.vocabulary_size)

        def forward(self, x):
            return self.output(self.lstm(self.embedding(x))[0])

        def sample(self, batch_size=4, sample_length=30, temperature=0.0):
            x = torch.randint(self.output.out_features, (1, batch_size))
            while len(x) < sample_length:
                p = self(x)[-1]
                drawn = torch.multinomial((p / temperature).softmax(1), 1) if temperature else p.argmax(1, keepdim=True)
                x = torch.cat((x, drawn.t()))
            return x
    """)
FREQUENCIES = ("sampled_frequencies_match_the_softmax", "at temperature 0.5, .* is drawn with frequency .*")

MODEL_CASES = {  # the same for part 2
    "samples": (MODEL, MODEL, "samples_follow_the_model", "passed"),
    "frequencies": (MODEL, MODEL, FREQUENCIES[0], "passed"),
    "state not carried": ("self(x)", "self(x[-1:])", "samples_follow_the_model", "at temperature 0, character 3 of .*"),
    "times temperature": ("p / temperature", "p * temperature", *FREQUENCIES),
    "argmax at 0.5": ("if temperature", "if int(temperature)", *FREQUENCIES),
    "one too many": (
        "< sample",
        "<= sample",
        "samples_have_their_shape",
        r"sample\(\) has shape \(31, 4\), not \(30, 4\)",
    ),
}


@pytest.mark.parametrize(("line", "broken", "name", "found"), MODEL_CASES.values(), ids=MODEL_CASES)
def test_a_broken_model_of_texts_fails_its_probe(tmp_path, run_probe, line, broken, name, found):
    assert line in MODEL
    (tmp_path / "model.py").write_text(MODEL.replace(line, broken), encoding="utf-8")
    reason = run_probe("part2", name, submission=tmp_path)
    assert re.fullmatch(found, reason), reason


def test_the_folder_may_be_the_part_itself_and_has_to_exist(tmp_path, run_probe):
    (tmp_path / "lstm.py").write_text(LSTM, encoding="utf-8")
    assert run_probe("part1", "any_length", "LSTM", submission=tmp_path) == "passed"
    command = [
        sys.executable,
        "-m",
        "pytest",
        Path(__file__).with_name("test_part1.py"),
        "--submission",
        tmp_path / "nowhere",
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr.strip()) == (
        4,
        f"ERROR: --submission {tmp_path / 'nowhere'}: there is no such folder",
    )
