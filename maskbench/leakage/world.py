"""What the audit holds and no attack is given: all images, the owner's methods with key and decoder, the answers.

Which images: attacks are judged on the first 1,000 validation images of the autoencoders, which nobody trained on, and
on test images of the private set. There are as many known pairs of each set: images of the test part of ``--dataset``
(of ``photos``, whose test part is the validation part, of its second half), and training images of the private set.
Public images are those the autoencoders trained on. The masks of all
validation images are what the attacker takes statistics of.
"""

import functools
import hashlib
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskbench.data import image_quality
from maskbench.data.image_set import to_float
from maskbench.data.masked_set import parts_of
from maskbench.data.views import another_photograph, random_views
from maskbench.leakage import perceptual
from maskbench.leakage.attacks import retrieval
from maskbench.leakage.attacks.ridge import Ridge
from maskbench.leakage.knowledge import MOST_PAIRS, Instance, Labelled, Map, Membership, Pairs, Public, batched
from maskbench.masking import Autoencoder, MaskingMethod, Recipe, make
from maskbench.masking.key import Keyed
from maskbench.masking.noise import Noised, clipped
from maskbench.models import Decoder
from maskbench.storage import pt

CHUNK = 250  # images whose features are compared at once
VIEWS = 10  # of each image that may have trained the encoder


@dataclass(frozen=True, eq=False)
class Images:
    """All images of an audit, uint8 ``[N, 3, S, S]``; see the module's docstring for which is which.

    Attributes:
        judged: by the name of their set.
        known: images that may be behind known pairs, by the judged set that they are of.
        label_means: of each judged image the mean of other images of its label, float32 ``[N, 3, S, S]`` by set.
        labelled: labelled images of the last judged set's kind, their labels, and those of its judged images; or None.
    """

    judged: dict[str, Tensor]
    known: dict[str, Tensor]
    label_means: dict[str, Tensor]
    validation: Tensor
    public: Tensor
    labelled: tuple[Tensor, Tensor, Tensor] | None

    @property
    def most_pairs(self) -> int:
        """How many pairs of each set may be known."""
        return min(map(len, self.known.values()))


