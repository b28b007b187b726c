"""What a training loop needs apart from learning: its state, signals, a progress bar, a clock, logs and checkpoints.

    state = State()                     # a LoopState, with more fields if the script needs them
    with Training(run, train_steps, state, "LSTM", model=model, optimizer=optimizer) as training:
        while state.step < train_steps:                    # a resumed run continues at its own step
            state.step += 1
            ...                                            # forward, loss, backward, step
            training.end_step({"loss": loss.item()}, log=state.step % 10 == 0, checkpoint=state.step % 100 == 0)

`Training` never touches a model, a loss or a batch; learning is left to the script.
"""

import math
import signal
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from common.command import StopRequest, drop_output
from common.distributed import rank, shard
from common.errors import CommandError, InputError, reason_of
from common.machine import seeded_generator
from common.run_folder import RunFolder


@dataclass
class LoopState:
    """What a loop knows apart from model and optimizer, saved and restored as a whole. Subclasses add fields.

    Attributes:
        step: number of the current step, counted from 1; 0 before the first.
        seconds: seconds of training so far, including those before the run was resumed.
    """

    step: int = 0
    seconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        if saved.keys() != vars(self).keys():
            raise ValueError(f"the loop's state is {', '.join(vars(self))}, not {', '.join(map(str, saved))}")
        for name, value in saved.items():
            if not isinstance(
                value, (int, float) if isinstance(getattr(self, name), float) else type(getattr(self, name))
            ):
                raise ValueError(f"{name} cannot be a {type(value).__name__}")
            setattr(self, name, value)


class Training:
    """One run of a training loop, to be used in a `with` block; a resumed run is restored on entering.

    Ctrl-C and SIGTERM within the block let the current step end; then `end_step` saves a checkpoint and raises.

    Args:
        run: the run's folder, opened and closed with the block.
        total: number of steps that the progress bar counts to.
        state: the loop's state; `end_step` sets its `seconds`.
        description: text before the progress bar.
        saved: what a checkpoint holds apart from the state, by name: objects with `state_dict` and `load_state_dict`,
            and `torch.Generator`s.
    """

    def __init__(self, run: RunFolder, total: int, state: LoopState, description: str = "", **saved: Any):
        self.run, self.state, self.saved = run, state, saved
        self._total, self._description = total, description
        self._stop = StopRequest()
        self._shown: dict[str, str] = {}

    def __enter__(self) -> "Training":
        if self.run.checkpoint:
            self._restore(self.run.checkpoint)
        self.run.__enter__()
        self._stop.__enter__()
        disable = True if rank() > 0 else None  # None: if stderr is not a terminal
        step, text = self.state.step, self._description
        self.progress = tqdm(total=self._total, initial=step, desc=text, unit="step", disable=disable, leave=False)
        self._step_began = time.perf_counter()
        self._began = self._step_began - self.state.seconds
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop.__exit__()
        self.progress.close()
        self.run.__exit__(*error)

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        try:
            self.state.load_state_dict(checkpoint["state"])
            if self.state.step != checkpoint["step"]:
                raise ValueError(f"its state is of step {self.state.step}, not {checkpoint['step']}")
            for name, part in self.saved.items():
                load = part.set_state if isinstance(part, torch.Generator) else part.load_state_dict
                load(checkpoint[name])
        except Exception as error:  # nearly any type, where somebody has made the file by hand
            raise CommandError(
                f"the checkpoint in {self.run} does not fit this run ({reason_of(error)}): start a new one"
            ) from None

    @property
    def signal_number(self) -> int:
        """The signal that asks this process to stop; 0 without one."""
        return self._stop.signal_number

    def per_second(self, number: float) -> float:
        """Return a rate: `number` things done in this step, divided by the seconds since its start."""
        return number / (time.perf_counter() - self._step_began)

    def check_finite(self, **values: float) -> None:
        """Raise a CommandError with exit code 1 that shows all values if one of them is infinite or not a number."""
        if all(math.isfinite(value) for value in values.values()):
            return
        found = ", ".join(f"the {name.replace('_', ' ')} is {value:g}" for name, value in values.items())
        if self.run.saved_step:
            kept = f"the checkpoint of step {self.run.saved_step:,} in {self.run} is kept"
        else:
            kept = "no checkpoint had been written yet"
        reason = f"training diverged at step {self.state.step:,}: {found}; {kept}; try a lower --learning_rate"
        raise CommandError(reason, exit_code=1)

    def show(self, **values: str) -> None:
        """Show values beside the progress bar; those shown under other names before stay."""
        for name, value in values.items():
            self._shown[name.replace("_", " ")] = value
        self.progress.set_postfix(self._shown)

    def print(self, text: str) -> None:
        """Print a text above the progress bar; if nobody can read it any more, training goes on all the same."""
        try:
            self.progress.write(text, file=sys.stdout)
        except OSError:
            drop_output()

    def end_step(
        self, values: dict[str, float], log: bool, checkpoint: bool, signal_number: Tensor | int | None = None
    ) -> None:
        """End the current step: log it, save a checkpoint, or stop.

        Args:
            values: a row of metrics.csv; if it has a column `seconds`, that is filled in here.
            log: whether to write the row.
            checkpoint: whether to save a checkpoint; one is also saved before the loop stops.
            signal_number: what several processes have agreed on: 0, or anything else to stop; by default this process's
                own signal.

        Raises:
            CommandError: a signal has asked the loop to stop; the exit code is 128 + its number.
        """
        self.state.seconds = time.perf_counter() - self._began
        if log:
            if "seconds" in self.run.columns:
                values = {**values, "seconds": round(self.state.seconds, 3)}
            self.run.log(self.state.step, **values)
        stop = self.signal_number if signal_number is None else signal_number
        if checkpoint or stop:
            self.save_checkpoint()
        self.progress.update(self.state.step - self.progress.n)
        if stop:
            message = f"stopped at step {self.state.step:,}; go on with: {self.run.resume_command()}"
            raise CommandError(message, 128 + (self.signal_number or signal.SIGTERM))
        self._step_began = time.perf_counter()

    def save_checkpoint(self) -> None:
        """Save everything that the next step depends on."""
        parts = {}
        for name, part in self.saved.items():
            parts[name] = part.get_state() if isinstance(part, torch.Generator) else part.state_dict()
        self.run.save_checkpoint(self.state.step, state=self.state.state_dict(), **parts)


