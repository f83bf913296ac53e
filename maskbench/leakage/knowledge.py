"""What an attacker may know. An attack is given a :class:`Knowledge` and nothing else.

Nothing in it leads to what is to be found out: the owner's images in their order, the key, the owner's decoder. Where
an attack needs one of these to act for the attacker (an oracle masks with the key), it stands behind a function.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from maskbench.data.image_set import to_float
from maskbench.leakage import perceptual

Map = Callable[[Tensor], Tensor]

MOST_PAIRS = 10_000  # known pairs, public images that linear maps are fitted to, and masks that pairs are guessed for
COMPONENTS = 1000  # principal components of public images, at most


class OracleRefused(RuntimeError):
    """An attack asked for more masks than its threat model allows."""


@dataclass(frozen=True, eq=False)
class Public:
    """Public images of the owner's kind, and what follows from them alone.

    Attributes:
        images: uint8 ``[P, 3, S, S]``.
    """

    images: Tensor

    @functools.cached_property
    def some(self) -> Tensor:
        """As many as decoders are fitted to, float32 ``[N, 3, S, S]`` in [0, 1]."""
        return to_float(self.images[:MOST_PAIRS])

    @functools.cached_property
    def mean(self) -> Tensor:
        """The mean image, ``[3, S, S]``."""
        return self.some.mean(0)

    @functools.cached_property
    def features(self) -> perceptual.Features:
        """What the perceptual distance compares."""
        return perceptual.learn(self.images)

    @functools.cached_property
    def principal(self) -> tuple[Tensor, Tensor]:
        """Mean ``[3 S S]`` and principal components ``[C, 3 S S]``, each as long as its standard deviation."""
        pixels = to_float(self.images).flatten(1)
        solver = "covariance_eigh" if len(pixels) > pixels.shape[1] else "full"  # whichever matrix is smaller
        model = PCA(min(COMPONENTS, *pixels.shape), svd_solver=solver).fit(pixels.numpy())
        scaled = model.components_ * np.sqrt(model.explained_variance_)[:, None]
        return torch.from_numpy(model.mean_).float(), torch.from_numpy(scaled).float()

    def shaped(self, linear: Map) -> Map:
        """A map to pixels ``[N, 3 S S]`` as one to images."""
        return lambda codes: linear(codes).view(-1, *self.images.shape[1:])


@dataclass(frozen=True, eq=False)
class Instance:
    """A masking method as somebody can run it.

    Attributes:
        encode: float32 images ``[N, 3, S, S]`` -> codes ``[N, D]`` as the attacker reads them, without noise;
            differentiable.
        public: the public images.
        decode: a module, codes -> images ``[N, 3, S, S]``; None where it was not stolen with the encoder.
        deviation: standard deviation of the noise in released codes, 0 without any; what the attacker learns from has
            noise of the same deviation, see :meth:`in_noise`.
        seed: of that noise of the attacker's.
    """

    encode: Map
    public: Public
    decode: nn.Module | None = None
    deviation: float = 0.0
    seed: int = 0

    @functools.cached_property
    def expected(self) -> Tensor:
        """The codes of ``public.some``, without noise."""
        return batched(self.encode, self.public.some)

    @functools.cached_property
    def codes(self) -> Tensor:
        """The codes of ``public.some``, in noise."""
        return self.in_noise(self.expected)

    @functools.cached_property
    def every_expected(self) -> Tensor:
        """Of all public images, without noise."""
        rest = self.public.images[MOST_PAIRS:]
        return torch.cat((self.expected, batched(self.encode, to_float(rest)))) if len(rest) else self.expected

    @functools.cached_property
    def every_code(self) -> Tensor:
        """Of all public images, in noise."""
        return self.in_noise(self.every_expected)

    def in_noise(self, codes: Tensor) -> Tensor:
        """Codes as they would be released, with noise of the attacker's own."""
        if self.deviation == 0:
            return codes
        return codes + self.deviation * torch.randn(codes.shape, generator=torch.Generator().manual_seed(self.seed))

    def for_decoder(self, codes: Tensor) -> Tensor:
        """Codes without noise as ``decode`` takes them: what is in noise it shrinks towards the mean of all, by a^2."""
        return codes / max(1 - self.deviation**2, 1e-12)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Known plaintexts: codes ``[k, D]`` and the images behind them, float32 ``[k, 3, S, S]``."""

    codes: Tensor
    images: Tensor


@dataclass(frozen=True)
class Oracle:
    """Masks images of the attacker's choice; every attack has its own.

    Attributes:
        ask: images ``[n, 3, S, S]`` -> codes ``[n, D]``; OracleRefused beyond ``queries`` images in all.
        queries: how many.
        name: two oracles of one name and number of queries give the same answers.
    """

    ask: Map = field(compare=False)
    queries: int
    name: str = ""


def limited_oracle(encode: Map, queries: int, name: str = "") -> Oracle:
    """An oracle that masks so many images and no more."""
    left = queries

    def ask(images: Tensor) -> Tensor:
        nonlocal left
        if len(images) > left:
            raise OracleRefused(f"asked to mask {len(images)} more of {queries} images, {left} are left")
        left -= len(images)
        return encode(images)

    return Oracle(ask, queries, name)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Masks with a label that the owner's masks do not come with.

    Attributes:
        codes: ``[k, D]``.
        labels: int64 ``[k]``.
        asked: the set of masks whose labels are to be told.
    """

    codes: Tensor
    labels: Tensor
    asked: str


