"""Faults, planted one at a time in a correct solution: each is named at its question, and at no other.

Most stand in published solutions of the assignment. A fault is judged in the first of its editions by the fast tests,
in the others by the slow ones.
"""

import pytest

from grading.answer import ADVICE, FAILED, STUB
from tests.grading.solutions import solution
from tests.grading.test_forms import SAMPLE_2019, edited

PALINDROMES = ("lmu-2024", "uva-2019-spring", "uva-2019-november")
SPRING, NOVEMBER, UVA_2020, UVA_2021 = ("uva-2019-spring",), ("uva-2019-november",), ("uva-2020",), ("uva-2021",)
TEXTS = (*SPRING, *NOVEMBER)
RNN, LSTM, TRAIN_1 = "part1/vanilla_rnn.py", "part1/lstm.py", "part1/train.py"
MODEL, TRAIN_2, NETWORKS, TRAIN_3 = "part2/model.py", "part2/train.py", "part3/networks.py", "part3/train.py"
LAYERS, MAIN = "part1/CNN.ipynb", "part1/main_cnn.py"
LOOP = "for t in range(x.shape[1])"
ZEROS = "torch.zeros(x.shape[0], self.num_hidden)"
NEXT_H = "h = torch.tanh(c) * torch.sigmoid(o)"
DRAW = "torch.multinomial(torch.softmax(p / temperature, dim=1), 1).t()"
CLIP_1 = "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=config.max_norm)"
CLIP_2 = "torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip_grad_norm)"
POOL = "geom_nn.global_add_pool(x, batch_idx)"
WINDOW = "[:, :, i * sh:i * sh + FH, j * sw:j * sw + FW]"

# what: editions, part, question, the probe that names it, then file, old, new, and again
FAULTS = {
    "softmax": (PALINDROMES, "part1", "1.6", "output_is_logits", LSTM, "return p", "return p.softmax(dim=1)"),
    "softmax over the batch": (PALINDROMES, "part1", "1.2", "output_is_logits", RNN, "return p", "return p.softmax(dim=0)"),
    "c(0) is 1": (
        *(PALINDROMES, "part1", "1.6", "state_starts_at_zero"),
        *(LSTM, f"c = {ZEROS}", f"c = {ZEROS.replace('zeros', 'ones')}"),
    ),
    "h(0) is random": (
        *(PALINDROMES, "part1", "1.2", "calls_keep_no_state", RNN, ZEROS, ZEROS.replace("zeros", "rand")),
    ),
    "rows leak": (
        *(PALINDROMES, "part1", "1.6", "rows_are_independent_and_remembered"),
        *(LSTM, "h @ self.W_h ", "h.roll(1, 0) @ self.W_h "),
    ),
    "the batch is read as time": (
        *(PALINDROMES, "part1", "1.2", "rows_are_independent_and_remembered"),
        *(RNN, "p = h @", "h = torch.tanh(x.cumsum(0)[:, -1] @ self.W_hx + self.b_h)\n        p = h @"),
    ),
    "the last digit alone is read": (
        *(PALINDROMES, "part1", "1.2", "rows_are_independent_and_remembered"),
        *(RNN, "range(x.shape[1])", "range(x.shape[1] - 1, x.shape[1])"),
    ),
    "one step too few": (
        *(PALINDROMES, "part1", "1.6", "rows_are_independent_and_remembered"),
        *(LSTM, "range(x.shape[1])", "range(x.shape[1] - 1)"),
    ),
    "a state kept between calls": (
        *(PALINDROMES, "part1", "1.6", "calls_keep_no_state"),
        *(LSTM, f"h = {ZEROS}", f"h = getattr(self, 'h', {ZEROS})"),
        *(LSTM, "return p", "self.h = h.detach()\n        return p"),
    ),
    "detach": (PALINDROMES, "part1", "1.6", "every_parameter_gets_its_gradient", LSTM, NEXT_H, f"h = ({NEXT_H[4:]}).detach()"),
    ".data": (PALINDROMES, "part1", "1.2", "every_parameter_gets_its_gradient", RNN, "h @ self.W_hh", "h.data @ self.W_hh"),
    "a weight that is no parameter": (
        *(PALINDROMES, "part1", "1.2", "parameter_count", RNN, "weight(num_hidden, num_hidden)"),
        "torch.empty(num_hidden, num_hidden).uniform_(-bound, bound)",
    ),
    "weights start at zero": (
        *(PALINDROMES, "part1", "1.6", "weights_start_different", LSTM, ".uniform_(-bound, bound)", ".zero_()"),
    ),
    "weights of unit variance": (
        *(PALINDROMES, "part1", "1.2", "initial_loss_is_near_log_k", RNN, ".uniform_(-bound, bound)", ".normal_()"),
    ),
    "nn.Linear": (
        *(PALINDROMES, "part1", "1.6", "no_ready_made_layers", LSTM, "self.W_ph, self.b_p = weight(num_hidden, num_classes), "),
        "self.output = nn.Linear(num_hidden, num_classes)\n        self.unused = (weight(num_hidden, num_classes), ",
        *(LSTM, "weight(num_classes)\n", "weight(num_classes))\n"),
        *(LSTM, "h @ self.W_ph + self.b_p", "self.output(h)"),
    ),
    "no tanh of c": (
        *(PALINDROMES, "part1", "1.6", "equations_hold_for_equal_parameters", LSTM, "torch.tanh(c) *", "c *"),
    ),
    "a sigma for g": (
        *(PALINDROMES, "part1", "1.6", "equations_hold_for_equal_parameters", LSTM, "torch.tanh(g)", "torch.sigmoid(g)"),
    ),
    "no bias": (
        *(PALINDROMES, "part1", "1.2", "parameter_count", RNN, ", self.b_h = weight(input_dim", " = weight(input_dim"),
        *(RNN, ", weight(num_hidden)\n", "\n", RNN, " + self.b_h", ""),
    ),
    "a relu": (PALINDROMES, "part1", "1.2", "equations_hold_for_equal_parameters", RNN, "torch.tanh(x", "torch.relu(x"),
    "a batch size baked in": (
        *(PALINDROMES, "part1", "1.6", "any_batch_size", LSTM, "torch.zeros(x.shape[0],", "torch.zeros(self.rows,"),
        *(LSTM, "super().__init__()", "super().__init__()\n        self.rows = batch_size"),
    ),
    "a batch size of 16, whatever the constructor says": (
        *(PALINDROMES, "part1", "1.6", "initial_loss_is_near_log_k", LSTM, "torch.zeros(x.shape[0],", "torch.zeros(16,"),
    ),
    "a length baked in": (
        *(PALINDROMES, "part1", "1.2", "any_length", RNN, "range(x.shape[1])", "range(self.seq_length)"),
    ),
    "input_dim ignored": (
        *(PALINDROMES, "part1", "1.6", "input_may_be_vectors", LSTM, "weight(input_dim, ", "weight(1, "),
    ),
    "gradients never zeroed": (
        *(PALINDROMES, "part1", "1.2 (training)", "training_takes_the_steps_asked_for"),
        *(TRAIN_1, "        optimizer.zero_grad()\n", ""),
    ),
    "clipped before backward": (
        *(PALINDROMES, "part1", "1.2 (training)", "training_takes_the_steps_asked_for"),
        *(TRAIN_1, f"loss.backward()\n        {CLIP_1}", f"{CLIP_1}\n        loss.backward()"),
    ),
    "not clipped": (PALINDROMES, "part1", "1.2 (training)", "training_takes_the_steps_asked_for", TRAIN_1, CLIP_1, "pass"),
    "the learning rate ignored": (
        *(PALINDROMES, "part1", "1.2 (training)", "training_takes_the_steps_asked_for"),
        *(TRAIN_1, "lr=config.learning_rate", "lr=0.001"),
    ),
    "a schedule for every batch": (
        *(PALINDROMES, "part1", "1.2 (training)", "training_takes_the_steps_asked_for"),
        *(TRAIN_1, "        optimizer.step()", "        optimizer.step(); optimizer.param_groups[0]['lr'] *= 0.5"),
    ),
    "a changed constructor": (
        *(PALINDROMES, "part1", "1.6", "runs", LSTM, "def __init__(self, ", "def __init__(self, vocabulary, layers, "),
    ),
    "no such class": (PALINDROMES, "part1", "1.6", "runs", LSTM, "class LSTM", "class Lstm"),
    "no Python": (PALINDROMES, "part1", "1.6", "runs", LSTM, "class LSTM", "clas LSTM"),
    "an exit on import": (PALINDROMES, "part1", "1.2", "runs", RNN, "import torch\n", "raise SystemExit(0)\n"),
    "no softmax in 2020": (
        *(UVA_2020, "part1", "1.3", "output_is_log_probabilities"),
        *("Part 1/lstm.py", "torch.log_softmax(h @ self.W_ph + self.b_p, dim=1)", "h @ self.W_ph + self.b_p"),
    ),
    "a log-softmax over the batch": (
        *(UVA_2020, "part1", "1.4", "output_is_log_probabilities", "Part 1/gru.py", "self.b_p, dim=1)", "self.b_p, dim=0)"),
    ),
    "z and 1 - z swapped": (
        *(UVA_2020, "part1", "1.4", "equations_hold_for_equal_parameters"),
        *("Part 1/gru.py", "(1 - z) * h + z *", "z * h + (1 - z) *"),
    ),
    "peepholes that read h": (
        *(UVA_2020, "part1", "1.4", "equations_hold_for_equal_parameters"),
        *("Part 1/peep_lstm.py", "c @ self.W_c", "c.tanh() @ self.W_c"),
    ),
    "backwards the same way": (
        *(UVA_2020, "part1", "1.4", "rows_are_independent_and_remembered"),
        *("Part 1/bi_lstm.py", "(x, x.flip(1))", "(x[:, 1:], x[:, 1:])"),
    ),
    "text: softmax": (
        *(TEXTS, "part2", "2.1a", "output_is_logits", MODEL, "return self.out(h)", "return self.out(h).softmax(dim=2)"),
    ),
    "text: a state kept": (
        *(TEXTS, "part2", "2.1a", "calls_keep_no_state", MODEL, "h, _ = self.lstm(self.embed(x))"),
        "h, s = self.lstm(self.embed(x), getattr(self, 's', None)); self.s = tuple(one.detach() for one in s)",
    ),
    "text: weights start at zero": (
        *(TEXTS, "part2", "2.1a", "weights_start_different", MODEL, "        self.to(device)"),
        "        nn.init.zeros_(self.out.weight)",
    ),
    "text: the number of layers ignored": (
        *(TEXTS, "part2", "2.1a", "layers_are_as_many_as_asked", MODEL, "lstm_num_hidden, lstm_num_layers, b", "lstm_num_hidden, 2, b"),
    ),
    "text: characters as numbers": (
        *(TEXTS, "part2", "2.1a", "characters_are_no_numbers", MODEL, "nn.LSTM(24, ", "nn.LSTM(1, "),
        *(MODEL, "self.embed(x)", "x.unsqueeze(2)", MODEL, "        self.embed = nn.Embedding(vocabulary_size, 24)\n", ""),
        *(TRAIN_2, "model(inputs.to(device))", "model(inputs.float())"),
    ),
    "text: batch_first forgotten": (
        *(TEXTS, "part2", "2.1a (training)", "training_keeps_rows_apart", MODEL, ", batch_first=True", ""),
    ),
    "text: the decay fraction as weight decay": (
        *(TEXTS, "part2", "2.1a (training)", "training_takes_the_steps_asked_for"),
        *(TRAIN_2, "lr=config.learning_rate)", "lr=config.learning_rate, weight_decay=config.learning_rate_decay)"),
    ),
    "text: a sum for a mean": (
        *(TEXTS, "part2", "2.1a (training)", "loss_is_an_average", TRAIN_2, "CrossEntropyLoss()", "CrossEntropyLoss(reduction='sum')"),
    ),
    "2019: temperature a divisor": (
        *(NOVEMBER, "part2", "2.1c", "sampled_frequencies_match_the_softmax"),
        *(MODEL, "return self.out(h)\n", "return self.out(h)\n" + SAMPLE_2019.replace("p * temp", "p / temp")),
    ),
    "spring 2019: temperature a factor": (
        *(SPRING, "part2", "2.1c", "sampled_frequencies_match_the_softmax"),
        *(MODEL, "return self.out(h)\n", "return self.out(h)\n" + SAMPLE_2019),
    ),
    "2019: samples without a state": (
        *(NOVEMBER, "part2", "2.1b", "samples_follow_the_model"),
        *(MODEL, "return self.out(h)\n", "return self.out(h)\n" + SAMPLE_2019.replace("self.embed(x), state)", "self.embed(x))")),
    ),
    "LSTM: rows leak": (
        *(UVA_2021, "part2", "2.3", "rows_are_independent_and_causal", MODEL, "h @ self.W_h", "h.roll(1, 0) @ self.W_h"),
    ),
    "LSTM: the batch is read as time": (
        *(UVA_2021, "part2", "2.3", "rows_are_independent_and_causal", MODEL, "for x in embeds:"),
        *("for x in embeds.transpose(0, 1):", MODEL, "torch.zeros(embeds.shape[1],", "torch.zeros(embeds.shape[0],"),
        *(MODEL, "return torch.stack(states)", "return torch.stack(states, dim=1)"),
    ),
    "LSTM: c(0) is 1": (
        *(UVA_2021, "part2", "2.3", "state_starts_at_zero", MODEL, "h = c = torch.zeros(embeds.shape[1], self.hidden_dim)"),
        "h, c = torch.zeros(embeds.shape[1], self.hidden_dim), torch.ones(embeds.shape[1], self.hidden_dim)",
    ),
    "LSTM: a state kept": (
        *(UVA_2021, "part2", "2.3", "calls_keep_no_state", MODEL, "        if state is not None:"),
        "        state = state or getattr(self, 'last', None)\n        if state is not None:",
    ),
    "LSTM: a batch size baked in": (
        *(UVA_2021, "part2", "2.3", "any_batch_size_and_length", MODEL, "torch.zeros(embeds.shape[1],", "torch.zeros(5,"),
    ),
    "LSTM: detach": (
        *(UVA_2021, "part2", "2.3", "every_parameter_gets_its_gradient", MODEL, "states.append(h)", "states.append(h); c = c.detach()"),
    ),
    "LSTM: nn.Linear": (
        *(UVA_2021, "part2", "2.3", "no_ready_made_layers", MODEL, "self.W_h = nn.Parameter(torch.empty(lstm_hidden_dim, 4"),
        "self.hidden = nn.Linear(lstm_hidden_dim, 4 * lstm_hidden_dim, bias=False); "
        "self.W_h = self.hidden.weight; (torch.empty(lstm_hidden_dim, 4",
        *(MODEL, "h @ self.W_h", "self.hidden(h)"),
    ),
    "LSTM: a bias left out": (
        *(UVA_2021, "part2", "2.3", "parameter_count", MODEL, "(self.b_g, self.b_i, self.b_f, self.b_o)"),
        *("(0 * self.b_f, self.b_i, self.b_f, self.b_o)", MODEL, "self.b_g, self.b_i, self.b_f, self.b_o = (nn"),
        *("self.b_i, self.b_f, self.b_o = (nn", MODEL, "for _ in range(4))", "for _ in range(3))"),
    ),
    "LSTM: no tanh of c": (
        *(UVA_2021, "part2", "2.3", "equations_hold_for_equal_parameters", MODEL, "h = torch.tanh(c) *", "h = c *"),
    ),
    "LSTM: normal weights": (
        *(UVA_2021, "part2", "2.3", "initial_weights_are_uniform", MODEL, "nn.init.uniform_(parameter, -bound, bound)"),
        "nn.init.normal_(parameter, std=bound)",
    ),
    "LSTM: zero weights": (
        *(UVA_2021, "part2", "2.3", "weights_start_different", MODEL, "nn.init.uniform_(parameter, -bound, bound)"),
        "nn.init.zeros_(parameter)",
    ),
    "LSTM: no 1 in the forget gate's bias": (
        *(UVA_2021, "part2", "2.3", "initial_weights_are_uniform", MODEL, "self.b_f.data += 1", "pass"),
    ),
    "LSTM: the 1 in another gate's bias": (
        *(UVA_2021, "part2", "2.3", "forget_gate_starts_open", MODEL, "self.b_f.data += 1", "self.b_i.data += 1"),
    ),
    "model: nn.LSTM": (
        *(UVA_2021, "part2", "2.4a", "no_ready_made_layers", MODEL, "self.lstm = LSTM(args.lstm_hidden_dim, args.embedding_size)"),
        *("self.lstm = nn.LSTM(args.embedding_size, args.lstm_hidden_dim)", MODEL, "h = self.lstm(self.embed(x), state)"),
        *("h, self.lstm.last = self.lstm(self.embed(x), state)", MODEL, "return self.out(h)", "return self.out(h)"),
    ),
    "model: softmax": (
        *(UVA_2021, "part2", "2.4a", "output_is_logits", MODEL, "return self.out(h)", "return self.out(h).softmax(dim=-1)"),
    ),
    "model: softmax over time": (
        *(UVA_2021, "part2", "2.4a", "rows_are_independent_and_causal", MODEL, "return self.out(h)", "return self.out(h).softmax(dim=0)"),
    ),
    "model: a frozen embedding": (
        *(UVA_2021, "part2", "2.4a", "parameter_count", MODEL, "        self.lstm = LSTM", "        self.embed.requires_grad_(False)\n        self.lstm = LSTM"),
    ),
    "train: no zero_grad": (
        *(UVA_2021, "part2", "2.4a (training)", "training_takes_the_steps_asked_for", TRAIN_2, "optimizer.zero_grad()", "pass"),
    ),
    "train: clipped before backward": (
        *(UVA_2021, "part2", "2.4a (training)", "training_takes_the_steps_asked_for"),
        *(TRAIN_2, f"loss.backward()\n            {CLIP_2}", f"{CLIP_2}\n            loss.backward()"),
    ),
    "train: the batch first": (
        *(UVA_2021, "part2", "2.4a (training)", "training_keeps_rows_apart"),
        *(TRAIN_2, "output = model(x.to(args.device))", "output = model(x.t()); targets = targets.t()"),
    ),
    "train: a sum over time": (
        *(UVA_2021, "part2", "2.4a (training)", "loss_is_an_average", TRAIN_2, "targets.to(args.device).flatten())"),
        "targets.to(args.device).flatten()) * len(x)",
    ),
    "sample: a character too few": (
        *(UVA_2021, "part2", "2.4b", "samples_have_their_shape", MODEL, "len(text) < sample_length", "len(text) < sample_length - 1"),
    ),
    "sample: no state carried": (
        *(UVA_2021, "part2", "2.4b", "samples_follow_the_model", MODEL, "state = self.lstm.last", "state = None"),
    ),
    "sample: rows leak": (
        *(UVA_2021, "part2", "2.4b", "samples_follow_the_model", MODEL, "state = self.lstm.last"),
        "state = tuple(s.roll(1, 0) for s in self.lstm.last)",
    ),
    "sample: one first character for all": (
        *(UVA_2021, "part2", "2.4b", "samples_start_with_any_character", MODEL, "(1, batch_size))", "(1, 1)).expand(1, batch_size)"),
    ),
    "sample: random at temperature 0": (
        *(UVA_2021, "part2", "2.4b", "samples_follow_the_model", MODEL, "x = p.argmax(dim=1).unsqueeze(0)"),
        "x = torch.multinomial(torch.softmax(p, dim=1), 1).t()",
    ),
    "sample: gradients recorded": (
        *(UVA_2021, "part2", "2.4b", "sampling_leaves_the_model_as_it_was", MODEL, "    @torch.no_grad()\n", ""),
    ),
    "sample: dropout left on": (
        *(UVA_2021, "part2", "2.4b", "sampling_turns_dropout_off", MODEL, "return self.out(h)", "return self.out(self.drop(h))"),
        *(MODEL, "        self.out =", "        self.drop = nn.Dropout(getattr(args, 'dropout', 0))\n        self.out ="),
    ),
    "sample: temperature a factor": (
        *(UVA_2021, "part2", "2.4c", "sampled_frequencies_match_the_softmax", MODEL, "p / temperature", "p * temperature"),
    ),
    "sample: temperature ignored": (
        *(UVA_2021, "part2", "2.4c", "sampled_frequencies_match_the_softmax", MODEL, "p / temperature", "p"),
    ),
    "sample: argmax at every temperature": (
        *(UVA_2021, "part2", "2.4c", "sampled_frequencies_match_the_softmax", MODEL, DRAW, "(p / temperature).argmax(dim=1).unsqueeze(0)"),
    ),
    "sample: softmax over the batch": (
        *(UVA_2021, "part2", "2.4c", "sampled_frequencies_match_the_softmax", MODEL, "temperature, dim=1), 1)", "temperature, dim=0), 1)"),
    ),
    "sample: one draw for all rows": (
        *(UVA_2021, "part2", "2.4c", "sampled_rows_are_drawn_apart", MODEL, DRAW, DRAW + "[:, :1].expand(1, batch_size)"),
    ),
    "sample: a seed of its own": (
        *(UVA_2021, "part2", "2.4c", "sampled_rows_are_drawn_apart", MODEL, "        x = torch.randint("),
        "        x = torch.randint(self.vocabulary_size, (1, batch_size)); torch.manual_seed(0); torch.randint(",
    ),
    "MLP: linear": (UVA_2021, "part3", "3.6b", "mlp_has_the_layers_asked_for", NETWORKS, "nn.Linear(a, b), nn.ReLU()", "nn.Linear(a, b)"),
    "MLP: a layer too few": (
        *(UVA_2021, "part3", "3.6b", "mlp_has_the_layers_asked_for", NETWORKS, "zip(sizes, sizes[1:])", "zip(sizes[:1], sizes[-1:])"),
    ),
    "MLP: zero weights": (
        *(UVA_2021, "part3", "3.6b", "weights_start_different", NETWORKS, "nn.Linear(sizes[-1], n_outputs))\n"),
        "nn.Linear(sizes[-1], n_outputs))\n        [nn.init.zeros_(p) for p in self.parameters()]\n",
    ),
    "GNN: a block too few": (
        *(UVA_2021, "part3", "3.6d", "gnn_has_the_blocks_asked_for", NETWORKS, "range(num_convolution_blocks)", "range(num_convolution_blocks - 1 or 1)"),
    ),
    "GNN: types of bonds unread": (
        *(UVA_2021, "part3", "3.6d", "gnn_reads_elements_bonds_and_their_types", NETWORKS, "edge_attr.argmax(dim=1)", "0 * edge_attr.argmax(dim=1)"),
    ),
    "GNN: numbers of atoms read": (
        *(UVA_2021, "part3", "3.6d", "gnn_does_not_see_the_numbering", NETWORKS, "x = self.embed(x)\n"),
        "x = self.embed(x) + torch.arange(len(x)).unsqueeze(1) % 3\n",
    ),
    "GNN: molecules mixed": (
        *(UVA_2021, "part3", "3.6d", "gnn_keeps_molecules_apart", NETWORKS, POOL, f"({POOL} + 0.1 * x.mean(0))"),
    ),
    "GNN: a mean over atoms": (
        *(UVA_2021, "part3", "3.6d", "gnn_sums_over_atoms_before_its_last_layers", NETWORKS, "global_add_pool", "global_mean_pool"),
    ),
    "GNN: pooling after its MLP": (
        *(UVA_2021, "part3", "3.6d", "gnn_sums_over_atoms_before_its_last_layers"),
        *(NETWORKS, f"self.head({POOL})", "geom_nn.global_add_pool(self.head(x), batch_idx)"),
    ),
    "loss: every molecule with every label": (
        *(UVA_2021, "part3", "3.6b, d (loss)", "loss_compares_each_molecule_with_its_label", TRAIN_3, "out.squeeze(1), labels", "out, labels"),
    ),
    "evaluation: batches count alike": (
        *(UVA_2021, "part3", "3.6c, d (evaluation)", "evaluation_counts_every_molecule_once"),
        *(TRAIN_3, ".item() * molecules.num_graphs", ".item()", TRAIN_3, "count += molecules.num_graphs", "count += 1"),
    ),
    "evaluation: in training mode": (
        *(UVA_2021, "part3", "3.6c, d (evaluation)", "evaluation_is_in_evaluation_mode", TRAIN_3, "    model.eval()\n", ""),
    ),
    "evaluation: gradients recorded": (
        *(UVA_2021, "part3", "3.6c, d (evaluation)", "evaluation_records_no_gradients", TRAIN_3, "torch.no_grad()", "torch.enable_grad()"),
    ),
    "evaluation: never permuted": (
        *(UVA_2021, "part3", "3.6c, d (evaluation)", "evaluation_renumbers_when_asked_to", TRAIN_3, "if permute:", "if permute is None:"),
    ),
    "training: the last model": (
        *(UVA_2021, "part3", "3.6b, d (training)", "training_returns_the_best_model", TRAIN_3, "    model = best\n", ""),
    ),
    "training: the worst model": (
        *(UVA_2021, "part3", "3.6b, d (training)", "training_returns_the_best_model", TRAIN_3, "val_losses[-1] < lowest", "val_losses[-1] < lowest or True"),
    ),
    "training: no copy of the best": (
        *(UVA_2021, "part3", "3.6b, d (training)", "training_returns_the_best_model", TRAIN_3, "deepcopy(model), val", "model, val"),
    ),
    "training: the learning rate ignored": (
        *(UVA_2021, "part3", "3.6b, d (training)", "training_steps_with_the_rate_asked_for", TRAIN_3, "lr=lr", "lr=1e-3"),
    ),
    "training: gradients never zeroed": (
        *(UVA_2021, "part3", "3.6b, d (training)", "training_steps_with_the_rate_asked_for", TRAIN_3, "            optimizer.zero_grad()\n", ""),
    ),
    "padding: height and width swapped": (
        *(UVA_2021, "part1", "1.1 (1)", "padding_goes_around_height_and_width", LAYERS, "ph, pw = padding", "pw, ph = padding"),
    ),
    "padding: np.pad": (
        *(UVA_2021, "part1", "1.1 (1)", "padding_does_without_np_pad", LAYERS, "zero_pad[:, :, ph:ph + IH, pw:pw + IW] = X"),
        "zero_pad = np.pad(X, ((0, 0), (0, 0), (ph, ph), (pw, pw)))",
    ),
    "padding: none becomes nothing": (
        *(UVA_2021, "part1", "1.1 (1)", "padding_of_zero_is_none", LAYERS, "zero_pad[:, :, ph:ph + IH, pw:pw + IW] = X"),
        "zero_pad[:, :, ph:-ph, pw:-pw] = X if ph and pw else 0",
    ),
    "convolution: the filter flipped": (
        *(UVA_2021, "part1", "1.1 (2)", "convolution_does_not_flip_the_filter", LAYERS, "window, W)", "window, W[:, :, ::-1, ::-1])"),
    ),
    "convolution: the stride ignored": (
        *(UVA_2021, "part1", "1.1 (2)", "convolution_takes_any_stride", LAYERS, f"window = X{WINDOW}", "window = X[:, :, i:i + FH, j:j + FW]"),
    ),
    "convolution: squares only": (
        *(UVA_2021, "part1", "1.1 (2)", "convolution_takes_rectangles", LAYERS, "1 + (IW - FW) // sw", "1 + (IH - FH) // sw"),
    ),
    "filter's gradient: the last window": (
        *(UVA_2021, "part1", "1.1 (3)", "gradient_is_the_sum_over_all_windows", LAYERS, "dW += np", "dW = np"),
    ),
    "input's gradient: no sum": (
        *(UVA_2021, "part1", "1.1 (3)", "gradient_is_the_sum_over_all_windows", LAYERS, f"dX{WINDOW} +=", f"dX{WINDOW} ="),
    ),
    "input's gradient: the stride swapped": (
        *(UVA_2021, "part1", "1.1 (3)", "gradient_takes_any_stride", LAYERS, "dX[:, :, i * sh:i * sh + FH, j * sw:j * sw + FW]"),
        "dX[:, :, i * sw:i * sw + FH, j * sh:j * sh + FW]",
    ),
    "pooling: starts at 0": (
        *(UVA_2021, "part1", "1.1 (4.1)", "pooling_of_negative_numbers_is_negative", LAYERS, ".max(axis=(2, 3))", ".max(axis=(2, 3), initial=0)"),
    ),
    "pooling's gradient: no sum": (
        *(UVA_2021, "part1", "1.1 (4.2)", "pool_gradients_of_overlapping_windows_add_up", LAYERS, "j * s + l] +=", "j * s + l] ="),
    ),
    "pooling's gradient: positive maxima": (
        *(UVA_2021, "part1", "1.1 (4.2)", "pool_gradient_goes_to_the_maximum", LAYERS, "window.argmax()", "abs(window).argmax()"),
    ),
    "pooling's gradient: writes to its input": (
        *(UVA_2021, "part1", "1.1 (4.2)", "arguments_stay_as_they_were", LAYERS, "    return dX_pool", "    grad_pool *= 0\\n\", \"    return dX_pool"),
    ),
    "accuracy: argmax over the batch": (
        *(UVA_2021, "part1", "1.2a", "accuracy_counts_every_image_once", MAIN, "argmax(dim=1)", "softmax(dim=0).argmax(dim=1)"),
    ),
    "accuracy: batches count alike": (
        *(UVA_2021, "part1", "1.2a", "accuracy_counts_every_image_once", MAIN, ".sum().item()", ".double().mean().item()"),
        *(MAIN, "len(data_loader.dataset)", "len(data_loader)"),
    ),
    "accuracy: in training mode": (UVA_2021, "part1", "1.2a", "evaluation_is_in_evaluation_mode", MAIN, "    model.eval()\n", ""),
    "accuracy: gradients recorded": (UVA_2021, "part1", "1.2a", "evaluation_records_no_gradients", MAIN, "@torch.no_grad()\n", ""),
}
CASES = [
    pytest.param(edition, *fault[1:4], fault[4:], id=f"{edition}: {what}", marks=[pytest.mark.slow] * (number > 0))
    for what, fault in FAULTS.items()
    for number, edition in enumerate(fault[0])
]


@pytest.mark.parametrize(("edition", "part", "question", "probe", "edits"), CASES)
def test_a_fault_is_named_at_its_question_and_at_no_other(judged, edition, part, question, probe, edits):
    found = judged(edited(solution(edition), *edits), edition, part)
    named = {
        (one.question.number, finding.probe): (finding.subject, finding.verdict.message, finding.verdict.place)
        for one in found
        for finding in one.findings
        if finding.state in (FAILED, ADVICE, STUB)
    }
    assert (question, probe) in named, named
    assert {number for number, _ in named} == {question}, named
    subject, message, place = named[question, probe]
    assert "Traceback" not in message and "\n" not in message
    if subject and not message.startswith("no file defines"):
        assert place.startswith(edits[0]), (place, message)
