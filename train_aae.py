"""Train adversarial autoencoders: the encoder masks images, the decoder is its private key.

    python train_aae.py                                   # CIFAR-10, runs/aae/0
    python train_aae.py --epochs 10 --instances 4         # four keys, seeds 0 to 3, for crosspair.py
    python train_aae.py --instances 4 --resume            # resumes after the step where a run was stopped
    python train_aae.py --dataset photos --epochs 2       # nothing to download
    python train_aae.py --dataset folder:my-images --image-size 96
    torchrun --nproc-per-node 8 train_aae.py --batch-size 1024   # eight processes share every mini-batch

The method is Lis, Koryciński, Ciecierski, "Classification of masked image data", PLoS ONE 2021. Labels are
never read. Each mini-batch has two phases:

  agreement        preset invariant: each image and a random view of it get the same code, so that a mask is to keep
                   what classes are made of, not the picture; the decoder learns from codes, the encoder not from it;
  reconstruction   preset paper: encoder and decoder learn to rebuild the image (MSE);
  regularisation   two discriminators learn to tell draws of the priors, N(0, I) and a uniform category,
                   from the encoder's two latent parts (BCE); then the encoder learns to fool them.

After each epoch an affine map whitens the codes, in closed form; the decoder's first layer takes its inverse. What is
then written for preset invariant is a copy whose codes forget the patterns of light and of contrast that they tell
most of.

What the paper leaves open, what was chosen here, and what each choice is worth: docs/method.md.
"""

import maskbench.runtime.early  # noqa: F401  # isort: skip
import argparse
import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from maskbench import ops
from maskbench.data import datasets
from maskbench.data.image_set import to_float
from maskbench.data.views import random_views
from maskbench.errors import InputError
from maskbench.models import (
    DEFAULT_PRESET,
    PRESETS,
    Decoder,
    Discriminator,
    Encoder,
    PriorSampler,
    evaluation,
    features_and_pictures,
    forget,
    linear_outputs,
    set_statistics,
    start_with_even_categories,
    whiten,
)
from maskbench.models.heads import one_hot
from maskbench.models.layers import batch_moments
from maskbench.models.sizes import image_size_argument
from maskbench.ops import discriminator_loss, generator_loss
from maskbench.runtime import command_line, torchrun
from maskbench.runtime.cuda_graphs import Captured
from maskbench.runtime.seeding import seeded
from maskbench.runtime.stopping import Stopper
from maskbench.storage import atomic
from maskbench.training.images import large_batches, load_images
from maskbench.training.instances import train_instances
from maskbench.training.journal import Journal, not_finite
from maskbench.training.resume import check_images, environment, find_checkpoints, threads_of
from maskbench.training.run import Run
from maskbench.training.settings import Settings
from maskbench.training.state import TrainingState
from maskbench.training.summary import show

BETAS = (0.9, 0.95)  # of Adam
DISCRIMINATOR_BETAS = {"invariant": (0.0, 0.95), "paper": BETAS}  # of their Adam; 0: no momentum
GENERATOR_STEP = 0.5  # the encoder's learning rate against the discriminators, as a part of --lr (at --prior-weight 1)
# keeps the Gaussian part's discriminator from winning; the other sees only K different rows
GRADIENT_PENALTY = {"invariant": 1.0, "paper": 3.0}
DISCRIMINATOR_STEPS = {"invariant": 4, "paper": 2}  # a mini-batch: four, where the encoder moves fast
PRIOR_PULL = 0.2  # of the discriminators beside the agreement (at --prior-weight 1)
DECODED = 4  # preset invariant: the decoder, which only looks on, learns from every fourth image
DECORRELATION = 8e-4  # weight of each squared correlation of different dimensions in the agreement
CATEGORY = 0.01  # weight of the categories in the agreement
FORGOTTEN = (7, 2)  # patterns of light and of contrast that masks of preset invariant forget
WHITENED = 100  # steps between whitenings of preset invariant's codes in training, or more; one more is at the end
# at most, that the closed forms are fitted to: beyond, they hardly change, and one encoder is slower
STATISTICS_IMAGES = {"invariant": 20_000, "paper": 50_000}