class World:
    """One audit's images, instances of methods, and answers.

    Args:
        images: all of them.
        owner: the victim's autoencoder, with its decoder.
        another: of the same sizes and another seed, with its decoder; also makes the second of two releases.
        attacker: that one before its codes forgot anything.
        secret: of the owner's key and noise, 32 bytes.
        seed: of baselines, and of the order of what is shuffled.
    """

    def __init__(
        self,
        images: Images,
        owner: Autoencoder,
        another: Autoencoder,
        attacker: Autoencoder,
        secret: bytes,
        seed: int,
    ):
        self.images, self.owner, self.another, self.attacker, self.seed = images, owner, another, attacker, seed
        self._secret = secret
        self.judged = {name: to_float(pixels) for name, pixels in images.judged.items()}
        self.public = Public(images.public)
        self.known = {name: to_float(pixels[:MOST_PAIRS]) for name, pixels in images.known.items()}
        self.victim, self._methods = functools.cache(self._victim), functools.cache(self._make_methods)
        self.orders = {name: self._order(number, len(x)) for number, (name, x) in enumerate(self.judged.items())}
        self.candidates = {name: pixels[self.orders[name]] for name, pixels in self.judged.items()}

    @property
    def first(self) -> str:
        """The name of the judged set of the public images' kind."""
        return next(iter(self.judged))

    @property
    def last(self) -> str:
        """The name of the last judged set: of the private images, where there are any."""
        return list(self.judged)[-1]

    @functools.cached_property
    def other_photographs(self) -> dict[str, Tensor]:
        """Another photograph of each candidate, in the candidates' order."""
        return {name: another_photograph(pixels, self.seed) for name, pixels in self.candidates.items()}

    @functools.cached_property
    def crowd(self) -> dict[str, Tensor]:
        """Of the first set other photographs of the candidates, in their order, and then of all validation images."""
        known = self.other_photographs[self.first]
        rest = to_float(self.images.validation[len(known) :])
        return {self.first: torch.cat((known, another_photograph(rest, self.seed + 1)))}

    @functools.cached_property
    def directions(self) -> dict[str, list[list[Tensor]]]:
        """What the perceptual distance compares of the judged images, so many images at a time, by set."""
        features = self.public.features
        return {
            name: [perceptual.directions(features, some) for some in images.split(CHUNK)]
            for name, images in self.judged.items()
        }

    @functools.cached_property
    def nearest_public(self) -> dict[str, Tensor]:
        """Of each judged image the public image that is nearest to it, pixel by pixel: ``[N, 3, S, S]`` by set."""
        public = self.images.public
        return {
            name: to_float(public[retrieval.nearest(images.flatten(1), public.flatten(1))[:, 0]])
            for name, images in self.judged.items()
        }

    @functools.cached_property
    def networks(self) -> list[str]:
        """Fingerprints of all autoencoders."""
        sides = self.owner, self.another, self.attacker
        return [pt.fingerprint(network.state_dict()) for side in sides for network in (side.encoder, side.decoder)]

    def answers(self) -> dict[str, Tensor]:
        """Where the true candidate of each mask stands, int64 ``[N]`` by set."""
        return {name: order.argsort() for name, order in self.orders.items()}

    def asked_members(self) -> tuple[Tensor, Tensor]:
        """Which of the images of :meth:`Victim.membership` are members, bool ``[M]``, and their shuffled order."""
        half = len(self.judged[self.first]) // 2
        count = 2 * (len(self.judged[self.first]) - half)
        return torch.arange(count) < count // 2, self._order(len(self.judged), count)

    def _order(self, stream: int, count: int) -> Tensor:
        return torch.randperm(count, generator=torch.Generator().manual_seed(1000 * self.seed + stream))

    def _make_methods(self, name: str) -> "Methods":
        if name == "aae":
            owner, another, attacker = self.owner, self.another, self.attacker
        else:
            # of the same public images the attacker's PCA is the owner's matrix: anybody can compute it
            owner, another = (make(name, self._recipe(seed)) for seed in (self.seed, self.seed + 1))
            attacker = another
        alike = instance(another, self.public)
        own = alike if attacker is another else instance(attacker, self.public)
        stolen = Instance(reading(without_decoder(owner), attacker), self.public)
        return Methods(owner, another, attacker, alike, own, stolen)

    def _recipe(self, seed: int) -> Recipe:
        gaussian_dim, categories = self.owner.widths
        sizes = {"image_size": self.owner.image_size, "gaussian_dim": gaussian_dim, "categories": categories}
        preset = self.owner.encoder.config["preset"]  # an untrained encoder is one of the owner's kind
        return Recipe(public=lambda: self.images.public, seed=seed, preset=preset, **sizes)

    def _in_noise(self, method: Autoencoder, kept: float) -> Instance:
        """An autoencoder whose masks are released in noise: the codes that are expected, and the noise's deviation."""
        decode = None if method.decoder is None else RebuildNoisy(method.decoder, kept)
        return Instance(lambda images: kept * clipped(method, images), self.public, decode, (1 - kept**2) ** 0.5)

    def _victim(self, name: str) -> "Victim":
        base, kept, keyed = parts_of(name)
        owner, another, attacker, alike, own, stolen = self._methods(base)
        reader, releases = attacker, [owner, owner if keyed or kept is not None else another]
        secrets = self._secret, hashlib.sha256(self._secret).digest()  # the second is of another release
        if kept is not None:
            releases = [Noised(owner, kept, secret) for secret in secrets]
            reader = AsReleased()
            stolen = self._in_noise(without_decoder(owner), kept)
            alike, own = (replace(self._in_noise(each, kept), seed=1) for each in (another, attacker))
        if keyed:
            releases = [Keyed(method, secret) for method, secret in zip(releases, secrets, strict=True)]
        method, elsewhere = releases
        return Victim(self, method, reading(method, reader), alike, own, stolen, reading(elsewhere, reader))


