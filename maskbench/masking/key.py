"""A secret key that turns masks: two owners who share one encoder do not share one mask.

The Gaussian part is multiplied by a secret orthogonal matrix, the categories are permuted. Lengths, distances and
angles stay, so classifiers learn as before; and so an attacker has these too. ``python -m maskbench.key`` makes a key.
"""

import hashlib
import os
import re
import secrets
import stat
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskbench import system
from maskbench.data.masked_set import KEYED
from maskbench.errors import InputError
from maskbench.masking.method import MaskingMethod
from maskbench.masking.normals import box_muller
from maskbench.storage import atomic

BITS = 256
_FORM = re.compile(r"[0-9a-f]{64}")
# what editors, shells and other systems put around and between the digits: blanks, quotes, zeros, byte order marks
_AROUND = re.compile(
    r"""[\s\x00\x1a"'`]|\xef\xbb\xbf|\xff\xfe|\xfe\xff"""
    r"|\xc2?\xa0|\xe2\x80[\x8b-\x8f\x98-\x9f\xa8-\xaf]|\xe2\x81\xa0"  # in UTF-8: blanks, quotes, marks of direction
)
_MOST = 1024  # bytes of a key file: more than a key has in any encoding


def create(path: Path) -> None:
    """Write a new random key, 64 hexadecimal digits, mode 0600.

    Raises:
        InputError: the file exists (a key is never overwritten), or cannot be written.
    """
    if path.exists():
        raise InputError(f"{path}: exists already, and a key is never overwritten; name another file")
    with atomic.writing(path, private=True) as file:
        file.write(f"{secrets.token_hex(BITS // 8)}\n".encode())


def load(path: Path, flag: str = "--key", private: bool = True) -> bytes:
    """The 32 bytes of a key file, or of a pipe that brings one; ``flag`` takes it.

    Editors and other systems may have changed its line ends, its encoding, its capitals, and blanks in and around it.

    Raises:
        InputError: it is missing, no key, or, where it must be ``private``, others than its owner may read or write it.
    """
    try:
        with open(path, "rb") as file:
            state = os.fstat(file.fileno())
            content = file.read(_MOST)
    except FileNotFoundError:
        raise InputError(f"{path}: no such key; bring it, or make one with: python -m maskbench.key {path}") from None
    if not content and not stat.S_ISREG(state.st_mode):
        raise InputError(f"{path}: brings nothing; a pipe brings one key to one process: pass others as files")
    # of UTF-16 and UTF-32, what is left without the zeros and the mark at the start is ASCII
    digits = _AROUND.sub("", content.decode("latin-1")).lower().removeprefix("0x")
    if not _FORM.fullmatch(digits):
        raise InputError(
            f"{path}: is not a key ({BITS // 4} hexadecimal digits), or was damaged; restore it from a copy: masks "
            "made with another key are not comparable with earlier ones"
        )
    mode = stat.S_IMODE(state.st_mode)
    if private and mode & 0o077 and system.HAS_MODES and stat.S_ISREG(state.st_mode):
        raise InputError(
            f"{path}: others than you may read this key (mode {mode:04o}); chmod 600 it. Where that changes nothing (a "
            f"mounted secret, exFAT, WSL), pass it by a pipe: cat {path} | python mask_dataset.py {flag} /dev/stdin"
        )
    return bytes.fromhex(digits)


class KeyedTransform:
    """What a key does to masks: z -> Q z, a secret rotation (or reflection), and a permutation of the categories.

    Q is drawn from the Haar measure: the orthogonal factor of a matrix of normals, with the signs of the triangular
    one's diagonal (Mezzadri, "How to generate random matrices from the classical compact groups", Notices of the AMS
    2007). All numbers come from SHAKE-256 of the key and the sizes, in float64: another machine makes the same matrix
    up to rounding, 1e-12.

    Args:
        key: 32 bytes.
        gaussian_dim: length G of the Gaussian part.
        categories: length K of the categorical part, may be 0.
    """

    def __init__(self, key: bytes, gaussian_dim: int, categories: int):
        stream = hashlib.shake_256(b"maskbench key 1: %d %d\n" % (gaussian_dim, categories) + key)
        count = gaussian_dim**2 + gaussian_dim**2 % 2
        words = np.frombuffer(stream.digest(8 * (count + categories)), dtype="<u8")
        normals = box_muller(words[:count])
        orthogonal, triangular = np.linalg.qr(normals[: gaussian_dim**2].reshape(gaussian_dim, gaussian_dim))
        self.matrix = torch.from_numpy(orthogonal * np.sign(np.diag(triangular)))  # float64 [G, G]
        self.permutation = torch.from_numpy(np.argsort(words[count:], kind="stable"))  # int64 [K]

    def apply(self, gaussian: Tensor, categorical: Tensor) -> tuple[Tensor, Tensor]:
        """Turn masks: float32 ``[N, G]`` and ``[N, K]``, twice; the products are taken in float64."""
        matrix, permutation = self.matrix.to(gaussian.device), self.permutation.to(gaussian.device)
        return (gaussian.double() @ matrix.T).to(gaussian.dtype), categorical[:, permutation]

    def invert(self, gaussian: Tensor, categorical: Tensor) -> tuple[Tensor, Tensor]:
        """Undo :meth:`apply`, as the owner of the key can."""
        matrix, permutation = self.matrix.to(gaussian.device), self.permutation.to(gaussian.device)
        return (gaussian.double() @ matrix).to(gaussian.dtype), categorical[:, permutation.argsort()]


class Keyed(MaskingMethod):
    """Another method's masks, turned by a key. The fingerprint stays: it says which encoder, not which key.

    Args:
        method: whose masks are turned.
        key: 32 bytes.
    """

    def __init__(self, method: MaskingMethod, key: bytes):
        self.method = method
        self.name = method.name + KEYED
        self.image_size, self.widths, self.fingerprint = method.image_size, method.widths, method.fingerprint
        self.transform = KeyedTransform(key, *method.widths)
        if method.rebuild is not None:
            self.rebuild = lambda *codes: method.rebuild(*self.transform.invert(*codes))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform.apply(*self.method.encode(images))

    def read(self, gaussian: Tensor, categorical: Tensor) -> Tensor:
        return self.method.read(gaussian, categorical)

    def to(self, device: torch.device) -> "Keyed":
        self.method.to(device)
        return self