@dataclass(frozen=True, eq=False)
class Membership:
    """What the owner's encoder and decoder say of images, S numbers each: see :class:`maskbench.leakage.world.Victim`.

    Attributes:
        members: ``[h, S]``, of images that are known to have trained the encoder.
        others: ``[h, S]``, of images that are known not to.
        asked: ``[M, S]``, of images of both kinds in an order that says nothing.
        images: name of the set that the answers stand under.
    """

    members: Tensor
    others: Tensor
    asked: Tensor
    images: str


@dataclass(frozen=True, eq=False)
class Knowledge:
    """Everything an attacker has under one threat model; see :mod:`maskbench.leakage.threats` for who has what.

    Attributes:
        masks: to be attacked, codes float32 ``[N, D]`` by the name of their set. All codes are read, see
            :meth:`maskbench.masking.MaskingMethod.read`.
        collection: codes ``[M, D]`` of one set of the owner's masks, for statistics.
        public: images of the same kind.
        own: the attacker's own instance of the method: of another seed, without a key, with a decoder. None where he
            has none.
        candidates: for re-identification alone, the images behind ``masks``, float32 ``[N, 3, S, S]`` in an order that
            says nothing; for linkage, another photograph of each.
        pairs: known plaintexts.
        oracle: masks images of the attacker's choice.
        stolen: the owner's encoder without the key, and without a decoder.
        labelled: masks with labels.
        membership: what is known of images that may have trained the encoder.
        second: another release of the images behind ``masks``, codes ``[N, E]`` in an order that says nothing.
    """

    masks: Mapping[str, Tensor]
    collection: Tensor
    public: Public
    own: Instance | None
    candidates: Mapping[str, Tensor] | None = None
    pairs: Pairs | None = None
    oracle: Oracle | None = None
    stolen: Instance | None = None
    labelled: Labelled | None = None
    membership: Membership | None = None
    second: Mapping[str, Tensor] | None = None

    @functools.cached_property
    def mean(self) -> Tensor:
        """Of the owner's codes, ``[D]``: better known from the collection than from a few pairs."""
        return self.collection.mean(0)

    @functools.cached_property
    def own_mean(self) -> Tensor:
        """Of the codes of the attacker's own instance."""
        return self.own.expected.mean(0)

    def decoded(self, decode: Map) -> dict[str, Tensor]:
        """Images ``[N, 3, S, S]`` in [0, 1] that a decoder of codes makes of the masks."""
        return {name: batched(decode, codes).clamp(0, 1) for name, codes in self.masks.items()}


def batched(function: Map, rows: Tensor, size: int = 500) -> Tensor:
    """``function(rows)``, so many rows at a time."""
    return torch.cat([function(some) for some in rows.split(size)])
