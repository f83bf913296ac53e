"""The oracle against known answers, a scalar Philox, the distributions it promises, and PyTorch's own BCE."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from maskbench import ops, reference
from maskbench.priors import PriorSampler

KNOWN_ANSWERS = [  # counter, key, output: Salmon et al.'s test vectors for philox4x32-10
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> torch.Tensor:
    return torch.tensor([int(word, 16) for word in text.split()])


def state(seed: int, offset: int = 0) -> torch.Tensor:
    return torch.tensor([seed, offset])


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_philox_known_answers(counter, key, output):
    assert torch.equal(reference.philox4x32(words(counter), words(key)), words(output))


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


def test_rows_do_not_depend_on_the_batch_they_are_drawn_in():
    whole = reference.sample_prior(state(3, 4), 41, 7, 20)
    for first, count in ((0, 1), (1, 17), (18, 23)):
        part = reference.sample_prior(state(3, 4), count, 7, 20, first_row=first)
        assert all(torch.equal(a[first : first + count], b) for a, b in zip(whole, part, strict=True))


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


@pytest.mark.parametrize("categories", [2, 20, 1000])
def test_categories_are_uniform(categories):
    _, one_hot = reference.sample_prior(state(12), 50_000, 1, categories)
    assert torch.equal(one_hot.sum(1), torch.ones(50_000))
    assert stats.chisquare(one_hot.sum(0).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (2, 16), (3, 17)])
def test_losses_are_sums_of_mean_bce(shape):
    generator = torch.Generator().manual_seed(0)
    prior, encoded = (torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for _ in "ab")

    def bce(logits, target):
        return sum(F.binary_cross_entropy_with_logits(row, torch.full_like(row, target)) for row in logits)

    for ours, plain, inputs in (
        (ops.discriminator_loss(prior, encoded), bce(prior, 1.0) + bce(encoded, 0.0), (prior, encoded)),
        (ops.generator_loss(encoded), bce(encoded, 1.0), (encoded,)),
    ):
        torch.testing.assert_close(ours, plain)
        for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(plain, inputs), strict=True):
            torch.testing.assert_close(a, b)


def test_losses_are_stable_at_large_logits():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = ops.discriminator_loss(logits, logits)
    loss.backward()
    assert loss.item() == 1e4  # half of each mean, twice
    assert logits.grad.tolist() == [[0.5, -0.5]]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((torch.zeros(2), 1, 1, 1), "rng_state"),
        ((torch.zeros(3, dtype=torch.int64), 1, 1, 1), "rng_state"),
        ((torch.zeros(2, dtype=torch.int64), 0, 1, 1), "batch"),
        ((torch.zeros(2, dtype=torch.int64), 1, 0, 1), "gaussian_dim"),
        ((torch.zeros(2, dtype=torch.int64), 1, 1, -1), "categories"),
        ((torch.zeros(2, dtype=torch.int64), 1, 1, 1, -1), "first_row"),
    ],
)
def test_sampler_refuses(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        ops.sample_prior(*arguments)


def test_losses_refuse():
    with pytest.raises(ValueError, match="prior_logits"):
        ops.discriminator_loss(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match="agree"):
        ops.discriminator_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="encoded_logits"):
        ops.generator_loss(torch.zeros(2, 3, dtype=torch.int64))


def test_prior_sampler_advances_and_is_saved():
    sampler = PriorSampler(6, 4, seed=9)
    first, second = sampler(5), sampler(5)
    assert sampler.rng_state.tolist() == [9, 2]
    assert not torch.equal(first[0], second[0])
    restored = PriorSampler(6, 4)
    restored.load_state_dict({"rng_state": torch.tensor([9, 1])})
    assert all(torch.equal(a, b) for a, b in zip(restored(5), second, strict=True))
    assert torch.equal(PriorSampler(6, 4, seed=9)(2, first_row=3)[0], first[0][3:])