def take_step(
    state: TrainingState, images: Tensor, views: Tensor | None = None, batch: int | None = None, first_row: int = 0
) -> Tensor:
    """Both phases of one mini-batch: the paper's method, or, with views, preset invariant's.

    Under torchrun each process has some of its rows. What is a mean over the rows counts there by their part of the
    mini-batch, so that the gradients of all processes sum up to those of one.

    Args:
        state: networks, prior and optimisers; all of them change.
        images: ``[N, 3, S, S]`` in [0, 1].
        views: ``[N, 3, V, V]``, one of each image.
        batch: rows of the whole mini-batch; default: N.
        first_row: where in it the images begin.

    Returns:
        Losses of the whole mini-batch, ``[4]``: of reconstruction, of the Gaussian and of the categorical part's
        discriminator, and of the encoder against both. With views ``[5]``: that of reconstruction is of every
        ``DECODED``-th image, and the last is of agreement.
    """
    part = len(images) / (batch or len(images))
    agreement_loss = images.new_zeros(())
    if views is None:
        # Reconstruction phase: encoder and decoder rebuild the image.
        codes = state.encoder(images)
        reconstruction_loss = part * F.mse_loss(state.decoder(torch.cat(codes, 1)), images)
        descend(reconstruction_loss, state.reconstruction_optimizer)
        codes = state.encoder(images)
    else:
        # Agreement phase: an image and its view get the same code. The decoder shows what codes give away.
        of_images, of_views = state.encoder.heads(images), state.encoder.heads_of_views(views)
        agreement_loss = part * disagreement(of_images, of_views)
        codes = of_images[0], one_hot(of_images[1])
        some = slice(-first_row % DECODED, None, DECODED)
        values = math.ceil((batch or len(images)) / DECODED) * images[0].numel()  # of the whole mini-batch
        rebuilt = state.decoder(torch.cat(codes, 1)[some].detach())
        reconstruction_loss = F.mse_loss(rebuilt, images[some], reduction="sum") / values
        descend(reconstruction_loss, state.reconstruction_optimizer)

    # Regularisation phase, 1: the discriminators tell prior draws (real) from encoded images (fake).
    for _ in range(DISCRIMINATOR_STEPS[state.preset]):
        draws = [draw.to(images.dtype) for draw in state.prior(len(images), first_row)]
        both = [torch.cat((real, fake.detach())) for real, fake in zip(draws, codes, strict=True)]
        logits = torch.stack([tell(x) for tell, x in zip(state.discriminators, both, strict=True)])
        real_logits, fake_logits = logits.tensor_split(2, 1)
        adversary_loss = part * discriminator_loss(real_logits, fake_logits)
        penalty = part * gradient_penalty(state.gaussian_discriminator, draws[0])
        descend(adversary_loss + 0.5 * GRADIENT_PENALTY[state.preset] * penalty, state.discriminator_optimizer)

    # Regularisation phase, 2: the encoder, with what it said already, makes its codes pass for prior draws.
    logits = torch.stack([tell(fake) for tell, fake in zip(state.discriminators, codes, strict=True)])
    encoder_loss = part * generator_loss(logits)
    descend(agreement_loss + state.pull * encoder_loss, state.generator_optimizer)

    categorical_loss = part * discriminator_loss(real_logits[1:].detach(), fake_logits[1:].detach())
    losses = [reconstruction_loss, adversary_loss - categorical_loss, categorical_loss, encoder_loss]
    losses += [] if views is None else [agreement_loss]
    return torchrun.total(torch.stack(losses).detach())[0]


