"""Resuming a training: which checkpoint it resumes from, and what would keep it from the same bits."""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch

from maskbench import ops
from maskbench.errors import InputError
from maskbench.models import checkpoints
from maskbench.models.sizes import has_bfloat16
from maskbench.runtime import command_line, torchrun
from maskbench.storage import pt
from maskbench.training.images import TrainingImages
from maskbench.training.journal import columns
from maskbench.training.run import Run
from maskbench.training.settings import Settings


def find_checkpoint(folder: Path, settings: Settings, resume: bool) -> dict | None:
    """The checkpoint in ``folder`` to resume from, see :func:`maskbench.models.checkpoints.load_checkpoint`, or None.

    Raises:
        InputError: a trained network would be lost, or the checkpoint is of other settings.
    """
    path = folder / "checkpoint.pt"
    if not path.exists():
        for name, what in (("decoder.pt", "the private key of masks"), ("encoder.pt", "which masks were made by")):
            if (folder / name).exists():
                raise InputError(f"{folder} holds {name}, {what}, and no checkpoint; choose another --output-dir")
        return None
    if not resume:
        raise InputError(
            f"{folder} holds a trained autoencoder and its private key; "
            "resume it with --resume, choose another --output-dir, or delete it"
        )
    checkpoint = checkpoints.load_checkpoint(path)
    for name, value in settings.as_dict().items():
        # a checkpoint that is older than a flag was made with its default
        before = checkpoint["settings"].get(name, getattr(Settings, name, None))
        if name == "dataset" and ":" in value and str(before).split(":")[0] == value.split(":")[0]:
            continue  # a folder or file may have moved: its images are compared, see check_images
        if type(before) is not type(value) or before != value:
            raise InputError(
                f"{path} was made with --{name.replace('_', '-')} {pt.shown(before)}, not {pt.shown(value)}; "
                "resume with the same value or choose another --output-dir"
            )
    if any(len(row) != len(columns(settings.preset)) for row in checkpoint["history"]):
        raise checkpoints.damaged(path, "its history has other columns")
    return checkpoint


def find_checkpoints(folders: Sequence[Path], settings: Settings, resume: bool) -> list[dict | None]:
    """The checkpoint of every instance, read by the first process; see :func:`find_checkpoint`."""
    return [torchrun.from_first(functools.partial(find_checkpoint, folder, settings, resume)) for folder in folders]


def check_images(
    images: TrainingImages, saved: Sequence[dict | None], settings: Settings, folders: Sequence[Path]
) -> None:
    """InputError where a checkpoint was trained on other images.

    Images in memory are known by their pixels, those that are too many for it by their files: a machine with more
    memory cannot compare them, and goes on where the folder has the same path.
    """
    for folder, checkpoint in zip(folders, saved, strict=True):
        if checkpoint and checkpoint["images"] != images.fingerprint:
            other_kind = checkpoint["images"].startswith("files ") != images.fingerprint.startswith("files ")
            if other_kind and checkpoint["settings"]["dataset"] == settings.dataset:
                print(f"{folder}: the memory was larger or smaller; that these are the same images is not checked")
                continue
            raise InputError(
                f"--dataset {settings.dataset}: its images are not those that {folder}/checkpoint.pt was trained on; "
                "bring them back or choose another --output-dir"
            )


def environment(device: torch.device, is_compiled: bool) -> dict[str, str]:
    """What the bits of the weights depend on besides settings and images."""
    return {
        "torch": str(torch.__version__),
        "device": device.type,
        "backend of the ops": ops.backend(device) + (f", {ops.step_kernels()}" if device.type == "cpu" else ""),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": str(has_bfloat16(device)),
        "processes": str(torchrun.size()),
        "compiled": str(is_compiled),
    }


def say_what_differs(saved: dict, run: Run, folder: Path) -> None:
    """Print what keeps a resumed run from the bits of an unbroken one; a number of threads is restored."""
    for name, value in run.environment.items():
        if saved["environment"].get(name) != value:
            before = command_line.printable(pt.shown(saved["environment"].get(name)))
            print(f"{folder}: {name} was {before} and is {value}: the weights will be as good, not the same to the bit")
    if threads_of(saved, run) != run.threads:
        print(f"{folder}: resumes with {saved['threads']} thread(s), as it began")


def threads_of(saved: dict, run: Run) -> int:
    """Threads to resume with: a checkpoint's, which its bits depend on, but for another number of processes."""
    alike = saved["environment"].get("processes", "1") == run.environment["processes"]
    return saved["threads"] if alike else run.threads
