"""What a mask in noise can tell at most, whatever is done with it: see :mod:`maskbench.masking.noise`.

Every bound is for somebody who has the encoder and knows everything but which image it is, and not the secret of the
noise.
"""

import math
from statistics import NormalDist

NORMAL = NormalDist()


def naming_bound(kept: float, gaussian_dim: int, views: int, candidates: int) -> float:
    """At most, the chance to name the image behind a mask among equally likely candidates, by its own views alone.

    Who has the masks of several candidates can assign them to each other, and does better. Views are of
    different codes: equal ones have equal noise and count once, but that they are equal tells of a blank image.

    Phi(Phi^-1(1 / N) + sqrt(v) R / sigma) for N candidates and v views. R = a sqrt(G) is the radius that codes are
    clipped to, times a, and sigma^2 = 1 - a^2 the variance of the noise.

    The proof: call the release of a code of zero the reference, and the answer "it is image i" a test of the reference
    against image i. A test of size q has at most the power Phi(Phi^-1(q) + sqrt(v) R / sigma) (Neyman and Pearson). The
    sizes of the N answers sum up to 1 at most, and the power is concave in the size. This is the reconstruction
    robustness of the Gaussian mechanism (Balle, Cherubin and Hayes, "Reconstructing training data with informed
    adversaries", IEEE S&P 2022).

    Args:
        kept: a, what is left of a code, 0 to 1.
        gaussian_dim: length G of the code.
        views: of the image, that the attacker has: the mask and those of its copies.
        candidates: N.
    """
    if kept == 1 or candidates == 1:
        return 1.0
    apart = math.sqrt(views * gaussian_dim / (1 - kept**2)) * kept
    return NORMAL.cdf(NORMAL.inv_cdf(1 / candidates) + apart)


def mask_bits(kept: float, gaussian_dim: int) -> float:
    """At most, the bits that one mask tells of its image, on average: the capacity of the noise, as a channel.

    Half the sum of log2(1 + lambda / sigma^2) over the eigenvalues lambda of the covariance of a z (Cover and Thomas,
    "Elements of information theory", section 9.4). Clipping keeps their sum at a^2 G or below, and the sum of the
    logarithms is largest where all of them are the same: -G / 2 log2(1 - a^2).
    """
    return math.inf if kept == 1 else 0.5 * gaussian_dim * math.log2(1 / (1 - kept**2))


def stated(kept: float, gaussian_dim: int, views: int, candidates: int = 1000) -> str:
    """:func:`naming_bound` in words, for one view of an image, and for all ``views`` of it."""
    chances = {count: naming_bound(kept, gaussian_dim, count, candidates) for count in sorted({1, views})}
    said = [
        f"{chance:.2%} of cases by {f'{count} views' if count > 1 else 'one view'} of it"
        + (", which proves nothing" if chance > 0.995 else "")
        for count, chance in chances.items()
    ]
    return f"who has the encoder names the image behind a mask, one of {candidates:,}, in at most {'; in '.join(said)}"


def facts(kept: float, gaussian_dim: int, views: int) -> list[tuple[str, str]]:
    """What the noise of a masked set proves, as names and texts.

    Args:
        views: of an image, at most.
    """
    if kept == 1:
        return [("noise", "all of each code is kept: nothing is proven")]
    bits = mask_bits(kept, gaussian_dim)
    tells = f"{kept:g} of each code is kept; a mask tells at most {bits:,.1f} bits of its image on average"
    if views > 1:
        tells += f", its {views} views together {views * bits:,.1f}"
    aside = "the masks of other images aside, and among candidates that nothing else tells apart, such as labels"
    return [("noise", tells), ("bound", f"{stated(kept, gaussian_dim, views)}: {aside}")]
