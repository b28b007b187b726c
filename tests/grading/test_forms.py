"""Correct solutions, in every edition and in every form, hold in full, with the same verdicts in each form."""

import pytest

from grading.answer import ADVICE, HELD
from tests.grading.solutions import EDITIONS, LSTM, notebook, solution, variant

DIGITS = "x = x if x.dim() == 3 else x.unsqueeze(2)"
SAMPLE_2019 = """
    @torch.no_grad()
    def sample(self, length=30, temperature=0, num_samples=5):
        x = torch.randint(self.vocabulary_size, (num_samples, 1))
        text, state = [x], None
        while len(text) < length:
            h, state = self.lstm(self.embed(x), state)
            p = self.out(h[:, -1])
            q = torch.softmax(p * temperature, dim=1)
            x = torch.multinomial(q, 1) if temperature else p.argmax(dim=1, keepdim=True)
            text.append(x)
        return torch.cat(text, dim=1)
"""
ONE_HOT = "torch.nn.functional.one_hot(inputs, dataset.vocab_size).float()"
STRINGS = """rows = torch.cat(text).t().tolist()
        return ["".join(self.dataset.convert_to_string(row)) for row in rows]"""
TYPES = "molecules.edge_attr.argmax(dim=1)"
# name: edition, part, then file, old, new, and again. A form that uses its constructor's sizes is advised against.
FORMS = {
    "(B, T, 1)": (
        *("lmu-2024", "part1", "part1/lstm.py", DIGITS, "assert x.dim() == 3"),
        *("part1/vanilla_rnn.py", DIGITS, "assert x.shape[2] == 1"),
        *("part1/train.py", "model(inputs.to(device))", "model(inputs.unsqueeze(2))"),
    ),
    "(B, T, 10)": (
        *("lmu-2024", "part1", "part1/lstm.py", DIGITS, "assert x.shape[2] == 10"),
        *("part1/vanilla_rnn.py", DIGITS, "assert x.shape[2] == 10"),
        *("part1/train.py", "model(inputs.to(device))", "model(torch.nn.functional.one_hot(inputs.long(), 10).float())"),
        *("part1/train.py", '"input_dim": 1', '"input_dim": 10'),
    ),
    "(T, B)": (
        *("lmu-2024", "part1", "part1/lstm.py", DIGITS, "x = x.t().unsqueeze(2)"),
        *("part1/vanilla_rnn.py", DIGITS, "x = x.t().unsqueeze(2)"),
        *("part1/train.py", "model(inputs.to(device))", "model(inputs.t())"),
    ),
    "the constructor's sizes": (
        *("uva-2019-spring", "part1", "part1/lstm.py", "torch.zeros(x.shape[0],", "torch.zeros(self.batch_size,"),
        *("part1/lstm.py", "range(x.shape[1])", "range(self.seq_length)"),
        *("part1/lstm.py", "super().__init__()", "super().__init__()\n        self.batch_size = batch_size"),
        *("part1/vanilla_rnn.py", "range(x.shape[1])", "range(self.seq_length)"),
    ),
    "no batch size": (
        *("uva-2019-spring", "part1", "part1/lstm.py", "num_classes, batch_size, device=", "num_classes, device="),
        *("part1/vanilla_rnn.py", "num_classes, batch_size, device=", "num_classes, device="),
        *("part1/train.py", "config.num_classes, config.batch_size, device", "config.num_classes, device"),
    ),
    "other parameter names": (
        *("lmu-2024", "part1", "part1/lstm.py", "seq_length, input_dim, num_hidden, num_classes,", "T, d, n, K,"),
        *("part1/lstm.py", "self.seq_length, self.num_hidden = seq_length, num_hidden", "num_hidden = self.num_hidden = n"),
        *("part1/lstm.py", "weight(input_dim, 4", "weight(d, 4", "part1/lstm.py", "num_classes", "K"),
    ),
    "a tuple": ("lmu-2024", "part1", "part1/lstm.py", "return p", "return p, (h, c)"),
    "imports from the root": (
        *("uva-2019-november", "part1", "part1/train.py", "from dataset", "from part1.dataset"),
        *("part1/train.py", "from vanilla_rnn", "from part1.vanilla_rnn"),
        *("part1/train.py", "from lstm", "from part1.lstm"),
    ),
    "symbols squeezed": ("uva-2020", "part1", "Part 1/lstm.py", "x.reshape(len(x), -1).long()", "x.squeeze().long()"),
    "text (T, B)": (
        *("uva-2019-spring", "part2", "part2/model.py", ", batch_first=True", ""),
        *("part2/train.py", "model(inputs.to(device))", "model(inputs.t()).transpose(0, 1)"),
    ),
    "text (B, T, 1)": (
        *("uva-2019-spring", "part2", "part2/model.py", "self.embed(x)", "self.embed(x.squeeze(2).long())"),
        *("part2/train.py", "model(inputs.to(device))", "model(inputs.unsqueeze(2).float())"),
    ),
    "text (B, T, V)": (
        *("uva-2019-november", "part2", "part2/model.py", "self.embed(x)", "x @ self.embed.weight"),
        *("part2/train.py", "model(inputs.to(device))", f"model({ONE_HOT})"),
    ),
    "text (T, B, V)": (
        *("uva-2020", "part2", "Part 2/model.py", "self.embed(x)", "x @ self.embed.weight"),
        *("Part 2/model.py", ", batch_first=True", ""),
        *("Part 2/train.py", "model(inputs.to(device))", f"model({ONE_HOT}.transpose(0, 1)).transpose(0, 1)"),
    ),
    "text (B, V, T)": (
        *("uva-2020", "part2", "Part 2/model.py", "return self.out(h)", "return self.out(h).transpose(1, 2)"),
        *("Part 2/train.py", "output.transpose(1, 2)", "output"),
    ),
    "items are lists": (
        *("uva-2020", "part2", "Part 2/dataset.py", "torch.LongTensor(window[:-1]), torch.LongTensor(window[1:])"),
        *("window[:-1], window[1:]", "Part 2/train.py", "optimizer.zero_grad()"),
        "optimizer.zero_grad(); inputs, targets = torch.stack(inputs, dim=1), torch.stack(targets, dim=1)",
    ),
    "sizes and a state": (
        *("uva-2019-spring", "part2", "part2/model.py", "def forward(self, x):", "def forward(self, x, state=None):"),
        *("part2/model.py", "h, _ = self.lstm(self.embed(x))", "h, state = self.lstm(self.embed(x), state)"),
        *("part2/model.py", "return self.out(h)", "return self.out(h.reshape(self.b, self.t, -1)), state"),
        *("part2/model.py", "super().__init__()", "super().__init__(); self.b, self.t = batch_size, seq_length"),
        *("part2/train.py", "output = model(inputs.to(device))", "output, _ = model(inputs.to(device))"),
    ),
    "a method of one's own": ("uva-2019-november", "part2", "part2/model.py", "return self.out(h)\n", None),
    "log-probabilities": (
        *("uva-2019-spring", "part2", "part2/model.py", "self.out(h)", "torch.log_softmax(self.out(h), dim=2)"),
        *("part2/train.py", "CrossEntropyLoss", "NLLLoss"),
    ),
    "samples (B, T)": ("uva-2021", "part2", "part2/model.py", "torch.cat(text)", "torch.cat(text).t()"),
    "samples in lists": ("uva-2021", "part2", "part2/model.py", "torch.cat(text)", "torch.cat(text).t().tolist()"),
    "one character more": (
        *("uva-2021", "part2", "part2/model.py", "len(text) < sample_length", "len(text) <= sample_length"),
        *("part2/model.py", "batch_size=4", "batch_size=5"),
    ),
    "samples are strings": (
        *("uva-2021", "part2", "part2/model.py", "return torch.cat(text)", STRINGS),
        *("part2/model.py", "super().__init__()\n        self.vocabulary_size = args.vocabulary_size"),
        "super().__init__()\n        self.x = args.txt_file\n        self.dataset = TextDataset(args.txt_file, "
        "args.input_seq_length)\n        self.vocabulary_size = args.vocabulary_size",
        *("part2/model.py", "import torch.nn as nn", "import torch.nn as nn\nfrom dataset import TextDataset"),
    ),
    "a flag more": (
        *("uva-2021", "part2", "part2/model.py", "self.vocabulary_size = args.vocabulary_size"),
        "self.vocabulary_size, self.depth = args.vocabulary_size, args.depth",
        *("part2/train.py", "    args = parser", "    parser.add_argument('--depth', type=int, default=1)\n    args = parser"),
    ),
    "types in compute_loss": (
        *("uva-2021", "part3", "part3/networks.py", "types = edge_attr.argmax(dim=1)", "types = edge_attr"),
        *("part3/train.py", "molecules.edge_attr, molecules.batch", f"{TYPES}, molecules.batch"),
    ),
    "len(loader.dataset)": (
        *("uva-2021", "part3", "part3/train.py", "avg_loss = total / count", "avg_loss = total / len(data_loader.dataset)"),
    ),
    "labels (B, 1)": (
        *("uva-2021", "part3", "part3/train.py", "criterion(out.squeeze(1), labels)", "criterion(out, labels.view(-1, 1))"),
    ),
    "OW before OH": (
        *("uva-2021", "part1", "part1/CNN.ipynb", "N, F, OH, OW = out_grad.shape", "N, F, OW, OH = out_grad.shape"),
        *("part1/CNN.ipynb", "out_grad[:, :, i, j]", "out_grad[:, :, j, i]"),
    ),
}