def disagreement(of_images: tuple[Tensor, Tensor], of_views: tuple[Tensor, Tensor]) -> Tensor:
    """How far images and views of them are from the same code, a scalar.

    Of the Gaussian part, standardised over the mini-batch, the correlation of a dimension with itself in the view
    should be 1, with the others 0 (Barlow Twins: Zbontar et al., ICML 2021). Of the categories, both should choose the
    same, with confidence. That no category is chosen always, the discriminator sees to.

    Args:
        of_images: Gaussian part ``[N, G]`` and logits of the categories ``[N, K]``.
        of_views: likewise.
    """
    both = torch.cat((of_images[0], of_views[0]), 1)
    mean, variance, count = batch_moments(both)
    one, two = ((both - mean) * (variance + 1e-5).rsqrt()).chunk(2, 1)
    correlations = torchrun.summed(one.T @ two) / count
    own = correlations.diagonal()
    others = correlations.square().sum() - own.square().sum()
    agreed = (of_images[1].softmax(1) * of_views[1].softmax(1)).sum(1).clamp_min(1e-6).log().mean()
    return (1 - own).square().mean() + DECORRELATION * others - CATEGORY * agreed


def gradient_penalty(discriminator: Discriminator, draws: Tensor) -> Tensor:
    """Mean squared gradient of the discriminator's logits at draws of its prior ``[N, F]``, a scalar.

    Half of it is the penalty R1, with which the two sides come to rest where neither wins (Mescheder, Geiger and
    Nowozin, "Which training methods for GANs do actually converge?", ICML 2018).
    """
    draws = draws.clone().requires_grad_()
    logits = discriminator.layers(discriminator.read(draws))  # PyTorch's own: the kernels have no second derivative
    return torch.autograd.grad(logits.sum(), draws, create_graph=True)[0].square().sum(1).mean()


def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step down the loss, summed over processes; no gradient is taken of weights that are not the optimiser's."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.zero_grad()
    loss.backward(inputs=parameters)
    torchrun.sum_gradients(parameters)
    ops.adam_step(optimizer)  # optimizer.step(), by a kernel for small mini-batches on a CPU


def train(stopper: Stopper, run: Run, seed: int, saved: dict | None, folder: Path, line: int) -> None:
    """Train one autoencoder from one seed; its files land in ``folder`` after every epoch.

    Args:
        stopper: says after which steps to write a checkpoint, and whether to end there.
        run: what it shares with other instances.
        saved: the checkpoint to resume from.
        line: of the terminal that the progress bar has, below the first.
    """
    threads = threads_of(saved, run) if saved else run.threads
    torch.set_num_threads(threads)
    device, batch_size = run.images.train.device, run.settings.batch_size
    state = begin(run, seed, fit=not saved)
    journal = Journal(folder, state, run, threads, device)
    if saved:
        journal.restore(saved)
    journal.open()
    state.make_capturable(device)
    step = step_function(state, run, seed)

    for epoch in range(len(journal.history) + 1, run.epochs + 1):
        # the order depends on seed and epoch alone, so a resumed run sees what an unbroken one does
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(run.images.train)))
        order = order[journal.done * batch_size : run.batches * batch_size]
        start, of_epoch = time.perf_counter() - journal.seconds, torch.tensor(epoch, device=device)
        progress = tqdm(
            zip(
                datasets.batches(run.images.train, order, batch_size, of_rank=True),
                datasets.parts(order.to(device), batch_size, of_rank=True),
                strict=True,
            ),
            f"{folder} epoch {epoch}/{run.epochs}",
            run.batches,
            initial=journal.done,
            unit="step",
            position=line,
            disable=torchrun.rank() > 0,
        )
        for number, (pixels, numbers) in enumerate(progress, journal.done + 1):
            state.anneal(epoch - 1 + (number - 1) / run.batches, run.epochs)
            journal.note(number, step(pixels, numbers, of_epoch))
            if number % 50 == 0 or number == run.batches:  # seldom: a GPU is waited for
                progress.set_postfix_str(shown_losses(journal.check()))
            if stopper.due():
                journal.seconds = time.perf_counter() - start
                journal.save()
                stopper.saved(f"{folder}, epoch {epoch}, step {number}")
        # after an epoch of few steps the adversary has not got used to the last whitening yet
        due = epoch * run.batches % WHITENED < run.batches or epoch == run.epochs
        pair = whitened_pair(state, run, seed, due)
        journal.seconds = time.perf_counter() - start
        validation_mse = evaluation.reconstruction_mse(*pair, large_batches(run.images.validation))
        if not math.isfinite(validation_mse):
            raise not_finite(f"the validation loss after epoch {epoch}", folder)
        journal.finish_epoch(validation_mse, pair)
        stopper.saved(f"{folder}, epoch {epoch}")

    journal.close()
    if torchrun.rank() == 0:
        show(*journal.pair, run.images.validation, journal.history, folder)


