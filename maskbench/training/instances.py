"""Several autoencoders from one start: side by side in processes, in threads of one GPU, or one after another."""

import pickle
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import torch

from maskbench.runtime import child_processes, torchrun
from maskbench.runtime.stopping import Stopped, Stopper, stopping
from maskbench.training.resume import say_what_differs, threads_of
from maskbench.training.run import Run

# trains one autoencoder: stops by the first, shares the second; its seed, checkpoint, folder and line of the terminal
Train = Callable[[Stopper, Run, int, dict | None, Path, int], None]


def train_instances(
    train: Train, run: Run, folders: Sequence[Path], saved: list[dict | None], device: torch.device
) -> None:
    """Train every instance, instance i from seed ``run.settings.seed`` + i, the fastest way there is.

    Args:
        train: of an importable module or of the script that runs.
        folders: of the instances.
        saved: the checkpoint that each resumes from, or None; emptied, so that each is forgotten when it has served.
    """
    # mini-batches of 16 keep one thread busy: instances side by side are done sooner than one after another
    cores = torch.get_num_threads()
    alone = device.type == "cpu" and torchrun.size() == 1
    together = alone and child_processes.can_share(run.images.train, run.images.validation)
    run = replace(run, threads=max(1, cores // (len(folders) if together else 1)))
    begun = [(folder, checkpoint) for folder, checkpoint in zip(folders, saved, strict=True) if checkpoint]
    for folder, checkpoint in begun:
        say_what_differs(checkpoint, run, folder)
    if begun:
        run = replace(run, threads=threads_of(begun[0][1], run))  # instances that never began train alike
    jobs = max(1, min(len(folders), cores // run.threads)) if together else 1
    in_threads = device.type == "cuda" and len(folders) > 1 and torchrun.size() == 1
    at_once = len(folders) if in_threads else jobs  # each has a line of the terminal
    calls = [
        (run, run.settings.seed + instance, checkpoint, folder, instance % at_once)
        for instance, (folder, checkpoint) in enumerate(zip(folders, saved, strict=True))
    ]
    saved.clear()
    if jobs > 1:
        # as bytes: a tensor would be shared, and take a file descriptor and memory that containers have little of
        calls = [(train, pickle.dumps(checkpoint), run, seed, *rest) for run, seed, checkpoint, *rest in calls]
        child_processes.run_in_parallel(train_in_child, calls, jobs)
        return
    with stopping(run.checkpoint_minutes) as stopper:
        if in_threads:
            train_in_threads(train, stopper, calls, device)
        else:
            while calls:
                train(stopper, *calls.pop(0))


def train_in_child(train: Train, checkpoint: bytes, run: Run, seed: int, folder: Path, line: int) -> None:
    """One instance in a process of its own; the checkpoint is pickled by the parent."""
    torch.set_flush_denormal(True)  # of threads that are begun after this, too
    with stopping(run.checkpoint_minutes) as stopper:
        train(stopper, run, seed, pickle.loads(checkpoint), folder, line)


def train_in_threads(train: Train, stopper: Stopper, calls: list[tuple], device: torch.device) -> None:
    """Instances on one GPU, each in a thread with a stream of its own: one alone leaves most of the GPU idle.

    Where one fails, the others save and stop.
    """

    def work(call: tuple) -> None:
        stream = None
        if device.type == "cuda":
            stream = torch.cuda.Stream(device)
            stream.wait_stream(torch.cuda.default_stream(device))  # the images are there
        with torch.cuda.stream(stream):
            train(stopper.another(), *call)

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(work, call) for call in calls]
        wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.done() and future.exception() for future in futures):
            stopper.stop(signal.SIGTERM)
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, Stopped))  # what went wrong, not what it stopped