def edited(files, *edits):
    """Return the files with replacements: path, old, new, and again."""
    files = dict(files)
    for path, old, new in zip(edits[::3], edits[1::3], edits[2::3]):
        assert old in files[path], f"{old!r} is not in {path}"
        files[path] = files[path].replace(old, new)
    return files


def required(judged):
    """Return {(question, subject, probe): what was found} of all required probes, and why one does not hold."""
    return {
        (one.question.number, finding.subject, finding.probe): finding.state
        if finding.state == HELD
        else (finding.state, finding.verdict.message, finding.blocked_by)
        for one in judged
        for finding in one.findings
        if finding.required
    }


@pytest.mark.parametrize("edition", EDITIONS)
def test_a_solution_of_each_edition_holds_in_full(judged, edition):
    found = judged(solution(edition), edition=None if edition != "uva-2019-spring" else edition)
    assert {state for state in required(found).values()} == {HELD}, required(found)
    assert {one.part.name for one in found} == {path.split("/")[0].lower().replace(" ", "") for path in solution(edition)}
    advice = [finding for one in found if one.question.number != "handed out" for finding in one.findings]
    assert not [finding for finding in advice if finding.state == ADVICE]


@pytest.mark.parametrize(("edition", "part", "edits"), [(f[0], f[1], f[2:]) for f in FORMS.values()], ids=FORMS)
def test_a_correct_form_has_the_same_verdicts(judged, edition, part, edits):
    if edits[2] is None:
        edits = (*edits[:2], edits[1] + SAMPLE_2019)
    found = required(judged(edited(solution(edition), *edits), edition, part))
    assert {state for state in found.values()} == {HELD}, found