@torch.no_grad()
def whitened_pair(state: TrainingState, run: Run, seed: int, due: bool) -> tuple[Encoder, Decoder]:
    """Whiten the codes in training; then make what ``encoder.pt`` and ``decoder.pt`` hold: copies, in eval mode.

    The copies of preset invariant forget patterns, and are whitened again; the training goes on with codes that keep
    them, and that are whitened only where it is ``due``.
    """
    encoder, decoder = state.encoder, state.decoder
    set_statistics(encoder, mini_batches(run))
    encoder.eval(), decoder.eval()
    if state.preset == "paper":
        whiten(encoder, decoder, linear_outputs(encoder, statistics_images(run))[0], seed)
        pair = copy.deepcopy((encoder, decoder))
    else:
        features, *pictures = features_and_pictures(encoder, statistics_images(run))
        if due:
            whiten(encoder, decoder, encoder.gaussian(features), seed)
        pair = forgetful_pair(encoder, decoder, features, pictures, FORGOTTEN, seed)
    encoder.train(), decoder.train()
    return pair


def forgetful_pair(
    encoder: Encoder,
    decoder: Decoder,
    features: Tensor,
    pictures: Sequence[Tensor],
    patterns: Sequence[int],
    seed: int,
) -> tuple[Encoder, Decoder]:
    """Copies of networks in eval mode whose codes forgot, and are white.

    Args:
        features, pictures: see :func:`maskbench.models.features_and_pictures`.
        patterns: how many of each kind of pictures to forget.
    """
    encoder, decoder = copy.deepcopy((encoder, decoder))
    forget(encoder.gaussian, features, *zip(pictures, patterns, strict=True))
    whiten(encoder, decoder, encoder.gaussian(features), seed)
    return encoder, decoder


