"""The oracle: every op of ``maskbench.ops`` in plain PyTorch, written to be read.

Random numbers are counter-based (Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random
numbers: as easy as 1, 2, 3", SC 2011), so a draw is a function of (seed, offset, row) alone: the same
on every device, in every batch size, on every rank.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_MASK32 = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # golden ratio, sqrt(3) - 1


def philox4x32(counter: Tensor, key: Tensor) -> Tensor:
    """The 10-round Philox4x32 bijection.

    Args:
        counter: int64 ``[..., 4]``, each word in [0, 2^32).
        key: int64 ``[..., 2]``, each word in [0, 2^32), broadcast against ``counter``.

    Returns:
        int64 ``[..., 4]``: four random 32-bit words per counter.
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(10):
        # int64 products wrap modulo 2^64: all 64 bits are there, the sign bit is the top one
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> 32 & _MASK32) ^ c1 ^ k0,
            product1 & _MASK32,
            (product0 >> 32 & _MASK32) ^ c3 ^ k1,
            product0 & _MASK32,
        )
        k0, k1 = k0 + _KEY_STEPS[0] & _MASK32, k1 + _KEY_STEPS[1] & _MASK32
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), -1)


def uniform(words: Tensor) -> Tensor:
    """32-bit words (int64) to float32 in (0, 1]: ``float32(w) * 2^-32 + 2^-33``, round to nearest even.

    The last 128 words give exactly 1.0, so ``ln`` of the result is never positive.
    """
    return words.to(torch.float32) * 2.0**-32 + 2.0**-33


def sample_prior(
    rng_state: Tensor, batch: int, gaussian_dim: int, categories: int, first_row: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw both latent parts from their priors, N(0, I) and the uniform categorical.

    Args:
        rng_state: int64 ``[2]``, ``(seed, offset)``; not changed. Draws land on its device.
        batch: number of rows.
        gaussian_dim: length of the Gaussian part.
        categories: length of the one-hot part.
        first_row: global index of the first row. Row i of a draw depends on ``first_row + i`` alone.

    Returns:
        ``(gaussian float32 [batch, gaussian_dim], one_hot float32 [batch, categories])``.
    """
    seed, offset = rng_state.unbind()
    key = torch.stack((seed & _MASK32, seed >> 32 & _MASK32))
    normal_blocks = (gaussian_dim + 3) // 4
    blocks_per_row = normal_blocks + 1  # the last block holds the category
    rows = torch.arange(batch, device=rng_state.device) + first_row
    block = rows[:, None] * blocks_per_row + torch.arange(blocks_per_row, device=rng_state.device)
    counter = torch.stack(
        (
            block & _MASK32,
            block >> 32 & _MASK32,
            (offset & _MASK32).expand_as(block),
            (offset >> 32 & _MASK32).expand_as(block),
        ),
        -1,
    )
    words = philox4x32(counter, key)

    # Box-Muller (1958) on the word pairs (w0, w1) and (w2, w3), in float64: the oracle of the kernels
    u = uniform(words[:, :-1]).to(torch.float64).view(batch, normal_blocks, 2, 2)
    radius = torch.sqrt(-2.0 * torch.log(u[..., 0]))
    angle = 2.0 * torch.pi * u[..., 1]
    normals = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), -1)
    gaussian = normals.view(batch, -1)[:, :gaussian_dim].to(torch.float32).contiguous()

    category = words[:, -1, 0] * categories >> 32
    one_hot = F.one_hot(category, categories).to(torch.float32)
    return gaussian, one_hot


def discriminator_loss(prior_logits: Tensor, encoded_logits: Tensor) -> Tensor:
    """What the discriminators minimise: prior draws are real (1), encoded images are fake (0).

    Args:
        prior_logits: float ``[D, N]``, one row a discriminator, logits of prior draws.
        encoded_logits: float ``[D, N]``, logits of encoded images.

    Returns:
        Scalar: the sum over discriminators of mean BCE on prior rows plus mean BCE on encoded rows
        (paper, section "Adversarial autoencoder").
    """
    real = F.binary_cross_entropy_with_logits(prior_logits, torch.ones_like(prior_logits), reduction="none")
    fake = F.binary_cross_entropy_with_logits(encoded_logits, torch.zeros_like(encoded_logits), reduction="none")
    return (real.mean(1) + fake.mean(1)).sum()


def generator_loss(encoded_logits: Tensor) -> Tensor:
    """What the encoder minimises in the regularisation phase: its codes pass for prior draws (1).

    Args:
        encoded_logits: float ``[D, N]``, one row a discriminator.

    Returns:
        Scalar: the sum over discriminators of mean BCE against 1.
    """
    real = F.binary_cross_entropy_with_logits(encoded_logits, torch.ones_like(encoded_logits), reduction="none")
    return real.mean(1).sum()
