"""The journal of a training: where it is, what it measured, and its files on the disk."""

import copy
from pathlib import Path

import torch
from torch import Tensor

from maskbench.errors import InputError
from maskbench.models import Decoder, Encoder, checkpoints
from maskbench.runtime import torchrun
from maskbench.storage import pt, tables
from maskbench.training.run import Run
from maskbench.training.state import TrainingState

LOSSES = (
    "reconstruction_loss",
    "gaussian_discriminator_loss",
    "categorical_discriminator_loss",
    "generator_loss",
    "agreement_loss",  # preset invariant
)
PAIR = ("encoder", "decoder")  # names in a checkpoint
COLUMNS = (
    "epoch",
    "reconstruction_loss",
    "discriminator_loss",  # the sum of the next two
    "gaussian_discriminator_loss",
    "categorical_discriminator_loss",
    "generator_loss",
    "validation_mse",
    "images_per_second",
    "agreement_loss",  # preset invariant
)


def columns(preset: str) -> tuple[str, ...]:
    """Of ``metrics.csv``, in a training of this preset."""
    return COLUMNS if preset == "invariant" else COLUMNS[:-1]


class Journal:
    """The place of one instance in its training; of several processes the first one writes.

    Attributes:
        history: one row a finished epoch, see :func:`columns`.
        done: steps of the epoch under way.
        seconds: that these took.
        losses: of its steps, ``[batches, 4 or 5]``, see ``LOSSES``.
        pair: encoder and decoder, as ``encoder.pt`` and ``decoder.pt`` have them; None before the first epoch's end.

    Args:
        folder: of the instance.
        state: its networks and optimisers.
        run: what it shares with other instances.
        threads: that it computes with.
        device: of the losses.
    """

    def __init__(self, folder: Path, state: TrainingState, run: Run, threads: int, device: torch.device):
        self.folder, self._state = folder, state
        self._record = {
            "settings": run.settings.as_dict(),
            "environment": run.environment,
            "images": run.images.fingerprint,
            "threads": threads,
        }
        self._writes = torchrun.rank() == 0
        self._images = run.batches * run.settings.batch_size
        self.history: list[list[float]] = []
        self.pair: tuple[Encoder, Decoder] | None = None
        self.done, self.seconds = 0, 0.0
        self._columns = columns(run.settings.preset)
        numbers = sum(name in self._columns for name in LOSSES)
        self.losses = torch.zeros(run.batches, numbers, device=device)
        self._board = None
        self._wants_board = run.tensorboard and self._writes

    def restore(self, saved: dict) -> None:
        """Resume from a checkpoint; InputError where it is not of this training."""
        path = self.folder / "checkpoint.pt"
        checkpoints.restore(self._state.parts(), saved["states"], path)
        self.history, self.seconds, self.done = saved["history"], saved["seconds"], len(saved["losses"])
        if self.done > len(self.losses) or saved["losses"].shape[1] != self.losses.shape[1]:
            raise checkpoints.damaged(path, f"step {self.done} of {len(self.losses)}")
        self.losses[: self.done] = saved["losses"].to(self.losses.device)
        if self.history:
            self.pair = copy.deepcopy((self._state.encoder, self._state.decoder))
            for part in self.pair:
                part.eval()
            checkpoints.restore(dict(zip(PAIR, self.pair, strict=True)), saved["pair"], path)
            self._export()  # the run may have been stopped between two of its files

    def open(self) -> None:
        """Begin the event files that were asked for; InputError where TensorBoard is not installed."""
        if self._wants_board:
            self._board = _open_tensorboard(self.folder)

    def note(self, step: int, losses: Tensor) -> None:
        """A step, counted from 1, is taken; its losses are ``[4 or 5]``, see ``LOSSES``."""
        self.losses[step - 1] = losses
        self.done = step

    def check(self) -> Tensor:
        """Mean losses of the epoch so far, ``[4 or 5]``; InputError where one is not finite. A GPU is waited for."""
        stop_if_not_finite(self.losses[: self.done], len(self.history) + 1, self.folder)
        return self.losses[: self.done].mean(0)

    def save(self) -> None:
        """Write the checkpoint for the place in the loop; InputError where a loss or weight is not finite."""
        losses = self.losses[: self.done]
        stop_if_not_finite(losses, len(self.history) + 1, self.folder)
        states = self._state.state_dicts()
        if bad := pt.first_not_finite(states):
            raise not_finite(f"{bad} after epoch {len(self.history) or 1}", self.folder)
        pair = {name: part.state_dict() for name, part in zip(PAIR, self.pair or (), strict=False)}
        place = {"history": self.history, "losses": losses, "seconds": self.seconds, "states": states, "pair": pair}
        if self._writes:
            checkpoints.save_checkpoint(self._record | place, self.folder / "checkpoint.pt")

    def finish_epoch(self, validation_mse: float, pair: tuple[Encoder, Decoder]) -> None:
        """The epoch is over: its row, its checkpoint, and the files beside it."""
        reconstruction, gaussian, categorical, generator, *agreement = self.losses.mean(0).tolist()
        losses = [reconstruction, gaussian + categorical, gaussian, categorical, generator]
        row = [len(self.history) + 1, *losses, validation_mse, self._images / self.seconds, *agreement]
        self.history.append(row)
        self.done, self.seconds, self.pair = 0, 0.0, pair
        if self._board:
            for name, value in zip(self._columns[1:], row[1:], strict=True):
                self._board.add_scalar(name, value, row[0])
        self.save()
        self._export()

    def close(self) -> None:
        if self._board:
            self._board.close()

    def _export(self) -> None:
        """What a finished epoch leaves beside its checkpoint: encoder, private decoder and metrics."""
        if self._writes:
            encoder, decoder = self.pair
            fingerprint = checkpoints.save_encoder(encoder, self.folder / "encoder.pt")
            checkpoints.save_decoder(decoder, fingerprint, self.folder / "decoder.pt")
            tables.write_csv(self.folder / "metrics.csv", self._columns, self.history)


def stop_if_not_finite(losses: Tensor, epoch: int, folder: Path) -> None:
    """InputError that names the first step whose losses (``[steps, 4 or 5]``) are not finite."""
    bad = torch.nonzero(~losses.isfinite())
    if len(bad):
        step, loss = bad[0].tolist()
        raise not_finite(f"the {LOSSES[loss].replace('_', ' ')} of epoch {epoch}, step {step + 1}", folder)


def not_finite(what: str, folder: Path) -> InputError:
    """The complaint of a value that is not finite; it names the last good checkpoint."""
    path = folder / "checkpoint.pt"
    kept = "there was no checkpoint before it"
    if path.exists():
        last = checkpoints.load_checkpoint(path)
        kept = f"{path}, of {len(last['history'])} epochs and {len(last['losses'])} steps, is good and was kept"
    return InputError(f"{what} is not finite; {kept}. Train with a lower --lr in another --output-dir")


def _open_tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard: not installed; run pip install tensorboard") from None
    return SummaryWriter(str(folder / "tensorboard"))