def begin(run: Run, seed: int, fit: bool) -> TrainingState:
    """The networks as their seed makes them, and an Adam for each part of a step.

    Args:
        fit: start with white codes and even categories; a checkpoint has them already.
    """
    settings, device = run.settings, run.images.train.device
    rebuilds = settings.preset == "paper"  # or else the encoder learns by agreement, and the decoder beside it
    sizes = {name: getattr(settings, name) for name in ("preset", "image_size", "gaussian_dim", "categories")}
    with seeded(seed):
        encoder = Encoder(**sizes).to(device)
        decoder = Decoder(**sizes).to(device)
        decoder.contrast = encoder.contrast  # whatever the adversary makes of it, the decoder undoes
        # the length of preset paper's codes is the contrast of the image, which the adversary has to narrow
        tell_gaussian = Discriminator(settings.gaussian_dim, reads_length=rebuilds).to(device)
        tell_categorical = Discriminator(settings.categories).to(device)
        if fit:
            set_statistics(encoder, mini_batches(run))
            encoder.eval()
            outputs, logits = linear_outputs(encoder, statistics_images(run))
            start_with_even_categories(encoder.categorical, logits)
            whiten(encoder, None, outputs, seed)
            encoder.train()
    prior = PriorSampler(settings.gaussian_dim, settings.categories, seed).to(device)

    def adam(parameters: Iterable[Tensor], step: float = 1, betas: tuple[float, float] = BETAS) -> torch.optim.Adam:
        rate = step * settings.lr
        group = {"params": list(parameters), "lr": rate, "initial_lr": rate}
        return torch.optim.Adam([group], betas=betas, fused=True)

    # the decoder undoes the contrast: what reconstruction says of it is rounding
    contrast = set(encoder.contrast.parameters())
    rebuilding = [*(encoder.parameters() if rebuilds else ()), *decoder.parameters()]
    adversary = [*tell_gaussian.parameters(), *tell_categorical.parameters()]
    weight = settings.prior_weight
    return TrainingState(
        encoder=encoder,
        decoder=decoder,
        gaussian_discriminator=tell_gaussian,
        categorical_discriminator=tell_categorical,
        prior=prior,
        reconstruction_optimizer=adam(parameter for parameter in rebuilding if parameter not in contrast),
        discriminator_optimizer=adam(adversary, betas=DISCRIMINATOR_BETAS[settings.preset]),
        # preset paper: an Adam of its own, since Adam would undo a weight on the loss
        generator_optimizer=adam(encoder.parameters(), GENERATOR_STEP * weight)
        if rebuilds
        else adam(encoder.parameters()),
        pull=1.0 if rebuilds else PRIOR_PULL * weight,
    )


def shown_losses(losses: Tensor) -> str:
    """For the progress bar: what :func:`take_step` gives, in words."""
    names = ("rec {:.4f}", "dis {:.3f}", "+ {:.3f}", "gen {:.3f}", "agr {:.3f}")
    return " ".join(name.format(loss) for name, loss in zip(names, losses.tolist(), strict=False))


def statistics_images(run: Run) -> Iterator[Tensor]:
    """What the closed forms are fitted to: batches of float32 training images."""
    return map(to_float, large_batches(run.images.train, STATISTICS_IMAGES[run.settings.preset]))


