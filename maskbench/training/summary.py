"""What a finished training shows: its losses, some reconstructions, and how its codes follow the prior."""

from pathlib import Path

from maskbench.models import Decoder, Encoder, evaluation
from maskbench.runtime.cuda_graphs import ONE_AT_A_TIME
from maskbench.training import figures
from maskbench.training.images import Images, large_batches
from maskbench.training.journal import COLUMNS

MOST_CODES = 50_000  # that the prior is compared with


def show(encoder: Encoder, decoder: Decoder, images: Images, history: list[list[float]], folder: Path) -> None:
    """Draw the losses and some reconstructions, and say how the codes of validation images follow the prior."""
    with ONE_AT_A_TIME:  # matplotlib's settings belong to all threads, too
        figures.losses(history, folder / "losses.png")
        shown = next(large_batches(images, 8, of_rank=False))
        figures.reconstructions(encoder, decoder, shown, folder / "reconstructions.png")
    codes = evaluation.encode(encoder, large_batches(images, MOST_CODES, of_rank=False))
    summary = evaluation.latent_summary(*codes)
    last = dict(zip(COLUMNS, history[-1], strict=False))
    print(
        f"{folder}: validation MSE {last['validation_mse']:.6f}; on validation images the Gaussian dimensions have "
        f"means within {summary['mean']:.2f} of 0, deviations {summary['deviation_min']:.2f} to "
        f"{summary['deviation_max']:.2f}, kurtosis {summary['kurtosis']:.2f} and correlations of "
        f"{summary['correlation']:.3f}; the categories hold {summary['category_min']:.1%} to "
        f"{summary['category_max']:.1%}"
    )
    drawn = [name for name in ("losses.png", "reconstructions.png") if (folder / name).exists()]
    print("; ".join([f"{folder}: encoder.pt masks", "decoder.pt and checkpoint.pt are private", *drawn]))