def default_interval(train_steps: int, longest: int) -> int:
    """Return the steps between two evaluations, or two logged batches, where the user names none.

    It is a twentieth of all steps, so that a short run has a curve too, but at most `longest`.
    """
    return min(longest, max(1, train_steps // 20))


class TrainingBatches:
    """The examples of each training step: every epoch reads all of them once, in a new order.

    A step's batch depends on nothing but the seed and the step, so that a run can be resumed anywhere.

    Args:
        num_examples: number of training examples.
        batch_size: examples in a step, of all processes together.
        seed: seed of the orders.
        drop_last: leave out the examples at an epoch's end that do not fill a batch; else its last batch is smaller.

    Attributes:
        steps_per_epoch: number of batches in an epoch.

    Raises:
        ValueError: there is not a single batch.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int, drop_last: bool = False):
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        self.steps_per_epoch = num_examples // batch_size if drop_last else -(-num_examples // batch_size)
        self._epoch, self._order = -1, torch.empty(0)  # the last epoch asked for
        if not self.steps_per_epoch:
            raise InputError(f"batch_size {batch_size} is more than the {num_examples:,} training examples")

    def indices(self, step: int) -> Tensor:
        """Return the indices (B,) of the examples in a step, counted from 0; this process's shard of them."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self.order(epoch)
        return shard(self._order[position * self.batch_size : (position + 1) * self.batch_size])

    def order(self, epoch: int) -> Tensor:
        """Return the order of an epoch's examples, (num_examples,)."""
        return torch.randperm(self.num_examples, generator=seeded_generator(self.seed, f"epoch {epoch}"))
