"""The LSTM of equations 8-13 (UvA 2021, question 2.3) and the model that writes with it (question 2.4).

    g(t) = tanh (W_gx x(t) + W_gh h(t-1) + b_g)       (8)   input modulation: the candidate
    i(t) = sigma(W_ix x(t) + W_ih h(t-1) + b_i)       (9)   input gate
    f(t) = sigma(W_fx x(t) + W_fh h(t-1) + b_f)      (10)   forget gate
    o(t) = sigma(W_ox x(t) + W_oh h(t-1) + b_o)      (11)   output gate
    c(t) = g(t) * i(t) + c(t-1) * f(t)               (12)
    h(t) = tanh(c(t)) * o(t)                         (13)
    p(t) = W_ph h(t) + b_p                           (14)

`LSTM.states` runs equations 8 to 13 step by step. Its faster twin, with the backward pass derived by hand, is
`recurrence/lstm.py`; for its sake the weights of the four gates are stored in one matrix each, W_x = [W_gx; W_ix; W_fx;
W_ox], W_h and b alike.
"""

import math
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if not __package__:  # imported from inside part2/, as graders do
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.data import input_file
from common.distributed import shard, world_size
from common.errors import InputError, reason_of
from common.machine import computing_type
from common.paths import short_path
from common.run_folder import load_checkpoint
from part2.dataset import unknown_numbers
from recurrence.choice import RECURRENCES, check_recurrence
from recurrence.inputs import check_sequence
from recurrence.lstm import from_torch_order, lstm_sequence, to_torch_order

PRECISIONS = {"float32": None, "bf16": torch.bfloat16}  # of the products; None: that of the parameters
PRETRAINED = Path(__file__).resolve().with_name("assets") / "grimm"  # the run of a model of the tales
INITS = ("uniform", "zeros", "normal", "xavier")
State = list[tuple[Tensor, Tensor]]  # (h, c), each (B, n), of every layer


