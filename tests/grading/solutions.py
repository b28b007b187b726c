"""Small correct solutions of every edition, from one source for what editions share, as {path: text}.

`solution(edition)` is the plainest form; a test changes a few lines of it, to another correct form or to a fault.
"""

import json
from pathlib import Path
from textwrap import dedent

EDITIONS = ("lmu-2024", "uva-2019-spring", "uva-2019-november", "uva-2020", "uva-2021")

PALINDROMES = """\
import math
import sys
import numpy as np
import torch.utils.data as data


class PalindromeDataset(data.Dataset):
    def __init__(self, seq_length):
        self.seq_length = seq_length

    def __len__(self):
        return sys.maxsize

    def __getitem__(self, idx):
        whole = self.generate_palindrome()
        return whole[:-1], int(whole[-1])

    def generate_palindrome(self):
        left = np.random.randint(0, 10, math.ceil(self.seq_length / 2)).astype(np.float32)
        return np.concatenate((left, left[::-1][self.seq_length % 2:]))
"""

VANILLA_RNN = """\
import torch
import torch.nn as nn


class VanillaRNN(nn.Module):
    def __init__(self, seq_length, input_dim, num_hidden, num_classes, batch_size, device="cpu"):
        super().__init__()
        self.seq_length, self.num_hidden = seq_length, num_hidden
        bound = num_hidden ** -0.5

        def weight(*shape):
            return nn.Parameter(torch.empty(*shape, device=device).uniform_(-bound, bound))

        self.W_hx, self.b_h = weight(input_dim, num_hidden), weight(num_hidden)
        self.W_hh = weight(num_hidden, num_hidden)
        self.W_ph, self.b_p = weight(num_hidden, num_classes), weight(num_classes)

    def forward(self, x):
        x = x if x.dim() == 3 else x.unsqueeze(2)
        h = torch.zeros(x.shape[0], self.num_hidden)
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] @ self.W_hx + h @ self.W_hh + self.b_h)
        p = h @ self.W_ph + self.b_p
        return p
"""

LSTM = """\
import torch
import torch.nn as nn


class LSTM(nn.Module):
    def __init__(self, seq_length, input_dim, num_hidden, num_classes, batch_size, device="cpu"):
        super().__init__()
        self.seq_length, self.num_hidden = seq_length, num_hidden
        bound = num_hidden ** -0.5

        def weight(*shape):
            return nn.Parameter(torch.empty(*shape, device=device).uniform_(-bound, bound))

        self.W_x, self.W_h = weight(input_dim, 4 * num_hidden), weight(num_hidden, 4 * num_hidden)
        self.b = weight(4 * num_hidden)
        self.W_ph, self.b_p = weight(num_hidden, num_classes), weight(num_classes)

    def forward(self, x):
        x = x if x.dim() == 3 else x.unsqueeze(2)
        h = torch.zeros(x.shape[0], self.num_hidden)
        c = torch.zeros(x.shape[0], self.num_hidden)
        for t in range(x.shape[1]):
            g, i, f, o = (x[:, t] @ self.W_x + h @ self.W_h + self.b).chunk(4, dim=1)
            c = torch.tanh(g) * torch.sigmoid(i) + c * torch.sigmoid(f)
            h = torch.tanh(c) * torch.sigmoid(o)
        p = h @ self.W_ph + self.b_p
        return p
"""

TRAIN_PALINDROMES = """\
import argparse
import torch
from torch.utils.data import DataLoader
from dataset import PalindromeDataset
from vanilla_rnn import VanillaRNN
from lstm import LSTM


def train(config):
    device = torch.device(config.device)
    kind = VanillaRNN if config.model_type == "RNN" else LSTM
    sizes = config.input_length, config.input_dim, config.num_hidden
    model = kind(*sizes, config.num_classes, config.batch_size, device)
    loader = DataLoader(PalindromeDataset(config.input_length + 1), config.batch_size, num_workers=1)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=config.learning_rate)
    for step, (inputs, targets) in enumerate(loader):
        optimizer.zero_grad()
        loss = criterion(model(inputs.to(device)), targets.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=config.max_norm)
        optimizer.step()
        if step == config.train_steps:
            break


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, default in {"model_type": "RNN", "input_length": 10, "input_dim": 1, "num_classes": 10, "num_hidden": 128,
                          "batch_size": 128, "train_steps": 10000, "device": "cpu"}.items():
        parser.add_argument("--" + name, type=type(default), default=default)
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--max_norm", type=float, default=10.0)
    train(parser.parse_args())
"""
# The flags by which a probe tells what a script takes are looked for in its text.
FLAGS = "# --model_type --input_length --input_dim --num_classes --num_hidden --batch_size --train_steps --device\n"

