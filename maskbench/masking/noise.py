"""Noise on masks, with a bound on what they tell (the Gaussian mechanism).

A code z is clipped to the radius sqrt(G), and a z + sqrt(1 - a^2) e is released, e of N(0, I): codes that are draws of
N(0, I) nearly stay such draws. The category is not released. What follows for whoever has even the encoder is in
:mod:`maskbench.leakage.bounds`.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

from maskbench.data.masked_set import NOISY
from maskbench.masking.method import MaskingMethod
from maskbench.masking.normals import box_muller


class Noised(MaskingMethod):
    """Another method's masks, in noise from a secret.

    The noise is a function of the secret, the method and the code, to its last bit. Masked again with the same code, an
    image has the same mask. Another code has noise of its own, also where only its rounding is another: what two masks
    shared could be subtracted.

    Args:
        method: whose masks are released; its fingerprint stays.
        kept: a, what is left of a code, 0 to 1.
        secret: 32 bytes; whoever has them takes the noise away.
    """

    def __init__(self, method: MaskingMethod, kept: float, secret: bytes):
        self.method, self.kept, self.secret = method, kept, secret
        self.name = f"{method.name}{NOISY}{written(kept)}"
        self.image_size, self.fingerprint = method.image_size, method.fingerprint
        self.widths = method.widths[0], 0
        if method.rebuild is not None:
            # the code's mean, given what was released, and no category
            self.rebuild = lambda gaussian, none: method.rebuild(
                kept * gaussian, gaussian.new_zeros(len(gaussian), method.widths[1])
            )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        codes = clipped(self.method, images)
        return self.add_noise(codes).to(codes.dtype), codes[:, :0]

    def add_noise(self, codes: Tensor) -> Tensor:
        """a z + sqrt(1 - a^2) e of clipped codes ``[N, G]``: float64 ``[N, G]``, to be rounded once.

        With noise and sum in float32, what can come out depends on the code (Mironov, "On significance of the least
        significant bits for differential privacy", CCS 2012).
        """
        noise = self.noise(codes).to(codes.device)
        return self.kept * codes.double() + (1 - self.kept**2) ** 0.5 * noise

    def noise(self, codes: Tensor) -> Tensor:
        """Codes ``[N, G]`` -> float64 ``[N, G]`` of N(0, I), from SHAKE-256 of the secret and each code as float32."""
        size = codes.shape[1]
        count = size + size % 2
        start = f"maskbench noise 1: {self.name} {self.fingerprint} {size}\n".encode() + self.secret
        codes = codes.detach().float().cpu().numpy().astype("<f4")
        words = b"".join(hashlib.shake_256(start + code.tobytes()).digest(8 * count) for code in codes)
        words = np.frombuffer(words, dtype="<u8").reshape(len(codes), count)
        return torch.from_numpy(box_muller(words)[:, :size])

    def read(self, gaussian: Tensor, categorical: Tensor) -> Tensor:
        return self.method.read(gaussian, categorical)

    def to(self, device: torch.device) -> "Noised":
        self.method.to(device)
        return self


def clipped(method: MaskingMethod, images: Tensor) -> Tensor:
    """A method's codes before noise, ``[N, G]``: the Gaussian part, clipped to the radius sqrt(G)."""
    gaussian, _ = method.encode(images)
    return gaussian * (gaussian.shape[1] ** 0.5 / gaussian.norm(dim=1, keepdim=True)).clamp(max=1)


def secret_order(secret: bytes, what: str, count: int) -> Tensor:
    """A random order of so many images, int64 ``[count]``: their order in the dataset would say which is which.

    Args:
        what: is put in order; another set, or another method, gets another order.
    """
    stream = hashlib.shake_256(f"maskbench order 1: {what} {count}\n".encode() + secret)
    return torch.from_numpy(np.argsort(np.frombuffer(stream.digest(8 * count), dtype="<u8"), kind="stable"))


def written(kept: float) -> str:
    """A number of at most six decimals, as a method's name has it."""
    return f"{kept:.6f}".rstrip("0").rstrip(".")
