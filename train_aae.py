"""Train adversarial autoencoders: the encoder masks images, the decoder is its private key.

    python train_aae.py                                   # CIFAR-10, 50 epochs, runs/aae/0
    python train_aae.py --epochs 10 --instances 4         # four keys, seeds 0 to 3, for crosspair.py
    python train_aae.py --instances 4 --resume            # go on after the step where a run was stopped
    python train_aae.py --dataset photos --epochs 2       # nothing to download
    python train_aae.py --dataset folder:my-images --image-size 96
    torchrun --nproc-per-node 8 train_aae.py --batch-size 1024   # eight processes share every mini-batch

The method is Lis, Koryciński, Ciecierski, "Classification of masked image data", PLoS ONE 2021. Labels are
never read. Each mini-batch has the paper's two phases:

  reconstruction   encoder and decoder learn to rebuild the image (MSE);
  regularisation   two discriminators learn to tell draws of the priors, N(0, I) and a uniform category,
                   from the encoder's two latent parts (BCE); then the encoder learns to fool them.

What the paper leaves open, and what was chosen here (figures: validation MSE on CIFAR-10 while the recipe grew, after
three short epochs of 20,000 images, preset paper; seeds differ by about 0.0002; today's are in results/):

  normalised heads  Both heads of the encoder end in a normalisation by running statistics, so neither part can
                    collapse while the discriminators are ahead. The Gaussian one also gives the length of the code,
                    which is the image's contrast, the distribution that it has under the prior (maskbench/models.py).
  decorrelation     A term of DECORRELATION times the excess second moment of the codes: it spreads the image over all
                    dimensions, which lowers the MSE (0.0069 to 0.0055, two epochs) and fills the categories evenly.
  calibration       After every epoch the normalisations' statistics are set to those of the training images, and what
                    correlation is left between the Gaussian dimensions is removed in closed form; the decoder's first
                    layer takes it up, so that the pictures stay. A fresh MLP told the codes of preset paper from
                    prior draws in 99% of cases before, in 55% after.
  small step        Against the discriminators the encoder takes GENERATOR_STEP = 0.1 of the learning rate; the full
                    step trebled the MSE of an earlier recipe. It has an Adam of its own, since Adam would undo a
                    weight on the loss.
  slope 0.5         of the leaky ReLUs in encoder and decoder: 0.0054, where 0.2 gave 0.0067.
  linear output     clamped outside training only: 0.0063, where a sigmoid gave 0.0067.
  annealing         All learning rates fall as 1 / (1 + epochs / 2).
  betas 0.9, 0.95   of Adam: 0.0051 after one epoch of 40,000 images; with 0.999 the loss jumps to several times its
                    value about once an epoch, and 0.0057 at best.

Preset `maskbench` starts encoder and decoder from the principal components of the training images, in closed form,
and adds convolutions that correct the picture; what starts so learns with FITTED_STEP of the learning rate.

The discriminators stay ahead: what holds the latent parts at their priors is first of all the closed forms, the
normalisation and the calibration. What a training prints at its end says how well they hold;
results/figures/trade_off.png shows what more or less of a pull does beside them.
"""

import argparse
import contextlib
import functools
import itertools
import math
import os
import signal
import time
import types
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from maskbench import ops
from maskbench.data import datasets
from maskbench.data.folders import FolderImages
from maskbench.data.image_set import to_float
from maskbench.errors import InputError
from maskbench.models import (
    PRESETS,
    Decoder,
    Discriminator,
    Encoder,
    PriorSampler,
    calibrate,
    checkpoints,
    evaluation,
    start_from_principal_components,
)
from maskbench.models.sizes import has_bfloat16, image_size_argument
from maskbench.ops import discriminator_loss, generator_loss
from maskbench.runtime import child_processes, command_line, torchrun
from maskbench.runtime.cuda_graphs import ONE_AT_A_TIME, Captured
from maskbench.runtime.stopping import Stopped, Stopper, stopping
from maskbench.storage import atomic, pt, tables
from maskbench.training import figures