TEXTS_2019 = """\
import os
import numpy as np
import torch
import torch.utils.data as data


class TextDataset(data.Dataset):
    def __init__(self, filename, seq_length):
        assert os.path.splitext(filename)[1] == ".txt"
        self._seq_length = seq_length
        self._data = open(filename, "r").read()
        self._chars = sorted(set(self._data))
        self._ix = {ch: i for i, ch in enumerate(self._chars)}

    def __getitem__(self, item):
        start = np.random.randint(0, len(self._data) - self._seq_length - 2)
        window = [self._ix[ch] for ch in self._data[start:start + self._seq_length + 1]]
        return torch.LongTensor(window[:-1]), torch.LongTensor(window[1:])

    def convert_to_string(self, char_ix):
        return "".join(self._chars[ix] for ix in char_ix)

    def __len__(self):
        return len(self._data)

    @property
    def vocab_size(self):
        return len(self._chars)
"""

MODEL_2019 = """\
import torch
import torch.nn as nn


class TextGenerationModel(nn.Module):
    def __init__(self, batch_size, seq_length, vocabulary_size,
                 lstm_num_hidden=256, lstm_num_layers=2, device="cuda:0"):
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.embed = nn.Embedding(vocabulary_size, 24)
        self.lstm = nn.LSTM(24, lstm_num_hidden, lstm_num_layers, batch_first=True)
        self.out = nn.Linear(lstm_num_hidden, vocabulary_size)
        self.to(device)

    def forward(self, x):
        h, _ = self.lstm(self.embed(x))
        return self.out(h)
"""

TRAIN_TEXTS_2019 = """\
import argparse
import torch
from torch.utils.data import DataLoader
from dataset import TextDataset
from model import TextGenerationModel


def train(config):
    device = torch.device(config.device)
    dataset = TextDataset(config.txt_file, config.seq_length)
    loader = DataLoader(dataset, config.batch_size, num_workers=1)
    model = TextGenerationModel(config.batch_size, config.seq_length, dataset.vocab_size, config.lstm_num_hidden,
                                config.lstm_num_layers, device)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    for step, (inputs, targets) in enumerate(loader):
        optimizer.zero_grad()
        output = model(inputs.to(device))
        loss = criterion(output.transpose(1, 2), targets.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=config.max_norm)
        optimizer.step()
        if step == config.train_steps:
            break


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--txt_file", type=str, required=True)
    parser.add_argument("--seq_length", type=int, default=30)
    parser.add_argument("--lstm_num_hidden", type=int, default=128)
    parser.add_argument("--lstm_num_layers", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--learning_rate_decay", type=float, default=0.96)
    parser.add_argument("--train_steps", type=int, default=1000)
    parser.add_argument("--max_norm", type=float, default=5.0)
    parser.add_argument("--device", type=str, default="cpu")
    train(parser.parse_args())
"""

SYMBOLS = """\
import sys
import numpy as np
import torch
import torch.utils.data as data


class RandomCombinationsDataset(data.Dataset):
    def __init__(self, seq_length):
        self.seq_length = seq_length

    def __len__(self):
        return sys.maxsize

    def __getitem__(self, idx):
        seq = np.random.permutation(self.seq_length)
        return torch.FloatTensor(seq[:-1]), seq[-1]
"""