class Methods(NamedTuple):
    """A method without a key, as each side has it.

    Attributes:
        owner: the victim's.
        another: of another seed.
        attacker: of that seed, too; an autoencoder's codes forgot nothing.
        alike: the attacker's instance of ``another``, whose codes are the more like the owner's.
        own: the attacker's instance of ``attacker``, whose codes tell more of pictures.
        stolen: the owner's, without a decoder.
    """

    owner: MaskingMethod
    another: MaskingMethod
    attacker: MaskingMethod
    alike: Instance
    own: Instance
    stolen: Instance


class Victim:
    """One method as its owner uses it, and what it makes of the audit's images.

    Args:
        world: the audit's.
        method: with the key and the decoder.
        encode: images to codes as the attacker reads them.
        alike, own: the attacker's instances of the method, see :class:`Methods`.
        stolen: the owner's encoder, without key and decoder.
        elsewhere: images to codes of another release: under another key or in other noise, or else of another encoder.
    """

    def __init__(
        self,
        world: World,
        method: MaskingMethod,
        encode: Map,
        alike: Instance,
        own: Instance,
        stolen: Instance,
        elsewhere: Map,
    ):
        self.world, self.method, self.encode = world, method, encode
        self.alike, self.own, self.stolen = alike, own, stolen
        self.elsewhere, self.name = elsewhere, method.name

    @functools.cached_property
    def masks(self) -> dict[str, Tensor]:
        """Codes of the judged images, by set."""
        return {name: batched(self.encode, pixels) for name, pixels in self.world.judged.items()}

    @functools.cached_property
    def collection(self) -> Tensor:
        """Codes of all validation images."""
        return batched(self.encode, to_float(self.world.images.validation))

    @functools.cached_property
    def _known(self) -> dict[str, Tensor]:
        return {name: batched(self.encode, images) for name, images in self.world.known.items()}

    def pairs(self, count: int) -> Pairs:
        """The first ``count`` known pairs of each judged set, in an order that says nothing."""
        order = torch.randperm(count * len(self.world.known), generator=torch.Generator().manual_seed(count))
        # copies: a view would lead to what is not known
        return Pairs(
            *(torch.cat([x[:count] for x in known.values()])[order] for known in (self._known, self.world.known))
        )

    def second_release(self) -> dict[str, Tensor]:
        """Codes of the same images as the owner masks them elsewhere, by set, in the candidates' order."""
        return {name: batched(self.elsewhere, images) for name, images in self.world.candidates.items()}

    def labelled(self, count: int) -> Labelled | None:
        """The first labelled masks, where there are labels."""
        if self.world.images.labelled is None:
            return None
        pixels, labels, _ = self.world.images.labelled
        codes = batched(self.encode, to_float(pixels[:count]))
        return Labelled(codes, labels[:count].clone(), list(self.world.judged)[-1])

    def membership(self) -> Membership:
        """Of as many images that trained the autoencoders as of judged ones; half of each is known."""
        world = self.world
        others = world.judged[world.first]
        half = len(others) // 2
        scores = [self._scores(images) for images in (to_float(world.images.public[: len(others)]), others)]
        asked = torch.cat([of_kind[half:] for of_kind in scores])[world.asked_members()[1]]
        return Membership(scores[0][:half].clone(), scores[1][:half].clone(), asked, world.first)

    def _scores(self, images: Tensor) -> Tensor:
        """Of each image the error of its reconstruction, its code's length, how alike codes of its views are to it.

        The last is what preset invariant learns (EncoderMI: Liu et al., CCS 2021): the mean and the least cosine.
        """
        error, codes = image_quality.image_mse(self.rebuild(images), images), batched(self.encode, images)
        numbers, alike = torch.arange(len(images)), []
        for number in range(1, VIEWS + 1):
            views = random_views(images, numbers, self.world.seed, number, scale=1.0)
            alike.append(F.cosine_similarity(batched(self.encode, views), codes))
        alike = torch.stack(alike)
        return torch.stack((error, codes.norm(dim=1), alike.mean(0), alike.amin(0)), 1).double()

    def rebuild(self, images: Tensor) -> Tensor:
        """What the owner makes of the masks of images again, ``[N, 3, S, S]`` twice: the matched decoder."""
        return batched(self._rebuild, images).clamp(0, 1)

    @functools.cached_property
    def _rebuild(self) -> Map:
        if self.method.rebuild is not None:
            return lambda images: self.method.rebuild(*self.method.encode(images))
        decode = linear_decoder(Instance(self.encode, self.world.public))
        return lambda images: decode(self.encode(images))

    def anchors(self) -> dict[str, dict[str, Tensor]]:
        """What needs no attack, by name and set.

        The mean image, that of the true label, the public image most like the true one, and the owner's own decoder.
        """
        judged, mean = self.world.judged, self.world.public.mean
        return {
            "mean-image": {name: mean.expand_as(images) for name, images in judged.items()},
            "label-mean-image": self.world.images.label_means,
            "nearest-public-image": self.world.nearest_public,
            "matched-decoder": {name: self.rebuild(images) for name, images in judged.items()},
        }