BETAS = (0.9, 0.95)
GENERATOR_STEP = 0.1  # the encoder's learning rate against the discriminators, as a part of --lr (at --prior-weight 1)
FITTED_STEP = 0.03  # the same of layers that started from principal components
DECORRELATION = 1e-4  # at --prior-weight 1
STATISTICS_IMAGES = 50_000  # at most, that the closed forms are fitted to: beyond, they hardly change
# the flags that change the weights: a checkpoint goes on with the same ones only
SETTINGS = (
    "dataset",
    "limit",
    "image_size",
    "gaussian_dim",
    "categories",
    "preset",
    "prior_weight",
    "batch_size",
    "lr",
    "seed",
)
NETWORKS = ("encoder", "decoder", "gaussian_discriminator", "categorical_discriminator")
OPTIMIZERS = ("reconstruction_optimizer", "discriminator_optimizer", "generator_optimizer")
COLUMNS = (
    "epoch",
    "reconstruction_loss",
    "discriminator_loss",
    "generator_loss",
    "validation_mse",
    "images_per_second",
)


def main() -> None:
    args = parse_arguments()
    torch.set_flush_denormal(True)  # a CPU is slow with the tiny moments of weights that no longer move
    device = command_line.pick_device(args.device)
    with torchrun.processes(device), contextlib.ExitStack() as stack:
        if torchrun.rank() == 0:  # it writes, the others need no such folder
            stack.enter_context(atomic.output_folder(args.output_dir))
        train_all(args, device)