# A model of 2020: embedding, a cell, log-probabilities. CELL and SIZE are replaced.
VARIANT = """\
import torch
import torch.nn as nn


class NAME(nn.Module):
    def __init__(self, seq_length, input_dim, hidden_dim, num_classes, batch_size, device):
        super().__init__()
        self.hidden_dim = hidden_dim
        self.embed = nn.Embedding(SYMBOLS, 8)

        def weight(*shape):
            return nn.Parameter(nn.init.kaiming_normal_(torch.empty(*shape), nonlinearity="linear"))

        def zeros(size):
            return nn.Parameter(torch.zeros(size))

        PARAMETERS
        self.W_ph = nn.Parameter(torch.empty(SIZE, num_classes).uniform_(-0.05, 0.05))
        self.b_p = zeros(num_classes)
        self.to(device)

    def forward(self, x):
        x = self.embed(x.reshape(len(x), -1).long())
        READ
        return torch.log_softmax(h @ self.W_ph + self.b_p, dim=1)
"""
LSTM_STEP = """\
for t in range(x.shape[1]):
    g, i, f, o = (x[:, t] @ self.W_x + h @ self.W_h + self.b).chunk(4, dim=1)
    c = torch.tanh(g) * torch.sigmoid(i) + c * torch.sigmoid(f)
    h = torch.tanh(c) * torch.sigmoid(o)"""
START = "h = c = torch.zeros(len(x), self.hidden_dim)\n"
LSTM_WEIGHTS = "self.W_x, self.W_h = weight(8, 4 * hidden_dim), weight(hidden_dim, 4 * hidden_dim)\n"
VARIANTS = {
    "lstm": ("LSTM", "hidden_dim", LSTM_WEIGHTS + "self.b = zeros(4 * hidden_dim)", START + LSTM_STEP),
    "gru": (
        "GRU",
        "hidden_dim",
        "self.W_z, self.W_r, self.W = (weight(8 + hidden_dim, hidden_dim) for _ in range(3))",
        """\
h = torch.zeros(len(x), self.hidden_dim)
for t in range(x.shape[1]):
    both = torch.cat((h, x[:, t]), dim=1)
    z, r = torch.sigmoid(both @ self.W_z), torch.sigmoid(both @ self.W_r)
    h = (1 - z) * h + z * torch.tanh(torch.cat((r * h, x[:, t]), dim=1) @ self.W)""",
    ),
    "peep_lstm": (
        "peepLSTM",
        "hidden_dim",
        """\
self.W_x, self.W_c = weight(8, 3 * hidden_dim), weight(hidden_dim, 3 * hidden_dim)
self.b = zeros(3 * hidden_dim)
self.W_cx, self.b_c = weight(8, hidden_dim), zeros(hidden_dim)""",
        """\
c = torch.zeros(len(x), self.hidden_dim)
for t in range(x.shape[1]):
    f, i, o = torch.sigmoid(x[:, t] @ self.W_x + c @ self.W_c + self.b).chunk(3, dim=1)
    c = torch.sigmoid(x[:, t] @ self.W_cx + self.b_c) * i + c * f
    h = torch.tanh(c) * o""",
    ),
    "bi_lstm": (
        "biLSTM",
        "2 * hidden_dim",
        "self.cells = nn.ModuleList(LSTMCell(hidden_dim, weight, zeros) for _ in range(2))",
        "h = torch.cat([cell(y) for cell, y in zip(self.cells, (x, x.flip(1)))], dim=1)",
    ),
}
CELL = """

class LSTMCell(nn.Module):
    def __init__(self, hidden_dim, weight, zeros):
        super().__init__()
        self.hidden_dim = hidden_dim
        WEIGHTS

    def forward(self, x):
        READ
        return h
"""