class LSTM(nn.Module):
    """Equations 8-13 over a sequence of embeddings; takes any batch size and any length.

    >>> lstm = LSTM(lstm_hidden_dim=128, embedding_size=64)      # what nn.LSTM(64, 128) is, time-first
    >>> h, state = lstm.states(torch.randn(30, 8, 64))            # h(1) ... h(30), (30, 8, 128)
    >>> more, state = lstm.states(torch.randn(20, 8, 64), state)  # reads on from there

    Args:
        lstm_hidden_dim: n, size of the state. The handout puts it first; `nn.LSTM(d, n)` has it last.
        embedding_size: d, size of an input vector.
        recurrence: "loop", the equations step by step; "bptt", "compiled" or "triton", the faster twin in PyTorch's
            operations, compiled for CPUs or in Triton for GPUs; "auto", the fastest there is.

    Raises:
        ValueError: an unknown `recurrence`.
    """

    RECURRENCES = RECURRENCES

    def __init__(self, lstm_hidden_dim: int, embedding_size: int, recurrence: str = "auto"):
        super().__init__()
        check_recurrence(recurrence)
        self.recurrence = recurrence
        self.W_x = nn.Parameter(torch.empty(4 * lstm_hidden_dim, embedding_size))
        self.W_h = nn.Parameter(torch.empty(4 * lstm_hidden_dim, lstm_hidden_dim))
        self.b = nn.Parameter(torch.empty(4 * lstm_hidden_dim))
        self.reset_parameters()

    def forward(self, embeds: Tensor) -> Tensor:
        """Return h(1) ... h(T), (T, B, n), for (T, B, d) embeddings."""
        return self.states(embeds)[0]

    def states(
        self, embeds: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return h(1) ... h(T) and the last state (h(T), c(T)), from the initial `state`, zeros by default.

        All is computed in the type of `embeds`, but for the cell states, which are float32 at least.

        Raises:
            ValueError: embeddings or the initial state of another shape.
        """
        if self.recurrence != "loop":
            h, c = lstm_sequence(embeds, state, self.W_x, self.W_h, self.b, self.recurrence)  # the same, faster
            return h, (h[-1], c)

        h_0, c_0 = (None, None) if state is None else state
        check_sequence(embeds, self.W_x, self.W_h, h_0=h_0, c_0=c_0)
        W_x, W_h, b = self.W_x.to(embeds.dtype), self.W_h.to(embeds.dtype), self.b.to(embeds.dtype)
        W_gx, W_ix, W_fx, W_ox = W_x.chunk(4)  # (n, d) each
        W_gh, W_ih, W_fh, W_oh = W_h.chunk(4)  # (n, n) each
        b_g, b_i, b_f, b_o = b.chunk(4)  # (n,) each
        zeros = embeds.new_zeros(embeds.shape[1], W_h.shape[1])
        h = zeros if h_0 is None else h_0.to(embeds.dtype)  # h(0), (B, n)
        c = (zeros if c_0 is None else c_0).to(torch.promote_types(embeds.dtype, torch.float32))  # c(0), (B, n)
        states = []
        for x in embeds:  # x(t), (B, d): a sequence is a row, so that W x(t) stands here as x @ W.T
            g = torch.tanh(x @ W_gx.T + h @ W_gh.T + b_g)  # (8): (B, n)
            i = torch.sigmoid(x @ W_ix.T + h @ W_ih.T + b_i)  # (9)
            f = torch.sigmoid(x @ W_fx.T + h @ W_fh.T + b_f)  # (10)
            o = torch.sigmoid(x @ W_ox.T + h @ W_oh.T + b_o)  # (11)
            c = g * i + c * f  # (12)
            h = torch.tanh(c).to(o.dtype) * o  # (13)
            states.append(h)
        return torch.stack(states), (h, c)

    @torch.no_grad()
    def reset_parameters(self, init: str = "uniform", generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew, on the CPU.

        * uniform: in +-1/sqrt(n), then 1 added to b_f: at first, remember. What UvA 2021 prescribes.
        * zeros: every parameter zero.
        * normal: weights of unit variance, biases zero but b_f = 1.
        * xavier: each gate's matrices uniform in +-sqrt(6 / (inputs + n)) (Glorot and Bengio 2010), biases as for
          normal.
        """
        n = self.W_h.shape[1]
        for parameter in self.parameters():
            if init == "uniform":
                parameter.uniform_(-(n**-0.5), n**-0.5, generator=generator)
            elif init == "normal" and parameter.dim() == 2:
                parameter.normal_(generator=generator)
            elif init == "xavier" and parameter.dim() == 2:
                bound = (6 / (parameter.shape[1] + n)) ** 0.5
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.zero_()
        if init != "zeros":
            self.b.chunk(4)[2].add_(1)

    def to_torch(self) -> nn.LSTM:
        """Return the one-layer, time-first `nn.LSTM` that computes the same function."""
        n, d = self.W_h.shape[1], self.W_x.shape[1]
        lstm = nn.LSTM(d, n).to(self.W_h)
        lstm.load_state_dict(
            {
                "weight_ih_l0": to_torch_order(self.W_x),
                "weight_hh_l0": to_torch_order(self.W_h),
                "bias_ih_l0": to_torch_order(self.b),
                "bias_hh_l0": torch.zeros(4 * n),
            }
        )
        return lstm

    @classmethod
    def from_torch(cls, lstm: nn.LSTM, layer: int | None = None) -> "LSTM":
        """Return the LSTM that computes what a layer of an `nn.LSTM` computes, on time-first inputs in any case.

        Args:
            layer: which one, counted from 0; needed where there are several.

        Raises:
            ValueError: it has two directions, a projection or no biases, or several layers of which none is named.
        """
        if not isinstance(lstm, nn.LSTM) or lstm.bidirectional or lstm.proj_size or not lstm.bias:
            raise ValueError("only a one-directional nn.LSTM with biases and without projection has this form")
        if layer is None and lstm.num_layers > 1:
            raise ValueError(f"the nn.LSTM has {lstm.num_layers} layers: name one, as in from_torch(lstm, layer=0)")
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        W_x, W_h, b_x, b_h = (from_torch_order(getattr(lstm, f"{name}_l{layer or 0}")) for name in names)
        model = cls(lstm.hidden_size, W_x.shape[1]).to(W_x)
        model.load_state_dict({"W_x": W_x, "W_h": W_h, "b": b_x + b_h})
        return model


class TextGenerationModel(nn.Module):
    """Embedding, layers of LSTM, linear output: the distribution of the next character after each one read.

    Args:
        args: `vocabulary_size` K, `embedding_size` d, `lstm_hidden_dim` n; optional `lstm_num_layers` (1), `dropout`
            (0: the share of each layer's outputs that training leaves out), `init` ("uniform"), `precision` ("float32";
            "bf16" computes all products in bfloat16, while parameters, cell states and logits stay in float32; in
            float32 on a CPU without instructions for it),
            `recurrence` of the layers ("auto"), `never_written` (none: numbers of characters that `sample`, `complete`,
            `write` and `beam_search` leave out).
        generator: CPU generator of the initial parameters; PyTorch's global one by default.
    """

    def __init__(self, args: Namespace, generator: torch.Generator | None = None):
        super().__init__()
        self.vocabulary_size = args.vocabulary_size
        self.dropout = getattr(args, "dropout", 0.0)
        self.never_written: list[int] = list(getattr(args, "never_written", ()))
        self.compute_dtype = PRECISIONS[getattr(args, "precision", "float32")]
        sizes = [args.embedding_size] + [args.lstm_hidden_dim] * getattr(args, "lstm_num_layers", 1)
        self.embedding = nn.Embedding(args.vocabulary_size, args.embedding_size)
        recurrence = getattr(args, "recurrence", "auto")
        self.layers: Any = nn.ModuleList(LSTM(n, d, recurrence) for d, n in pairwise(sizes))
        self.output = nn.Linear(args.lstm_hidden_dim, args.vocabulary_size)
        self.reset_parameters(getattr(args, "init", "uniform"), generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits p(1) ... p(T), (T, B, K), for (T, B) character numbers."""
        return self.run(x)[0]

    def run(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return the logits and every layer's last state, from the initial `state`, zeros by default.

        Raises:
            ValueError: a state of another shape.
        """
        if state and len(state) != len(self.layers):
            raise ValueError(f"the state must have one (h, c) for each of {len(self.layers)} layers, not {len(state)}")
        return self._run(x, state, self.dropout if self.training else 0.0)

    def _run(self, x: Tensor, state: State | None, dropout: float = 0.0) -> tuple[Tensor, State]:
        W_ph, b_p = self.output.weight, self.output.bias
        dtype = computing_type(self.compute_dtype or W_ph.dtype, W_ph.device)
        h, last = self.embedding(x).to(dtype), []  # (T, B, d)
        for k, layer in enumerate(self.layers):
            h, state_k = layer.states(h, state[k] if state else None)  # (T, B, n)
            h = drop(h, dropout)
            last.append(state_k)
        return F.linear(h, W_ph.to(dtype), b_p.to(dtype)).to(W_ph.dtype), last  # (14): (T, B, K)

    def sample(
        self,
        batch_size: int = 4,
        sample_length: int = 30,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Write `batch_size` texts, each from a random first character.

        Args:
            temperature: tau in softmax(p / tau), from which the next character is drawn; 0 takes the likeliest.
            generator: CPU generator of all choices; PyTorch's global one by default.

        Returns:
            (sample_length, batch_size) character numbers, the first characters included.

        Raises:
            ValueError: a negative temperature, or a `sample_length` below 1.
        """
        if sample_length < 1:
            raise ValueError(f"sample_length must be at least 1, not {sample_length}")
        written = torch.tensor(self.written_characters())
        first = written[torch.randint(len(written), (1, batch_size), generator=generator)]
        return self.complete(first, sample_length - 1, temperature, generator)

    def written_characters(self) -> list[int]:
        """Return the numbers of all characters but those that are never written."""
        return [number for number in range(self.vocabulary_size) if number not in self.never_written]

    def complete(
        self, prompt: Tensor, num_characters: int, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return (T, B) prompts, T >= 1, and `num_characters` that the model adds to each: (T + num_characters, B)."""
        characters = self.write(prompt, temperature, generator)
        return torch.cat([prompt, *(next(characters).unsqueeze(0) for _ in range(num_characters))])

    def write(
        self,
        prompt: Tensor,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Iterator[Tensor]:
        """Yield, for ever, the characters that follow (T, B) prompts, T >= 1, as (B,) numbers on the CPU.

        The state is carried along, so that a character costs the same however much was written before. Dropout is off.

        Args:
            top_k: draw among the k likeliest characters only.
            top_p: draw among the likeliest characters only that together have this probability.

        Raises:
            ValueError: a logit is infinite or not a number; what `choose` does not take.
        """
        x, state = prompt, None
        while True:
            p, state = self._read(x, state)
            x = choose(p, temperature, generator, top_k, top_p).unsqueeze(0)
            yield x[0]

    def beam_search(
        self, prompt: Tensor, num_characters: int, beam_size: int, ends: Sequence[Sequence[int]] = ()
    ) -> "Beams":
        """Search for the likeliest texts that begin with each of (T, B) prompts, T >= 1 (UvA November 2019, 2.3).

        For each prompt the S = `beam_size` best texts so far are kept. In each step the model reads the last character
        of all of them at once, each is continued by each of the K characters, and the S best of the S K candidates are
        kept; one that was dropped does not come back. The best have the highest log-probability per added character,
        under the distribution from which `write` draws at temperature 1. S = 1 is the greedy choice.

        A text that has ended is kept as it is and compared with those that go on; the search is over when all that are
        kept have ended. Without `ends` all are equally long, and to divide by their length changes nothing.

        Args:
            num_characters: largest number of characters to add.
            beam_size: S; fewer texts are found only where fewer are possible.
            ends: a text ends where what was added to it ends with one of these.

        Raises:
            ValueError: a logit is infinite or not a number; a `beam_size` below 1.
        """
        if beam_size < 1:
            raise ValueError(f"beam_size must be at least 1, not {beam_size}")
        B, K = prompt.shape[1], self.vocabulary_size
        added = prompt.new_empty(0, B)
        log_p = torch.zeros(B, 1, dtype=torch.float64)  # of one text for each prompt at first, then of S texts
        lengths = torch.zeros(B, 1, dtype=torch.int64)
        ended = torch.zeros(B, 1, dtype=torch.bool)
        stays = torch.full((K,), -torch.inf, dtype=torch.float64)
        stays[0] = 0  # an ended text has one continuation, by a character that does not count
        x, state = prompt, None
        while len(added) < num_characters and not (ended | log_p.isinf()).all():
            p, state = self._read(x, state)  # (B S, K), the texts of a prompt one after the other
            step = torch.log_softmax(p.double(), dim=-1).view(*log_p.shape, K)
            step[ended] = stays
            candidates = log_p.unsqueeze(-1) + step  # (B, S, K)
            lengths = lengths + ~ended
            per_character = (candidates / lengths.unsqueeze(-1)).flatten(1)
            # Stable: of equals the first, as in greedy choice
            best = per_character.sort(dim=-1, descending=True, stable=True).indices[:, :beam_size]  # (B, S)
            parent, x = best // K, (best % K).view(1, -1)
            rows = (parent + log_p.shape[1] * torch.arange(B).unsqueeze(-1)).flatten()  # each text's among all, (B S,)
            log_p = candidates.flatten(1).gather(1, best)
            lengths, ended = lengths.gather(1, parent), ended.gather(1, parent)
            state = [(h[rows], c[rows]) for h, c in state]
            added = torch.cat([added[:, rows], x])
            for end in ends:
                if len(end) <= len(added):
                    tail = added[len(added) - len(end) :]
                    ended = ended | (tail == torch.tensor(end).unsqueeze(-1)).all(dim=0).view_as(ended)
        S = log_p.shape[1]
        texts = torch.cat([prompt.repeat_interleave(S, dim=1), added]).view(-1, B, S)
        return Beams(texts, log_p, lengths)

    @torch.no_grad()
    def _read(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return what follows (T, B) characters: logits, (B, K) on the CPU, -inf for what is never written; the state.

        Raises:
            ValueError: a logit is infinite or not a number.
        """
        logits, state = self._run(x.to(self.output.weight.device), state)
        p = logits[-1].cpu()
        if not p.isfinite().all():
            raise InputError("the model's logits are infinite or not numbers: its training has diverged")
        p[:, self.never_written] = -torch.inf
        return p, state

    @torch.no_grad()
    def reset_parameters(self, init: str = "uniform", generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew: the embedding N(0, 1), the layers as `LSTM.reset_parameters` says, the output
        uniform in +-1/sqrt(n); after "zeros" all are zero, and after "normal" and "xavier" the output's weights follow
        the layers'.
        """
        if init not in INITS:
            raise ValueError(f"the initialisations are {', '.join(INITS)}, not {init}")
        bound = self.output.in_features**-0.5
        self.embedding.weight.normal_(generator=generator)
        for parameter in self.output.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
        for layer in self.layers:
            layer.reset_parameters(init, generator)
        if init != "uniform":
            self.output.bias.zero_()
        if init == "zeros":
            self.embedding.weight.zero_()
            self.output.weight.zero_()
        elif init == "normal":
            self.output.weight.normal_(generator=generator)
        elif init == "xavier":
            nn.init.xavier_uniform_(self.output.weight, generator=generator)

    def to_torch(self) -> tuple[nn.Embedding, nn.LSTM, nn.Linear]:
        """Return the three library modules, time-first, that together compute the same function without dropout."""
        n, d = self.output.in_features, self.embedding.embedding_dim
        K, like = self.vocabulary_size, self.output.weight
        embedding = nn.Embedding(K, d).to(like)
        lstm, output = nn.LSTM(d, n, len(self.layers)).to(like), nn.Linear(n, K).to(like)
        embedding.load_state_dict(self.embedding.state_dict())
        output.load_state_dict(self.output.state_dict())
        weights: dict[str, Tensor] = {}
        for k, layer in enumerate(self.layers):
            weights |= {name.replace("_l0", f"_l{k}"): one for name, one in layer.to_torch().state_dict().items()}
        lstm.load_state_dict(weights)
        return embedding, lstm, output

    @classmethod
    def from_torch(cls, embedding: nn.Embedding, lstm: nn.LSTM, output: nn.Linear) -> "TextGenerationModel":
        """Return the model that computes what the three library modules compute one after the other.

        Raises:
            ValueError: the library's LSTM has two directions, a projection, or no biases.
        """
        layers = [LSTM.from_torch(lstm, k) for k in range(lstm.num_layers)]
        sizes = {"vocabulary_size": embedding.num_embeddings, "embedding_size": embedding.embedding_dim}
        model = cls(Namespace(**sizes, lstm_hidden_dim=lstm.hidden_size, lstm_num_layers=lstm.num_layers)).to(
            output.weight
        )
        model.embedding.load_state_dict(embedding.state_dict())
        model.output.load_state_dict(output.state_dict())
        model.layers = nn.ModuleList(layers)
        return model


def drop(h: Tensor, probability: float) -> Tensor:
    """Set units of (T, B, n) states to zero with this probability: for each sequence the same units at all steps.

    So a unit that is present can be relied upon for the whole sequence (Gal and Ghahramani 2016); and one random number
    for each unit costs next to nothing, where one for each unit and step would take a fifth of the training time. Every
    process draws for the whole batch, so that the masks do not depend on the number of processes (as long as the batch
    is a multiple of it).
    """
    if not probability:
        return h
    kept = F.dropout(h.new_ones(h.shape[1] * world_size(), h.shape[2]), probability)
    return h * shard(kept)


class Beams(NamedTuple):
    """The texts that beam search has found, the best first.

    texts: (T + L, B, S) character numbers, the prompt and what was added: at most L, and then what means nothing.
    log_probabilities: (B, S) float64, of all characters that were added; -inf where fewer than S texts are possible.
    lengths: (B, S) number of characters that were added, an end included.
    """

    texts: Tensor
    log_probabilities: Tensor
    lengths: Tensor


def load_model(path: str | Path, device: str | torch.device = "cpu") -> tuple[TextGenerationModel, dict[str, Any]]:
    """Return a trained model, in float32 and ready to write, and the checkpoint it comes from.

    Args:
        path: a run folder, of which the best weights are taken, or a checkpoint file.

    Raises:
        ValueError: the file is no checkpoint, or holds no model of this kind.
        FileNotFoundError: there is no such checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        path = path / ("best.pt" if (path / "best.pt").exists() else "checkpoint.pt")
    checkpoint = load_checkpoint(input_file(path, "a checkpoint, or a run folder, of part2/train.py"))
    if "vocabulary" not in checkpoint:
        raise InputError(f"{short_path(path)} holds no text model: it is not a checkpoint of part2/train.py")
    try:
        model = _model_of(checkpoint)
    except Exception as error:  # nearly any type, where somebody has made the file by hand
        raise InputError(f"{short_path(path)} holds no text model that fits together ({reason_of(error)})") from None
    return model.to(device).eval(), checkpoint


def _model_of(checkpoint: dict[str, Any]) -> TextGenerationModel:
    """Return the model of a checkpoint; nothing is allocated that the file does not hold."""
    vocabulary, end = checkpoint["vocabulary"], checkpoint["end"]
    if not isinstance(vocabulary, str) or len(set(vocabulary)) < len(vocabulary) or not vocabulary:
        raise ValueError("the vocabulary must be a string of different characters")
    if end is not None and end not in list(vocabulary):
        raise ValueError("the end must be a character of the vocabulary")
    sizes = {name: checkpoint["arguments"][name] for name in ("embedding_size", "lstm_hidden_dim", "lstm_num_layers")}
    if not all(tensor.is_floating_point() for tensor in checkpoint["model"].values()):
        raise ValueError("a weight is no floating-point number")
    weights = {name: tensor.float().contiguous() for name, tensor in checkpoint["model"].items()}
    are_sizes = all(isinstance(size, int) and size > 0 for size in sizes.values())
    if not are_sizes or sizes["lstm_num_layers"] > len(weights):
        raise ValueError(f"the sizes must be integers of at least 1, not {sizes}")
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise ValueError("a weight is infinite or not a number")
    settings = Namespace(vocabulary_size=len(vocabulary), **sizes, never_written=unknown_numbers(vocabulary))
    with torch.device("meta"):
        model = TextGenerationModel(settings)
    model.load_state_dict(weights, assign=True)
    return model


def choose(
    logits: Tensor,
    temperature: float,
    generator: torch.Generator | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Return one character number for each row of (B, K) logits p, drawn from softmax(p / temperature).

    At temperature 0 (or below 1e-30, by which float32 cannot divide) it is the likeliest.

    Args:
        top_k: draw among the k likeliest only.
        top_p: draw among the nucleus only: the fewest likeliest whose probability, at this temperature and after
            `top_k`, reaches top_p (Holtzman et al. 2020). At least one; with 1 all.

    Raises:
        ValueError: a negative or infinite temperature, a `top_k` below 1, or a `top_p` not above 0 and at most 1.
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"the temperature must be a finite number of at least 0, not {temperature}")
    if temperature < 1e-30:
        return logits.argmax(dim=-1)
    if top_k is not None:
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k}")
        kept = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
        chosen = choose(kept.values, temperature, generator, top_p=top_p)
        return kept.indices.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    p = logits - logits.amax(dim=-1, keepdim=True)  # the same distribution, and safe for the smallest temperatures
    q = torch.softmax(p / temperature, dim=-1)
    if top_p is not None:
        q = nucleus(q, top_p)
    return torch.multinomial(q, 1, generator=generator).squeeze(-1)


def nucleus(q: Tensor, top_p: float) -> Tensor:
    """Return the probabilities (B, K), zero outside the fewest likeliest that reach `top_p`; they are not scaled up.

    Raises:
        ValueError: a `top_p` not above 0 and at most 1.
    """
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
    if top_p == 1:
        return q
    falling, order = q.double().sort(dim=-1, descending=True, stable=True)
    likelier = falling.cumsum(dim=-1) - falling  # the probability of all that stand before
    return q.masked_fill((likelier >= top_p).gather(-1, order.argsort(dim=-1)), 0)
