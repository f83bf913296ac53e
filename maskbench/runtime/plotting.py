"""What every picture shares: no screen, one style, an image without axes, a file written whole."""

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from torch import Tensor
from torch.nn.functional import pad

from maskbench.errors import InputError
from maskbench.storage import atomic

__all__ = ["picture", "show", "show_row", "subplots", "write"]

P = ParamSpec("P")
if TYPE_CHECKING:
    from matplotlib.figure import Figure


def picture(draw: Callable[P, None]) -> Callable[P, None]:
    """A function that draws a picture into the file ``path``, its argument: in matplotlib's own style, or not at all.

    A matplotlibrc may ask for fonts or a LaTeX that are not there. Tables do not wait for pictures: what cannot be
    drawn is left out, with a line. So it is where matplotlib cannot be imported, which happens with the first picture:
    it takes half a second that mistakes need not wait for. A file that cannot be written raises InputError.
    """
    signature = inspect.signature(draw)

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> None:
        path = signature.bind(*args, **kwargs).arguments["path"]
        try:
            from maskbench.runtime.matplotlib_import import style

            with style.context("default"):
                draw(*args, **kwargs)
        except InputError:
            raise
        except Exception as error:  # matplotlib's, of fonts, caches and libraries
            path.unlink(missing_ok=True)  # an earlier run's would be taken for this one's
            reason = str(error).split("\n")[0][:200] or type(error).__name__
            print(f"{path}: cannot be drawn, and is left out ({reason})", file=sys.stderr)

    return drawn


def subplots(rows: int = 1, columns: int = 1, size: tuple[float, float] | None = None, **options):
    """A figure of ``size`` in inches, and its axes; see ``matplotlib.figure.Figure.subplots`` for the options."""
    from maskbench.runtime.matplotlib_import import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def show(axis, image: Tensor) -> None:
    """Draw a float image ``[3, S, S]`` in [0, 1]."""
    axis.imshow(image.permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
    axis.set(xticks=[], yticks=[])


def show_row(axis, images: Tensor) -> None:
    """Draw float images ``[N, 3, S, S]`` in [0, 1] side by side on one axis: one for each takes much longer."""
    gap = max(1, images.shape[3] // 10)
    show(axis, pad(images, (0, gap), value=1.0).permute(1, 2, 0, 3).flatten(2)[:, :, :-gap])
    axis.spines[:].set_visible(False)


def write(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic.writing(path) as file:
        figure.savefig(file, format="png", dpi=130)
