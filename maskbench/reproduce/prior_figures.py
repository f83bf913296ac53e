"""Pictures of how the codes follow the prior."""

import math
from pathlib import Path

import torch
from torch import Tensor

from maskbench.models import Decoder, PriorSampler
from maskbench.runtime.plotting import picture, show, subplots, write


@picture
def draw_prior_fit(gaussian: Tensor, categorical: Tensor, path: Path) -> None:
    """Encoded images beside the prior: standardised dimensions, lengths of the codes, quantiles, categories.

    Args:
        gaussian: ``[N, G]``.
        categorical: ``[N, K]``; an image belongs to its largest category.
    """
    gaussian = gaussian.double().cpu()
    size = gaussian.shape[1]
    deviation, mean = torch.std_mean(gaussian, 0, correction=0)
    values = ((gaussian - mean) / deviation.clamp_min(1e-30)).flatten().sort().values
    lengths = gaussian.norm(dim=1)
    shares = torch.bincount(categorical.argmax(1).cpu(), minlength=categorical.shape[1]) / len(categorical)
    figure, axes = subplots(2, 2, size=(9, 6))

    x = torch.linspace(-5, 5, 201, dtype=torch.float64)
    axes[0, 0].hist(values.numpy(), bins=100, range=(-5, 5), density=True, color="C0", alpha=0.5, label="codes")
    axes[0, 0].plot(x, torch.exp(-0.5 * x**2) / math.sqrt(2 * math.pi), color="black", label="normal")
    axes[0, 0].set(title="all dimensions", xlabel="value (standardised)", ylabel="density")

    # the density of the length of a normal vector (chi with `size` degrees of freedom)
    low, high = min(lengths.min().item(), size**0.5 - 3), max(lengths.max().item(), size**0.5 + 3)
    x = torch.linspace(max(low, 1e-3), high, 400, dtype=torch.float64)
    log_density = (size - 1) * x.log() - x**2 / 2 - (size / 2 - 1) * math.log(2) - math.lgamma(size / 2)
    axes[0, 1].hist(lengths.numpy(), bins=80, range=(low, high), density=True, color="C0", alpha=0.5, label="codes")
    axes[0, 1].plot(x, log_density.exp(), color="black", label=f"chi({size})")
    axes[0, 1].set(title="length of the code", xlabel="Euclidean norm", ylabel="density")

    # a few hundred quantiles, closer together in the tails
    normal = torch.linspace(-4.5, 4.5, 300, dtype=torch.float64)
    ranks = (torch.special.ndtr(normal) * (len(values) - 1)).round().long()
    inside = (ranks > 0) & (ranks < len(values) - 1)
    axes[1, 0].plot([-5, 5], [-5, 5], color="black", linewidth=1, label="normal")
    axes[1, 0].plot(normal[inside], values[ranks[inside]], ".", color="C0", markersize=3, label="codes")
    axes[1, 0].set(title="Q-Q plot, all dimensions", xlabel="quantile of the normal", ylabel="quantile of the codes")

    axes[1, 1].bar(range(len(shares)), 100 * shares.numpy(), color="C0", alpha=0.5, label="codes")
    axes[1, 1].axhline(100 / len(shares), color="black", label="uniform")
    highest = 130 * shares.max().item()  # room for the legend
    axes[1, 1].set(title="category", xlabel="category", ylabel="images (%)", ylim=(0, highest))
    axes[1, 1].xaxis.get_major_locator().set_params(integer=True)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, loc="upper right" if axis is axes[1, 1] else "upper left")
    write(figure, path)


@picture
@torch.no_grad()
def draw_prior_samples(decoder: Decoder, path: Path, rows: int = 3, columns: int = 12) -> None:
    """Images that a decoder (on the CPU) makes of draws of the prior."""
    sampler = PriorSampler(decoder.config["gaussian_dim"], decoder.config["categories"])
    images = decoder(torch.cat(sampler(rows * columns), 1))
    figure, axes = subplots(rows, columns, size=(0.75 * columns, 0.75 * rows + 0.3))
    for axis, image in zip(axes.flat, images, strict=True):
        show(axis, image)
    figure.suptitle("decoded draws of the prior", fontsize=10)
    write(figure, path)
