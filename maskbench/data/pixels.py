"""How pixels become 8 bits a channel, and opaque: what the flags say of it, and the arithmetic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskbench.errors import InputError

GROUNDS = {"white": 255, "grey": 128, "black": 0}
MOST_PIXELS = 89_000_000  # of a picture, what Pillow warns of; decoded, 270 MB


class Undecided(InputError):
    """A picture that may well be good: a flag must say how it is read, it must be converted, or the system be mended.

    ``--skip-corrupt`` does not leave it out.
    """


@dataclass(frozen=True)
class Reading:
    """How pictures with more in them than 8 bits in three opaque channels are read.

    Attributes:
        levels: the two values that become black and white, of pixels with more than 8 bits; None refuses such pictures.
        page: of files with several pages or frames, from 1; None refuses such files.
        ground: what shines through where a picture is transparent, a name in ``GROUNDS``.
    """

    levels: Sequence[float] | None = None
    page: int | None = None
    ground: str = "white"

    def __post_init__(self):
        if self.levels is not None:
            low, high = self.levels
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise InputError(f"--levels {low:g} {high:g}: the first value must be below the second, both finite")

    @classmethod
    def of(cls, flags: object) -> "Reading":
        """What flags say that have ``levels``, ``page`` and ``ground``: a script's, or a training's settings."""
        return cls(flags.levels, flags.page, flags.ground)

    def stated(self) -> list[str]:
        """The flags that were given, as they are written."""
        levels = [f"--levels {self.levels[0]:.15g} {self.levels[1]:.15g}"] if self.levels else []
        page = [f"--page {self.page}"] if self.page else []
        return levels + page + ([f"--ground {self.ground}"] if self.ground != "white" else [])

    def to_bytes(self, values: np.ndarray, what: object) -> np.ndarray:
        """Numbers of more than 8 bits to uint8 of the same shape: those between the levels to 0 to 255.

        What is below the levels is black, what is above is white.

        Raises:
            Undecided: there are no levels. ``what`` names the picture.
            InputError: values are not finite.
        """
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError(f"{what}: holds values that are not finite; mend it or move it away")
        if self.levels is None:
            low, high = (values.min(), values.max()) if values.size else (0, 0)
            raise Undecided(
                f"{what}: has more than 8 bits a channel, here from {low:g} to {high:g}; say with --levels LOW HIGH "
                "which values are black and white in all pictures"
            )
        return scaled(values, *self.levels)

    def pick(self, pages: int, what: object) -> int:
        """Which of a file's pages is read, from 0; Undecided where nothing says which, or there is no such page."""
        if pages > 1 and self.page is None:
            raise Undecided(f"{what}: has {pages} pages or frames; save the one that counts, or say which: --page 1")
        if self.page is not None and self.page > pages:
            raise Undecided(f"{what}: has {pages} page(s), and no page {self.page}; move it away or say another --page")
        return (self.page or 1) - 1

    def over_ground(self, colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """uint8 ``[..., C]`` and its alpha, uint8 ``[...]``, to opaque uint8 ``[..., C]``."""
        opaque = alpha[..., None].astype(np.float32) / 255
        return np.rint(colours * opaque + GROUNDS[self.ground] * (1 - opaque)).astype(np.uint8)


AS_IT_IS = Reading()  # nothing but 8 bits in one page, transparent pictures over white


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers to uint8: ``low`` and less becomes 0, ``high`` and more 255."""
    exact = np.float64 if values.dtype.itemsize > 2 else np.float32
    parts = (values.astype(exact) - exact(low)) / exact(high - low)
    return np.rint(np.clip(parts, 0, 1, out=parts) * 255).astype(np.uint8)


def check_size(width: int, height: int, what: object) -> None:
    """Undecided where a picture, which ``what`` names, has more pixels than fit."""
    if width * height > MOST_PIXELS:
        raise Undecided(f"{what}: {width} x {height} pixels are too many; make it smaller")