def mini_batches(run: Run) -> Iterator[Tensor]:
    """The first mini-batches of training images, whole ones, of about 10,000 images: float32."""
    size = run.settings.batch_size
    order = torch.arange(size * min(run.batches, -(-10_000 // size)))
    return map(to_float, datasets.batches(run.images.train, order, size, of_rank=True))


def step_function(state: TrainingState, run: Run, seed: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """:func:`take_step` for this process's rows; compiled where asked for, one CUDA graph on a GPU.

    Returns:
        Makes losses of pixels (uint8 ``[N, 3, S, S]``), their numbers (int64 ``[N]``) and the epoch (int64 ``[]``).
    """
    networks, batch_size = state.compiled() if run.compile else state, run.settings.batch_size
    first_row = torchrun.share(batch_size).start

    def step(pixels: Tensor, numbers: Tensor, epoch: Tensor) -> Tensor:
        images = to_float(pixels)
        views = None if state.preset == "paper" else random_views(images, numbers, seed, epoch)
        return take_step(networks, images, views, batch_size, first_row)

    captured = run.images.train.device.type == "cuda" and torchrun.size() == 1  # nccl within a graph was never tried
    return Captured(step) if captured else step


def main() -> None:
    args = parse_arguments()
    torch.set_flush_denormal(True)  # a CPU is slow with the tiny moments of weights that no longer move
    device = command_line.pick_device(args.device)
    settings = Settings(**{name: getattr(args, name) for name in Settings.names()})
    with torchrun.processes(device), contextlib.ExitStack() as stack:
        if torchrun.rank() == 0:  # it writes, the others need no such folder
            stack.enter_context(atomic.output_folder(args.output_dir))
        if settings.batch_size < torchrun.size():
            raise InputError(f"--batch-size {settings.batch_size}: fewer images than the {torchrun.size()} processes")
        folders = [args.output_dir / str(instance) for instance in range(args.instances)]
        saved = find_checkpoints(folders, settings, args.resume)
        images = load_images(settings, args.data_dir, args.workers, args.skip_corrupt, device)
        check_images(images, saved, settings, folders)
        run = Run(
            settings=settings,
            epochs=args.epochs,
            images=images,
            environment=environment(device, args.compile),
            compile=args.compile,
            tensorboard=args.tensorboard,
            checkpoint_minutes=args.checkpoint_minutes,
        )
        print(
            f"{args.dataset}: {len(images.train):,} training, {len(images.validation):,} validation images; "
            f"{args.epochs} epoch{'s' if args.epochs > 1 else ''} on {device}"
            + (f", {torchrun.size()} processes" if torchrun.size() > 1 else "")
            + (f"; decoded again every epoch by {args.workers} worker(s)" if not images.in_memory else "")
        )
        if torchrun.rank() == 0:
            for folder in folders:
                atomic.make_folder(folder, private=True)
        train_instances(train, run, folders, saved, device)


def of_preset(name: str) -> str:
    """A default that depends on the preset, for ``--help``."""
    return "default: " + ", ".join(f"{sizes[name]} for preset {preset}" for preset, sizes in PRESETS.items())


def parse_arguments() -> argparse.Namespace:
    parser = command_line.ArgumentParser(__doc__)
    add = parser.add_argument
    add(
        "--dataset",
        default="cifar10",
        help="public images: cifar10, cifar100, mnist, photos, digits, folder:PATH or npz:FILE",
    )
    add("--output-dir", type=command_line.path, default=Path("runs/aae"), help="instances go to OUTPUT_DIR/0, /1, ...")
    add("--epochs", type=command_line.integer(1), help=f"passes over the training images ({of_preset('epochs')})")
    add(
        "--instances",
        type=command_line.integer(1),
        default=1,
        help="autoencoders to train, side by side (on a CPU: with threads to spare); instance i has seed SEED + i",
    )
    add("--batch-size", type=command_line.integer(2), help=f"images a mini-batch ({of_preset('batch_size')})")
    add("--lr", type=command_line.positive_float, help=f"Adam's learning rate ({of_preset('lr')})")
    add("--limit", type=command_line.integer(8), help="keep the first LIMIT training and LIMIT // 4 validation images")
    add("--image-size", type=image_size_argument, default=32, help="side of the images in pixels, 8 to 256")
    gaussian_dim = f"length of the Gaussian part ({of_preset('gaussian_dim')})"
    add("--gaussian-dim", type=command_line.integer(1, 2**16), help=gaussian_dim)
    add("--categories", type=command_line.integer(1, 2**16), default=20, help="length of the categorical part")
    presets = "invariant: trained for views that agree, not for rebuilding; paper: the paper's method"
    add("--preset", choices=tuple(PRESETS), default=DEFAULT_PRESET, help=presets)
    add(
        "--prior-weight",
        type=command_line.nonnegative_float,
        default=1.0,
        help="pull of the priors: multiplies the loss against the discriminators, or with preset paper the step",
    )
    compiles = (
        "torch.compile the networks, with preset invariant all but the encoder: slower on the CPUs it was measured on; "
        "9 percent faster on an H200 with preset paper"
    )
    add("--compile", action="store_true", help=compiles)
    add("--resume", action="store_true", help="resume from each instance's checkpoint; without one it starts")
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
    if args.compile and torchrun.told("WORLD_SIZE", 1) > 1:
        parser.error("argument --compile: for one process; leave it out under torchrun")
    for name in ("epochs", "batch_size", "gaussian_dim", "lr"):
        if getattr(args, name) is None:
            setattr(args, name, PRESETS[args.preset][name])
    return args


if __name__ == "__main__":
    command_line.run(main)