LAYERS = """\
def zero_padding(X, padding):
    N, C, IH, IW = X.shape
    ph, pw = padding
    zero_pad = np.zeros((N, C, IH + 2 * ph, IW + 2 * pw))
    zero_pad[:, :, ph:ph + IH, pw:pw + IW] = X
    return zero_pad
#cell
def convolution2D(X, W, stride, padding):
    X = zero_padding(X, padding)
    N, C, IH, IW = X.shape
    F, _, FH, FW = W.shape
    sh, sw = stride
    out = np.zeros((N, F, 1 + (IH - FH) // sh, 1 + (IW - FW) // sw))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            window = X[:, :, i * sh:i * sh + FH, j * sw:j * sw + FW]
            out[:, :, i, j] = np.einsum("nckl,fckl->nf", window, W)
    return out
#cell
def convolution2D_backward_filter(out_grad, X, W, stride):
    dW = np.zeros_like(W)
    N, F, OH, OW = out_grad.shape
    FH, FW = W.shape[2:]
    sh, sw = stride
    for i in range(OH):
        for j in range(OW):
            dW += np.einsum("nf,nckl->fckl", out_grad[:, :, i, j], X[:, :, i * sh:i * sh + FH, j * sw:j * sw + FW])
    return dW
#cell
def convolution2D_backward_input(out_grad, X, W, stride):
    dX = np.zeros_like(X)
    N, F, OH, OW = out_grad.shape
    FH, FW = W.shape[2:]
    sh, sw = stride
    for i in range(OH):
        for j in range(OW):
            dX[:, :, i * sh:i * sh + FH, j * sw:j * sw + FW] += np.einsum("nf,fckl->nckl", out_grad[:, :, i, j], W)
    return dX
#cell
def pool_forward(X, f, s):
    N, C, IH, IW = X.shape
    pool = np.zeros((N, C, 1 + (IH - f) // s, 1 + (IW - f) // s))
    for i in range(pool.shape[2]):
        for j in range(pool.shape[3]):
            pool[:, :, i, j] = X[:, :, i * s:i * s + f, j * s:j * s + f].max(axis=(2, 3))
    return pool
#cell
def pool_back(grad_pool, X, f, s):
    dX_pool = np.zeros(X.shape)
    for n, c, i, j in np.ndindex(*grad_pool.shape):
        window = X[n, c, i * s:i * s + f, j * s:j * s + f]
        k, l = np.unravel_index(window.argmax(), window.shape)
        dX_pool[n, c, i * s + k, j * s + l] += grad_pool[n, c, i, j]
    return dX_pool
"""

MAIN_CNN = """\
import torch
import torch.nn as nn
import torchvision
import torchvision.models as models
from torchvision.datasets import CIFAR10
from torchvision import transforms
from augmentations import gaussian_noise_transform


def get_model(model_name, num_classes=10):
    if model_name == "debug":
        return nn.Sequential(nn.Flatten(), nn.Linear(32 * 32 * 3, num_classes))
    return getattr(models, model_name)(num_classes=num_classes)


@torch.no_grad()
def evaluate_model(model, data_loader, device):
    model.eval()
    correct = 0
    for images, labels in data_loader:
        correct += (model(images.to(device)).argmax(dim=1) == labels.to(device)).sum().item()
    accuracy = correct / len(data_loader.dataset)
    return accuracy
"""

AUGMENTATIONS = """\
import torch
import torchvision
from torchvision import transforms


def gaussian_blur_transform(severity=1):
    return transforms.GaussianBlur(kernel_size=11, sigma=0.4)


def gaussian_noise_transform(severity=1):
    return lambda img: img + 0.1 * torch.randn_like(img)
"""

TEXTS_2021 = """\
import os
import numpy as np
import torch
import torch.utils.data as data


class TextDataset(data.Dataset):
    def __init__(self, filename, seq_length, step_size=10, random_select=True):
        assert os.path.splitext(filename)[1] == ".txt"
        self._seq_length, self._step_size, self._random_select = seq_length, step_size, random_select
        self._data = open(filename, "r").read()
        self._chars = sorted(set(self._data))
        self._ix = {ch: i for i, ch in enumerate(self._chars)}

    def __getitem__(self, item):
        start = item * self._step_size
        if self._random_select:
            start += np.random.randint(self._step_size)
        return torch.LongTensor([self._ix[ch] for ch in self._data[start:start + self._seq_length + 1]])

    def convert_to_string(self, char_ix):
        return "".join(self._chars[ix] for ix in char_ix)

    def __len__(self):
        return (len(self._data) - self._seq_length - 1) // self._step_size - 1

    @property
    def vocabulary_size(self):
        return len(self._chars)


def text_collate_fn(batch):
    whole = torch.stack(batch, dim=1)
    return whole[:-1], whole[1:]
"""