@pytest.mark.parametrize("place", ["", "assignment2/", "group 7/code/assignment2/"])
def test_a_submission_may_lie_at_any_depth(judged, place):
    files = {place + path: text for path, text in solution("uva-2021").items() if path.startswith("part3")}
    files = {path: text.replace("from data", "from assignment2.part3.data") for path, text in files.items()}
    found = required(judged(files))
    assert {state for state in found.values()} == {HELD}, found


def test_the_folder_may_be_the_part_itself(judged, tmp_path):
    files = {path.split("/")[1]: text for path, text in solution("uva-2019-november").items() if "part2" in path}
    files["train.py"] = files["train.py"].replace("from dataset", "from part2.dataset")
    for path, text in files.items():
        (tmp_path / "part2").mkdir(exist_ok=True)
        (tmp_path / "part2" / path).write_text(text, encoding="utf-8")
    found = required(judged(tmp_path / "part2", "uva-2019-november"))
    assert {state for state in found.values()} == {HELD}, found


def test_a_part_may_be_a_notebook(judged):
    files = {"part1/rnn.ipynb": notebook("#cell\n".join(list(solution("lmu-2024").values())[:3]))}
    found = required(judged(files))
    training = [found.pop(key) for key in list(found) if key[0] == "1.2 (training)"]
    assert {state for state in found.values()} == {HELD}, found
    assert all("there is no train.py" in str(one) for one in training), training


@pytest.mark.parametrize("name", ["gru", "peep_lstm", "bi_lstm"])
@pytest.mark.parametrize("symbols", ["num_classes", "3"])
def test_one_variant_of_2020_is_enough_for_one_data_set(judged, name, symbols):
    files = {"Part 1/lstm.py": variant("lstm", symbols), f"Part 1/{name}.py": variant(name, symbols)}
    found = required(judged(files))
    assert {state for state in found.values()} == {HELD}, found
    assert len({subject for _, subject, _ in found}) == 2


def test_a_name_may_be_imported_from_another_file(judged):
    files = solution("lmu-2024") | {"part1/lstm.py": "from mine import LSTM\n", "part1/mine.py": LSTM}
    found = required(judged(files))
    assert {state for state in found.values()} == {HELD}, found
