"""The stream's quality past moments: 10^8 draws against the normal, and rows, offsets and seeds against each other.

Every draw is fixed by its seed, so a test that passes once passes always; the bounds below would fail a perfect
generator about once in 10,000 choices of seed. Without the compiled kernels there are fewer draws.
"""

import math

import pytest
import scipy.stats
import torch

from maskbench import ops

COMPILED = ops.backend("cpu") == "cpu"
DRAWS = 10**8 if COMPILED else 10**6
PAIRS = 10**7 if COMPILED else 10**6
GAUSSIAN_DIM = 400
BINS = 4096
P_VALUE = 1e-4


def normals(draws: int, seed: int = 0, offset: int = 0, first_row: int = 0) -> torch.Tensor:
    rng_state = torch.tensor([seed, offset])
    return ops.sample_prior(rng_state, draws // GAUSSIAN_DIM, GAUSSIAN_DIM, 1, first_row)[0]


@pytest.fixture(scope="module")
def counts() -> dict[str, torch.Tensor]:
    """How the draws fall into bins that are equally likely, and how many lie beyond 4 and 5 deviations."""
    bins, beyond = torch.zeros(BINS, dtype=torch.float64), torch.zeros(2)
    part = 10**5  # so few stay in the cache, and their memory is used again
    for first in range(0, DRAWS, part):
        draws = normals(part, first_row=first // GAUSSIAN_DIM)
        bins += torch.histc(torch.special.ndtr(draws.double()), BINS, 0, 1)
        beyond += torch.stack([(draws.abs() > deviations).sum() for deviations in (4, 5)])
    assert bins.sum() == DRAWS
    return {"bins": bins, "beyond": beyond}


def test_kolmogorov_smirnov(counts):
    steps = torch.arange(1, BINS + 1) / BINS
    distance = (counts["bins"].cumsum(0) / DRAWS - steps).abs().max().item()
    assert scipy.stats.kstwobign.sf(distance * math.sqrt(DRAWS)) > P_VALUE


def test_chi_square(counts):
    assert scipy.stats.chisquare(counts["bins"].numpy()).pvalue > P_VALUE


@pytest.mark.parametrize(("index", "deviations"), [(0, 4), (1, 5)])
def test_tails(counts, index, deviations):
    beyond = int(counts["beyond"][index])
    assert scipy.stats.binomtest(beyond, DRAWS, 2 * scipy.stats.norm.sf(deviations)).pvalue > P_VALUE


@pytest.mark.parametrize("between", ["rows", "columns of a pair", "pairs", "offsets", "seeds", "high seeds"])
def test_independence(between):
    """A 16 x 16 table of equally likely cells: catches what a correlation would, and dependence without one."""
    draws = normals(PAIRS)
    if between == "rows":
        first, second = draws[:-1], draws[1:]
    elif between == "columns of a pair":
        first, second = draws[:, ::2], draws[:, 1::2]
    elif between == "pairs":
        first, second = draws[:, :-2], draws[:, 2:]
    else:
        other = {"offsets": (0, 1), "seeds": (1, 0), "high seeds": (2**32, 0)}[between]
        first, second = draws, normals(PAIRS, *other)
    cells = [(torch.special.ndtr(x) * 16).clamp(max=15).long() for x in (first, second)]
    table = torch.bincount((16 * cells[0] + cells[1]).flatten(), minlength=256)
    assert scipy.stats.chisquare(table.numpy()).pvalue > P_VALUE


def test_categories_are_uniform_and_independent():
    rows, categories = PAIRS // 10, 20
    gaussian, one_hot = ops.sample_prior(torch.tensor([0, 0]), rows, 1, categories)
    category = one_hot.argmax(1)
    octile = (torch.special.ndtr(gaussian[:, 0]) * 8).clamp(max=7).long()
    for other, size in ((octile, 8), (category.roll(1), categories)):
        table = torch.bincount(category * size + other, minlength=categories * size)
        assert scipy.stats.chisquare(table.numpy()).pvalue > P_VALUE