MODEL_2021 = """\
import torch
import torch.nn as nn


class LSTM(nn.Module):
    def __init__(self, lstm_hidden_dim, embedding_size):
        super().__init__()
        self.hidden_dim = lstm_hidden_dim
        self.W_x = nn.Parameter(torch.empty(embedding_size, 4 * lstm_hidden_dim))
        self.W_h = nn.Parameter(torch.empty(lstm_hidden_dim, 4 * lstm_hidden_dim))
        self.b_g, self.b_i, self.b_f, self.b_o = (nn.Parameter(torch.empty(lstm_hidden_dim)) for _ in range(4))
        self.init_parameters()

    def init_parameters(self):
        bound = self.hidden_dim ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        self.b_f.data += 1

    def forward(self, embeds, state=None):
        h = c = torch.zeros(embeds.shape[1], self.hidden_dim)
        if state is not None:
            h, c = state
        states = []
        b = torch.cat((self.b_g, self.b_i, self.b_f, self.b_o))
        for x in embeds:
            g, i, f, o = (x @ self.W_x + h @ self.W_h + b).chunk(4, dim=1)
            c = torch.tanh(g) * torch.sigmoid(i) + c * torch.sigmoid(f)
            h = torch.tanh(c) * torch.sigmoid(o)
            states.append(h)
        self.last = h, c
        return torch.stack(states)


class TextGenerationModel(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.vocabulary_size = args.vocabulary_size
        self.embed = nn.Embedding(args.vocabulary_size, args.embedding_size)
        self.lstm = LSTM(args.lstm_hidden_dim, args.embedding_size)
        self.out = nn.Linear(args.lstm_hidden_dim, args.vocabulary_size)

    def forward(self, x, state=None):
        h = self.lstm(self.embed(x), state)
        return self.out(h)

    @torch.no_grad()
    def sample(self, batch_size=4, sample_length=30, temperature=0.):
        x = torch.randint(self.vocabulary_size, (1, batch_size))
        text, state = [x], None
        while len(text) < sample_length:
            p = self(x, state)[-1]
            state = self.lstm.last
            if temperature == 0:
                x = p.argmax(dim=1).unsqueeze(0)
            else:
                x = torch.multinomial(torch.softmax(p / temperature, dim=1), 1).t()
            text.append(x)
        return torch.cat(text)
"""

TRAIN_2021 = """\
import argparse
import torch
from torch.utils.data import DataLoader
from dataset import TextDataset, text_collate_fn
from model import TextGenerationModel


def train(args):
    dataset = TextDataset(args.txt_file, args.input_seq_length)
    loader = DataLoader(dataset, args.batch_size, shuffle=True, drop_last=True, collate_fn=text_collate_fn)
    args.vocabulary_size = dataset.vocabulary_size
    model = TextGenerationModel(args).to(args.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    criterion = torch.nn.CrossEntropyLoss()
    for epoch in range(args.num_epochs):
        for x, targets in loader:
            output = model(x.to(args.device))
            loss = criterion(output.flatten(0, 1), targets.to(args.device).flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip_grad_norm)
            optimizer.step()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--txt_file", type=str, required=True)
    parser.add_argument("--input_seq_length", type=int, default=30)
    parser.add_argument("--lstm_hidden_dim", type=int, default=1024)
    parser.add_argument("--embedding_size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--num_epochs", type=int, default=20)
    parser.add_argument("--clip_grad_norm", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.device = torch.device("cpu")
    train(args)
"""