def train_all(args: argparse.Namespace, device: torch.device) -> None:
    if args.batch_size < torchrun.size():
        raise InputError(f"--batch-size {args.batch_size}: fewer images than the {torchrun.size()} processes")
    folders = [args.output_dir / str(instance) for instance in range(args.instances)]
    saved = [torchrun.from_first(functools.partial(find_checkpoint, folder, args)) for folder in folders]
    image_set = datasets.load(args.dataset, args.data_dir, args.image_size, args.workers, args.skip_corrupt)
    train_rows, validation_rows = datasets.autoencoder_split(image_set, args.limit)
    if len(train_rows) < args.batch_size or len(validation_rows) < max(2, torchrun.size()):
        raise InputError(
            f"--dataset {args.dataset}: {len(train_rows)} training and {len(validation_rows)} validation images "
            f"are too few for mini-batches of {args.batch_size} in {torchrun.size()} process(es)"
        )
    # what fits into memory lies on the device as bytes: a mini-batch is one index, no loader, no workers
    train_images = datasets.select(image_set.images, train_rows).to(device)
    validation_images = datasets.select(image_set.images, validation_rows).to(device)
    fingerprint = fingerprint_of(train_images, validation_images)
    if torchrun.from_first(lambda: fingerprint) != fingerprint:
        raise InputError(f"--dataset {args.dataset}: process {torchrun.rank()} has other images than process 0")
    for folder, checkpoint in zip(folders, saved, strict=True):
        if checkpoint and checkpoint["images"] != fingerprint:
            raise InputError(
                f"--dataset {args.dataset}: its images are not those that {folder}/checkpoint.pt was trained on; "
                "bring them back or choose another --output-dir"
            )
    print(
        f"{args.dataset}: {len(train_rows):,} training, {len(validation_rows):,} validation images; "
        f"{args.epochs} epochs on {device}"
        + (f", {torchrun.size()} processes" if torchrun.size() > 1 else "")
        + (f"; decoded again every epoch by {args.workers} worker(s)" if isinstance(train_images, FolderImages) else "")
    )
    if torchrun.rank() == 0:
        for folder in folders:
            atomic.make_folder(folder, private=True)
    # what belongs into every checkpoint beside the weights and the place in the loop
    facts = {"settings": settings_of(args), "environment": environment(device, args.compile), "images": fingerprint}
    # mini-batches of 16 keep one thread busy: instances side by side are done sooner than one after another
    cores = torch.get_num_threads()
    alone = device.type == "cpu" and torchrun.size() == 1
    together = args.instances if alone and child_processes.can_share(train_images, validation_images) else 1
    facts["threads"] = max(1, cores // together)
    begun = [(folder, checkpoint) for folder, checkpoint in zip(folders, saved, strict=True) if checkpoint]
    for folder, checkpoint in begun:
        say_what_differs(checkpoint, facts, folder)
    if begun:
        facts["threads"] = threads_of(begun[0][1], facts)  # instances that never began go on alike
    jobs = max(1, min(together, cores // facts["threads"]))
    calls = [
        (args, args.seed + instance, folder, facts, train_images, validation_images, instance % jobs)
        for instance, folder in enumerate(folders)
    ]
    if jobs > 1:
        child_processes.run_in_parallel(train_in_child, calls, jobs)
    elif device.type == "cuda" and args.instances > 1 and torchrun.size() == 1:
        with stopping(args.checkpoint_minutes) as stopper:
            train_in_threads(stopper, calls, device)
    else:
        with stopping(args.checkpoint_minutes) as stopper:
            for call in calls:
                train(stopper, *call)


def train_in_child(args: argparse.Namespace, *more: object) -> None:
    torch.set_flush_denormal(True)  # of threads that are begun after this, too
    with stopping(args.checkpoint_minutes) as stopper:
        train(stopper, args, *more)


def train_in_threads(stopper: Stopper, calls: list[tuple], device: torch.device) -> None:
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


def train(
    stopper: Stopper,
    args: argparse.Namespace,
    seed: int,
    folder: Path,
    facts: dict,
    train_images: Tensor | FolderImages,
    validation_images: Tensor | FolderImages,
    line: int,
) -> None:
    """Train one autoencoder from one seed; its files land in ``folder`` after every epoch.

    Args:
        stopper: says after which steps to write a checkpoint, and whether to end there.
        facts: what every checkpoint says of the training.
        train_images: uint8 ``[N, 3, S, S]``.
        validation_images: uint8 ``[M, 3, S, S]``.
        line: of the terminal that the progress bar has, below the first.
    """
    device = train_images.device
    first_process = torchrun.rank() == 0  # it writes, the others only compute
    saved = torchrun.from_first(lambda: find_checkpoint(folder, args))
    if saved:
        facts = facts | {"threads": threads_of(saved, facts)}
    torch.set_num_threads(facts["threads"])
    sizes = dict(
        image_size=args.image_size, gaussian_dim=args.gaussian_dim, categories=args.categories, **PRESETS[args.preset]
    )

    def evaluated(images: Tensor | FolderImages, most: int | None = None, of_rank: bool = True) -> Iterator[Tensor]:
        """Batches of the images, or the first ``most`` of them; this process's part, unless it works alone."""
        order = torch.arange(len(images))[:most]
        return datasets.batches(images, order, datasets.large_batch(args.image_size), of_rank)

    def statistics_images() -> Iterator[Tensor]:
        return map(to_float, evaluated(train_images, STATISTICS_IMAGES))

    fitted = set()  # parameters that start from principal components
    with ONE_AT_A_TIME:  # torch's generator belongs to all threads
        torch.manual_seed(seed)
        encoder = Encoder(**sizes).to(device)
        decoder = Decoder(**sizes).to(device)
        gaussian_discriminator = Discriminator(args.gaussian_dim).to(device)
        categorical_discriminator = Discriminator(args.categories).to(device)
        if PRESETS[args.preset]["frequencies"]:
            fitted = {*encoder.parameters(), decoder.contrast, *decoder.linear.parameters()}
            if not saved:
                start_from_principal_components(encoder, decoder, statistics_images())
    prior = PriorSampler(args.gaussian_dim, args.categories, seed).to(device)

    def adam(*modules: torch.nn.Module, step: float = 1) -> torch.optim.Adam:
        groups = []
        for of_fitted, part in ((False, step), (True, FITTED_STEP * step)):
            chosen = [p for module in modules for p in module.parameters() if (p in fitted) == of_fitted]
            if chosen:
                groups.append({"params": chosen, "lr": part * args.lr, "initial_lr": part * args.lr})
        return torch.optim.Adam(groups, betas=BETAS, fused=True)

    parts = {
        "encoder": encoder,
        "decoder": decoder,
        "gaussian_discriminator": gaussian_discriminator,
        "categorical_discriminator": categorical_discriminator,
        "prior": prior,
        "reconstruction_optimizer": adam(encoder, decoder),
        "discriminator_optimizer": adam(gaussian_discriminator, categorical_discriminator),
        "generator_optimizer": adam(encoder, step=GENERATOR_STEP * args.prior_weight),
    }
    optimizers = [parts[name] for name in OPTIMIZERS]
    batches = len(train_images) // args.batch_size  # a last incomplete mini-batch is dropped
    history = []  # one row an epoch, see COLUMNS
    done, seconds, losses = 0, 0.0, torch.zeros(batches, 3, device=device)  # of the epoch under way
    if saved:
        checkpoints.restore(parts, saved["states"], folder / "checkpoint.pt")
        history, seconds, done = saved["history"], saved["seconds"], len(saved["losses"])
        if done > batches:
            raise checkpoints.damaged(folder / "checkpoint.pt", f"step {done} of {batches}")
        losses[:done] = saved["losses"].to(device)
        if done == 0 and first_process:
            export(folder, parts, history)  # the run may have been stopped between two of its files
    for group in itertools.chain.from_iterable(optimizer.param_groups for optimizer in optimizers):
        group["capturable"] = device.type == "cuda"
        if group["capturable"]:  # a captured step reads its learning rate on the GPU
            group["lr"] = torch.tensor(group["lr"], device=device)

    def save() -> None:
        """Write the checkpoint for the place in the loop, unless a loss before it or a weight is not finite."""
        stop_if_not_finite(losses[:done], len(history) + 1, folder)
        states = {name: part.state_dict() for name, part in parts.items()}
        for optimizer in OPTIMIZERS:
            for group in states[optimizer]["param_groups"]:
                group["lr"] = float(group["lr"])  # on a GPU a tensor
        if bad := pt.first_not_finite(states):
            raise not_finite(f"{bad} after epoch {len(history) or 1}", folder)
        place = {"history": history, "losses": losses[:done], "seconds": seconds}
        if first_process:
            checkpoints.save_checkpoint(facts | place | {"states": states}, folder / "checkpoint.pt")

    board = open_tensorboard(folder) if args.tensorboard and first_process else None

    used = parts | (compiled(parts) if args.compile else {})
    first_row = torchrun.share(args.batch_size).start
    step_on = functools.partial(
        take_step, used, prior_weight=args.prior_weight, batch=args.batch_size, first_row=first_row
    )
    if device.type == "cuda" and torchrun.size() == 1:  # nccl within a graph was never tried here
        step_on = Captured(step_on)

    for epoch in range(len(history) + 1, args.epochs + 1):
        # the order depends on seed and epoch alone, so a resumed run sees what an unbroken one does
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(train_images)))
        order = order[done * args.batch_size : batches * args.batch_size]
        start = time.perf_counter() - seconds
        progress = tqdm(
            datasets.batches(train_images, order, args.batch_size, of_rank=True),
            f"{folder} epoch {epoch}/{args.epochs}",
            batches,
            initial=done,
            unit="step",
            position=line,
            disable=not first_process,
        )
        for step, images in enumerate(progress, done + 1):
            anneal(optimizers, epoch - 1 + (step - 1) / batches)
            losses[step - 1] = step_on(to_float(images))
            if step % 50 == 0 or step == batches:  # seldom: a GPU is waited for
                stop_if_not_finite(losses[:step], epoch, folder)
                progress.set_postfix_str("rec {:.4f} dis {:.3f} gen {:.3f}".format(*losses[:step].mean(0).tolist()))
            if stopper.due():
                done, seconds = step, time.perf_counter() - start
                save()
                stopper.saved(f"{folder}, epoch {epoch}, step {step}")
        calibrate(encoder, decoder, statistics_images())
        seconds = time.perf_counter() - start

        encoder.eval(), decoder.eval()
        validation_mse = evaluation.reconstruction_mse(encoder, decoder, evaluated(validation_images))
        encoder.train(), decoder.train()
        if not math.isfinite(validation_mse):
            raise not_finite(f"the validation loss after epoch {epoch}", folder)
        history.append([epoch, *losses.mean(0).tolist(), validation_mse, batches * args.batch_size / seconds])
        done, seconds = 0, 0.0
        if board:
            for name, value in zip(COLUMNS[1:], history[-1][1:], strict=True):
                board.add_scalar(name, value, epoch)
        save()
        if first_process:
            export(folder, parts, history)
        stopper.saved(f"{folder}, epoch {epoch}")
    if board:
        board.close()

    if not first_process:
        return
    encoder.eval(), decoder.eval()
    with ONE_AT_A_TIME:  # so does pyplot
        figures.losses(history, folder / "losses.png")
        shown = next(evaluated(validation_images, 8, of_rank=False))
        figures.reconstructions(encoder, decoder, shown, folder / "reconstructions.png")
    codes = evaluation.encode(encoder, evaluated(validation_images, STATISTICS_IMAGES, of_rank=False))
    summary = evaluation.latent_summary(*codes)
    print(
        f"{folder}: validation MSE {history[-1][4]:.6f}; on validation images the Gaussian dimensions have means "
        f"within {summary['mean']:.2f} of 0, deviations {summary['deviation_min']:.2f} to "
        f"{summary['deviation_max']:.2f}, kurtosis {summary['kurtosis']:.2f} and correlations of "
        f"{summary['correlation']:.3f}; the categories hold {summary['category_min']:.1%} to "
        f"{summary['category_max']:.1%}"
    )
    print(f"{folder}: encoder.pt masks; decoder.pt and checkpoint.pt are private; losses.png, reconstructions.png")


def take_step(parts: dict, images: Tensor, prior_weight: float, batch: int | None = None, first_row: int = 0) -> Tensor:
    """Both phases of one mini-batch: the paper's method.

    Under torchrun each process has some of its rows. What is a mean over the rows counts there by their part of the
    mini-batch, so that the gradients of all processes sum up to those of one.

    Args:
        parts: the networks, the prior and the optimisers by name; all of them change.
        images: ``[N, 3, S, S]`` in [0, 1].
        prior_weight: see ``--prior-weight``.
        batch: rows of the whole mini-batch; default: N.
        first_row: where in it the images begin.

    Returns:
        The losses of reconstruction, of the discriminators and of the encoder against them, ``[3]``, of the whole
        mini-batch.
    """
    batch = batch or len(images)
    part = len(images) / batch
    encode, decoder, prior = parts["encoder"].encode, parts["decoder"], parts["prior"]
    discriminators = parts["gaussian_discriminator"], parts["categorical_discriminator"]

    # Reconstruction phase: encoder and decoder rebuild the image.
    gaussian, logits = encode(images)
    reconstruction_loss = part * F.mse_loss(decoder(torch.cat((gaussian, logits.softmax(1)), 1)), images)
    codes = [torchrun.all_rows(codes, first_row, batch) for codes in (gaussian, logits)]
    spread_loss = DECORRELATION * sum(map(excess_moment, codes))
    descend(reconstruction_loss + prior_weight * spread_loss, parts["reconstruction_optimizer"])

    # Regularisation phase, 1: the discriminators tell prior draws (real) from encoded images (fake).
    gaussian, logits = encode(images)
    encoded = gaussian, logits.softmax(1)
    drawn = prior(len(images), first_row)
    rows = [torch.cat((real, fake.detach())) for real, fake in zip(drawn, encoded, strict=True)]
    logits = torch.stack([tell(both) for tell, both in zip(discriminators, rows, strict=True)])
    adversary_loss = part * discriminator_loss(logits[:, : len(images)], logits[:, len(images) :])
    descend(adversary_loss, parts["discriminator_optimizer"])

    # Regularisation phase, 2: the encoder, with what it said already, makes its codes pass for prior draws.
    logits = torch.stack([tell(fake) for tell, fake in zip(discriminators, encoded, strict=True)])
    encoder_loss = part * generator_loss(logits)
    descend(encoder_loss, parts["generator_optimizer"])
    return torchrun.total(torch.stack((reconstruction_loss, adversary_loss, encoder_loss)).detach())[0]


def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step down the loss, summed over processes; no gradient is taken of weights that are not the optimiser's."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.zero_grad()
    loss.backward(inputs=parameters)
    torchrun.sum_gradients(parameters)
    ops.adam_step(optimizer)


def fingerprint_of(*parts: Tensor | FolderImages) -> str:
    """Which images these are; of those that are not in memory by their files' names and sizes."""
    if isinstance(parts[0], Tensor):
        return pt.fingerprint(dict(zip(("train", "validation"), parts, strict=True)))
    return "files " + " ".join(part.fingerprint() for part in parts)


def compiled(parts: dict) -> dict:
    """The networks as :func:`take_step` uses them, compiled; the parts themselves stay as they are."""
    compile_one = functools.partial(torch.compile, dynamic=False)
    networks = {name: compile_one(parts[name]) for name in NETWORKS[1:]}
    return networks | {"encoder": types.SimpleNamespace(encode=compile_one(parts["encoder"].encode))}


def excess_moment(codes: Tensor) -> Tensor:
    """How far the second moment C of codes ``[N, F]``, N >= 2, is from the identity: ||C||^2 / F - 1, a scalar.

    Estimated without bias from pairs of different images, E[(z_i . z_j)^2] = ||C||^2 (Frobenius); 0 for codes of
    deviation 1 without correlation. It is the quadratic-kernel distance to the prior that Wasserstein autoencoders use
    (Tolstikhin et al., ICLR 2018).
    """
    pairs = (codes @ codes.T).triu(1).square().sum()
    return 2 * pairs / (len(codes) * (len(codes) - 1) * codes.shape[1]) - 1


def anneal(optimizers: Iterable[torch.optim.Optimizer], epochs: float) -> None:
    """All learning rates fall as 1 / (1 + epochs / 2); no end is built in, so that a run may be prolonged."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            rate = group["initial_lr"] / (1 + epochs / 2)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def export(folder: Path, parts: dict, history: list[list[float]]) -> None:
    """Write what a finished epoch leaves beside its checkpoint: encoder, private decoder and metrics."""
    fingerprint = checkpoints.save_encoder(parts["encoder"], folder / "encoder.pt")
    checkpoints.save_decoder(parts["decoder"], fingerprint, folder / "decoder.pt")
    tables.write_csv(folder / "metrics.csv", COLUMNS, history)


def stop_if_not_finite(losses: Tensor, epoch: int, folder: Path) -> None:
    """InputError that names the first step whose losses (``[steps, 3]``) are not finite."""
    bad = torch.nonzero(~losses.isfinite())
    if len(bad):
        step, loss = bad[0].tolist()
        raise not_finite(f"the {COLUMNS[1 + loss].replace('_', ' ')} of epoch {epoch}, step {step + 1}", folder)


def not_finite(what: str, folder: Path) -> InputError:
    path = folder / "checkpoint.pt"
    kept = "there was no checkpoint before it"
    if path.exists():
        last = checkpoints.load_checkpoint(path)
        kept = f"{path}, of {len(last['history'])} epochs and {len(last['losses'])} steps, is good and was kept"
    return InputError(f"{what} is not finite; {kept}. Train with a lower --lr in another --output-dir")


def environment(device: torch.device, is_compiled: bool) -> dict[str, str]:
    """What the bits of the weights depend on besides flags and images."""
    return {
        "torch": str(torch.__version__),
        "device": device.type,
        "backend of the ops": ops.backend(device) + (f", {ops.step_kernels()}" if device.type == "cpu" else ""),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": str(has_bfloat16(device)),
        "processes": str(torchrun.size()),
        "compiled": str(is_compiled),
    }


def say_what_differs(saved: dict, facts: dict, folder: Path) -> None:
    """Print what keeps a resumed run from the bits of an unbroken one; a number of threads is restored."""
    for name, value in facts["environment"].items():
        if saved["environment"].get(name) != value:
            before = command_line.printable(pt.shown(saved["environment"].get(name)))
            print(f"{folder}: {name} was {before} and is {value}: the weights will be as good, not the same to the bit")
    if threads_of(saved, facts) != facts["threads"]:
        print(f"{folder}: goes on with {saved['threads']} thread(s), as it began")


def threads_of(saved: dict, facts: dict) -> int:
    """Threads to go on with: a checkpoint's, which its bits depend on, but for another number of processes."""
    alike = saved["environment"].get("processes", "1") == facts["environment"]["processes"]
    return saved["threads"] if alike else facts["threads"]


def settings_of(args: argparse.Namespace) -> dict:
    return {name: getattr(args, name) for name in SETTINGS}


def find_checkpoint(folder: Path, args: argparse.Namespace) -> dict | None:
    """The checkpoint in ``folder`` to go on from; InputError where a trained key would be lost."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        if (folder / "decoder.pt").exists():
            raise InputError(
                f"{folder} holds a private key, decoder.pt, and no checkpoint; choose another --output-dir"
            )
        return None
    if not args.resume:
        raise InputError(
            f"{folder} holds a trained autoencoder and its private key; "
            "go on with --resume, choose another --output-dir, or delete it"
        )
    checkpoint = checkpoints.load_checkpoint(path)
    for name, value in settings_of(args).items():
        before = checkpoint["settings"].get(name)
        if type(before) is not type(value) or before != value:
            raise InputError(
                f"{path} was made with --{name.replace('_', '-')} {pt.shown(before)}, not {value}; "
                "resume with the same value or choose another --output-dir"
            )
    if any(len(row) != len(COLUMNS) for row in checkpoint["history"]):
        raise checkpoints.damaged(path, "its history has other columns")
    return checkpoint


def open_tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard: not installed; run pip install tensorboard") from None
    return SummaryWriter(str(folder / "tensorboard"))


def parse_arguments() -> argparse.Namespace:
    parser = command_line.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--dataset", default="cifar10", help="public images: cifar10, cifar100, mnist, photos, digits or folder:PATH")
    add("--output-dir", type=Path, default=Path("runs/aae"), help="instances go to OUTPUT_DIR/0, /1, ...")
    add("--epochs", type=command_line.integer(1), default=50, help="passes over the training images")
    add(
        "--instances",
        type=command_line.integer(1),
        default=1,
        help="autoencoders to train, side by side (on a CPU: with threads to spare); instance i has seed SEED + i",
    )
    add("--batch-size", type=command_line.integer(2), default=16, help="images a mini-batch")
    add("--lr", type=command_line.positive_float, default=1e-3, help="Adam's learning rate")
    add("--limit", type=command_line.integer(8), help="keep the first LIMIT training and LIMIT // 4 validation images")
    add("--image-size", type=image_size_argument, default=32, help="side of the images in pixels, 8 to 256")
    add("--gaussian-dim", type=command_line.integer(1, 2**16), default=384, help="length of the Gaussian part")
    add("--categories", type=command_line.integer(1, 2**16), default=20, help="length of the categorical part")
    add("--preset", choices=tuple(PRESETS), default="maskbench", help="networks: ours, or the sizes of the paper")
    add(
        "--prior-weight",
        type=command_line.nonnegative_float,
        default=1.0,
        help="pull of the priors: multiplies the encoder's step against the discriminators and the decorrelation",
    )
    compiles = "torch.compile the networks: slower on the CPUs it was measured on, not yet timed on a GPU"
    add("--compile", action="store_true", help=compiles)
    add("--resume", action="store_true", help="go on from each instance's checkpoint; without one it starts")
    add(
        "--checkpoint-minutes",
        type=command_line.positive_float,
        default=10.0,
        help="save this often within an epoch, too",
    )
    add("--tensorboard", action="store_true", help="also write TensorBoard event files")
    parser.add_data()
    parser.add_common()
    args = parser.parse_args()
    if args.compile and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        parser.error("argument --compile: for one process; leave it out under torchrun")
    frequencies = 3 * min(PRESETS[args.preset]["frequencies"], args.image_size**2)
    if 0 < frequencies < args.gaussian_dim + args.categories:
        parser.error(
            f"argument --preset: {args.preset} reads {frequencies} frequencies of an image of {args.image_size} x "
            f"{args.image_size}, fewer than {args.gaussian_dim} + {args.categories} numbers; lower --gaussian-dim "
            "or use --preset paper"
        )
    return args


if __name__ == "__main__":
    command_line.run(main)
