"""The oracle itself: against a scalar Philox in Python's integers, and by the moments of what it draws."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from maskbench.ops import reference


def state(seed: int, offset: int = 0) -> torch.Tensor:
    return torch.tensor([seed, offset])


def scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in Python's own integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


@pytest.mark.parametrize(("seed", "offset", "row"), [(0, 0, 0), (-1, 5, 3), (2**40 + 7, 2**33 + 1, 2**31 + 11)])
@pytest.mark.parametrize(("gaussian_dim", "categories"), [(1, 1), (5, 20), (8, 1000)])
def test_a_row_is_what_the_counter_layout_says(seed, offset, row, gaussian_dim, categories):
    gaussian, one_hot = reference.sample_prior(state(seed, offset), 1, gaussian_dim, categories, first_row=row)
    key = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    blocks_per_row = -(-gaussian_dim // 4) + 1
    drawn = []
    for block in range(row * blocks_per_row, (row + 1) * blocks_per_row):
        counter = [block & 0xFFFFFFFF, block >> 32, offset & 0xFFFFFFFF, offset >> 32 & 0xFFFFFFFF]
        drawn.append(scalar_philox(counter, key))
    normals = []
    for w in drawn[:-1]:
        u = [float(np.float32(np.float32(word) * np.float32(2**-32) + np.float32(2**-33))) for word in w]
        for u0, u1 in ((u[0], u[1]), (u[2], u[3])):
            radius = math.sqrt(-2 * math.log(u0))
            normals += [radius * math.cos(2 * math.pi * u1), radius * math.sin(2 * math.pi * u1)]
    np.testing.assert_allclose(gaussian[0].numpy(), normals[:gaussian_dim], rtol=1e-6, atol=1e-7)
    assert one_hot[0].argmax() == drawn[-1][0] * categories >> 32
    assert one_hot.sum() == 1


def test_the_largest_words_give_exactly_one():
    top = torch.tensor([2**32 - 1, 2**32 - 128, 2**32 - 129, 0])
    assert reference.uniform(top).tolist() == [1.0, 1.0, 1 - 2.0**-24, 2.0**-33]


def test_seed_and_offset_name_different_draws():
    draws = [reference.sample_prior(state(*s), 4, 8, 5)[0] for s in ((0, 0), (1, 0), (0, 1), (2**32, 0), (0, 2**32))]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_normals_are_normal():
    gaussian, _ = reference.sample_prior(state(11), 5000, 383, 20)
    sample = gaussian.double().flatten().numpy()
    count = len(sample)
    assert abs(sample.mean()) < 4 / math.sqrt(count)
    assert abs(sample.var() - 1) < 4 * math.sqrt(2 / count)
    assert abs(stats.skew(sample)) < 4 * math.sqrt(6 / count)
    assert abs(stats.kurtosis(sample)) < 4 * math.sqrt(24 / count)
    assert stats.kstest(sample, "norm").pvalue > 1e-3
    correlation = np.corrcoef(gaussian[:, :20].T.numpy())[np.triu_indices(20, 1)]
    assert np.abs(correlation).max() < 5 / math.sqrt(5000)