DATA = """\
import torch
from torch_geometric.data.batch import Batch
from torch_geometric.datasets import QM9
from torch_geometric.utils import to_dense_adj

MAX_NUM_NODES, Z_ONE_HOT_DIM, EDGE_ATTR_DIM, LABEL_INDEX, FLAT_INPUT_DIM = 29, 5, 4, 7, 3509


def get_node_features(molecules):
    return molecules.x[:, :Z_ONE_HOT_DIM]


def get_labels(molecules):
    return molecules.y[:, LABEL_INDEX]


def get_qm9(data_dir, device="cpu"):
    dataset = QM9(data_dir)
    return dataset[:100_000], dataset[100_000:110_000], dataset[110_000:]


def get_mlp_features(molecules):
    numbers = torch.cat([torch.arange(n) for n in molecules.ptr.diff()])
    elements = torch.zeros(molecules.num_graphs, MAX_NUM_NODES, Z_ONE_HOT_DIM)
    elements[molecules.batch, numbers] = get_node_features(molecules)
    bonds = to_dense_adj(molecules.edge_index, molecules.batch, molecules.edge_attr, MAX_NUM_NODES)
    return torch.cat([elements.flatten(1), bonds.flatten(1)], dim=1)
"""

NETWORKS = """\
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch_geometric.nn as geom_nn


class MLP(nn.Module):
    def __init__(self, n_inputs, n_hidden, n_outputs):
        super().__init__()
        sizes = [n_inputs, *n_hidden]
        layers = []
        for a, b in zip(sizes, sizes[1:]):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], n_outputs))

    def forward(self, x):
        return self.layers(x)

    @property
    def device(self):
        return next(self.parameters()).device


class GNN(nn.Module):
    def __init__(self, n_node_features, n_edge_features, n_hidden, n_output, num_convolution_blocks):
        super().__init__()
        self.embed = nn.Linear(n_node_features, n_hidden)
        self.convolutions = nn.ModuleList()
        for _ in range(num_convolution_blocks):
            self.convolutions.append(geom_nn.RGCNConv(n_hidden, n_hidden, n_edge_features))
            self.convolutions.append(geom_nn.MFConv(n_hidden, n_hidden))
        self.head = nn.Sequential(nn.Linear(n_hidden, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_output))

    def forward(self, x, edge_index, edge_attr, batch_idx):
        types = edge_attr.argmax(dim=1)
        x = self.embed(x)
        for convolution in self.convolutions:
            extra = [types] if isinstance(convolution, geom_nn.RGCNConv) else []
            x = convolution(F.relu(x), edge_index, *extra)
        return self.head(geom_nn.global_add_pool(x, batch_idx))

    @property
    def device(self):
        return next(self.parameters()).device
"""

TRAIN_MOLECULES = """\
from copy import deepcopy
import torch
import torch.nn as nn
from torch_geometric.loader import DataLoader
from data import *
from networks import *


def permute_indices(molecules):
    new = torch.cat([torch.randperm(int(n)) + start for n, start in zip(molecules.ptr.diff(), molecules.ptr)])
    permuted = deepcopy(molecules)
    permuted.x = permuted.x[new]
    permuted.edge_index = new.argsort()[permuted.edge_index]
    return permuted


def compute_loss(model, molecules, criterion):
    labels = get_labels(molecules)
    if isinstance(model, MLP):
        out = model(get_mlp_features(molecules))
    else:
        out = model(get_node_features(molecules), molecules.edge_index, molecules.edge_attr, molecules.batch)
    loss = criterion(out.squeeze(1), labels)
    return loss


def evaluate_model(model, data_loader, criterion, permute):
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for molecules in data_loader:
            if permute:
                molecules = permute_indices(molecules)
            total += compute_loss(model, molecules, criterion).item() * molecules.num_graphs
            count += molecules.num_graphs
    avg_loss = total / count
    return avg_loss


def train(model, lr, batch_size, epochs, seed, data_dir):
    torch.manual_seed(seed)
    train, valid, test = get_qm9(data_dir, model.device)
    loader = DataLoader(train, batch_size=batch_size, shuffle=True, drop_last=True)
    valid, test = (DataLoader(part, batch_size=batch_size) for part in (valid, test))
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    val_losses, best, lowest = [], None, float("inf")
    for _ in range(epochs):
        model.train()
        for molecules in loader:
            optimizer.zero_grad()
            loss = compute_loss(model, molecules, criterion)
            loss.backward()
            optimizer.step()
        val_losses.append(evaluate_model(model, valid, criterion, permute=False))
        if val_losses[-1] < lowest:
            best, lowest = deepcopy(model), val_losses[-1]
    model = best
    test_loss = evaluate_model(model, test, criterion, permute=False)
    permuted_test_loss = evaluate_model(model, test, criterion, permute=True)
    return model, test_loss, permuted_test_loss, val_losses, {}
"""