class Rebuild(nn.Module):
    """A decoder of codes as the attacker reads them."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, codes: Tensor) -> Tensor:
        return self.decoder.rebuild(codes)


class RebuildParts(nn.Module):
    """A method's own way back, of codes that are both parts side by side, as they were."""

    def __init__(self, method: MaskingMethod):
        super().__init__()
        self.method = method

    def forward(self, codes: Tensor) -> Tensor:
        return self.method.rebuild(*codes.split(self.method.widths, 1))


def without_decoder(method: MaskingMethod) -> MaskingMethod:
    """An autoencoder's encoder alone; a method of another kind as it is."""
    return Autoencoder(method.encoder, method.fingerprint) if isinstance(method, Autoencoder) else method


def instance(method: MaskingMethod, public: Public) -> Instance:
    """A method as the attacker himself runs it; without a way back, with the best linear one for public images."""
    encode = reading(method, method)
    if isinstance(method, Autoencoder) and method.decoder is not None:
        return Instance(encode, public, Rebuild(method.decoder))
    if method.rebuild is not None and type(method).read is MaskingMethod.read:
        return Instance(encode, public, RebuildParts(method))
    return Instance(encode, public, linear_decoder(Instance(encode, public)))


class RebuildNoisy(nn.Module):
    """A decoder of codes as they are released with noise: in place of each, its mean given what was released."""

    def __init__(self, decoder: Decoder, kept: float):
        super().__init__()
        self.decoder, self.kept = decoder, kept

    def forward(self, codes: Tensor) -> Tensor:
        categories = self.decoder.config["categories"]
        return self.decoder(F.pad(self.kept * codes, (0, categories)))  # the category is not released


class AsReleased:
    """Reads codes as they are: in noise, undoing the contrast would only bend it."""

    def read(self, gaussian: Tensor, categorical: Tensor) -> Tensor:
        return torch.cat((gaussian, categorical), 1)


def reading(method: MaskingMethod, attacker: MaskingMethod | AsReleased) -> Map:
    """Images to codes, read by what the attacker knows of his own instance of the method."""
    read, encode = attacker.read, method.encode
    return lambda images: read(*encode(images))


def linear_decoder(encoder: Instance) -> nn.Module:
    """The best linear decoder, fitted to public images: codes to images."""
    public = encoder.public
    linear = Ridge(encoder.codes, encoder.codes.mean(0)).fit(public.some.flatten(1), public.mean.flatten())
    return nn.Sequential(linear, nn.Unflatten(1, public.images.shape[1:]))