def solution(edition: str) -> dict[str, str]:
    """Return the files of a correct solution."""
    palindromes = {
        "part1/dataset.py": PALINDROMES,
        "part1/vanilla_rnn.py": VANILLA_RNN,
        "part1/lstm.py": LSTM,
        "part1/train.py": FLAGS + TRAIN_PALINDROMES,
    }
    texts = {"part2/dataset.py": TEXTS_2019, "part2/model.py": MODEL_2019, "part2/train.py": TRAIN_TEXTS_2019}
    if edition == "lmu-2024":
        return palindromes
    if edition == "uva-2019-spring":
        return palindromes | texts
    if edition == "uva-2019-november":
        without = {
            path: text.replace("num_classes, batch_size, device=", "num_classes, device=").replace(
                "config.num_classes, config.batch_size, device", "config.num_classes, device"
            )
            for path, text in palindromes.items()
        }
        return without | texts
    if edition == "uva-2020":
        models = {f"Part 1/{name}.py": variant(name) for name in VARIANTS}
        return (
            models | {"Part 1/datasets.py": SYMBOLS} | {path.replace("part", "Part "): t for path, t in texts.items()}
        )
    return {
        "part1/CNN.ipynb": notebook(
            "import torch\nimport numpy as np\nimport matplotlib.pyplot as plt\n#cell\n" + LAYERS
        ),
        "part1/main_cnn.py": MAIN_CNN,
        "part1/augmentations.py": AUGMENTATIONS,
        "part2/dataset.py": TEXTS_2021,
        "part2/model.py": MODEL_2021,
        "part2/train.py": TRAIN_2021,
        "part3/data.py": DATA,
        "part3/networks.py": NETWORKS,
        "part3/train.py": TRAIN_MOLECULES,
    }


def edited(files: dict[str, str], edits: list[list[str]]) -> dict[str, str]:
    """Return the files after edits, each a file, what it holds, and what takes its place."""
    files = dict(files)
    for path, old, new in edits:
        assert old in files[path], f"{old!r} is not in {path}"
        files[path] = files[path].replace(old, new)
    return files


def variant(name: str, symbols: str = "max(num_classes, 3)") -> str:
    """Return a model of 2020."""
    cls, size, parameters, read = VARIANTS[name]
    text = VARIANT.replace("NAME", cls).replace("SIZE", size).replace("SYMBOLS", symbols)
    text = text.replace("PARAMETERS", indented(parameters)).replace("READ", indented(read))
    if name == "bi_lstm":
        cell = CELL.replace("WEIGHTS", indented(LSTM_WEIGHTS + "self.b = zeros(4 * hidden_dim)"))
        text += cell.replace("READ", indented(START + LSTM_STEP))
    return text


def indented(text: str) -> str:
    return dedent(text).strip().replace("\n", "\n        ")


def notebook(text: str) -> str:
    """Return a notebook with a cell of code for each piece of a text, and a magic line."""
    cells = [{"cell_type": "markdown", "source": ["# Layers"]}]
    for piece in text.split("#cell\n"):
        lines = piece.splitlines(keepends=True)
        cells.append({"cell_type": "code", "source": ["%matplotlib inline\n", *lines] if "plt" in piece else lines})
    return json.dumps({"cells": cells, "nbformat": 4})


def write(files: dict[str, str], folder: Path) -> Path:
    """Write a solution into a folder, and return the folder."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder
