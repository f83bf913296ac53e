"""The networks: encoder (the mask), decoder (the private key), discriminators, and the classifier of masks."""

import copy
import functools
import itertools
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from maskbench import distributed, ops

# --preset: the sizes that a name stands for
PRESETS = {
    "maskbench": {"width": 64, "frequencies": 400},
    "paper": {"width": 16, "frequencies": 0},
}

LARGEST_IMAGE = 256  # side in pixels
_TINY = 1e-12
_WINDOW = 100  # mini-batches
_TAIL = 0.1  # degrees of freedom for each feature
_PICTURES_KEPT = 1.1  # the MSE that decorrelation may cost, as a factor
_NATURAL = 0.1  # variance of log length of natural images' codes
_SLOPE = 0.5  # of the leaky ReLUs in encoder and decoder: nearer to linear rebuilds better, see train_aae.py


class Encoder(nn.Module):
    """Image -> latent vector in two parts (paper, section "Adversarial autoencoder").

    Features of the image, then two linear heads whose outputs are normalised: see :class:`RadialGaussianization`
    and :class:`RunningNorm`. The features are a stack of 4x4 convolutions of stride 2, each of which halves the side
    and doubles the channels, or, with ``frequencies``, the image's lowest frequencies. The stack deepens with the image
    until 4 to 7 pixels a side are left, but has three convolutions at least: :func:`depth`. At the defaults that makes
    455,940 parameters, the paper's "over 400 thousand".

    Args:
        image_size: side S of the images, 8 to 256, a multiple of 2 to the power of ``depth(S)``.
        width: channels of the first convolution.
        gaussian_dim: length G of the Gaussian part.
        categories: length K of the categorical part.
        frequencies: read this many frequencies of each colour (at most S^2) instead of convolutions; 0: convolutions.
    """

    def __init__(
        self,
        image_size: int = 32,
        width: int = 16,
        gaussian_dim: int = 384,
        categories: int = 20,
        frequencies: int = 0,
    ):
        super().__init__()
        self.config = dict(
            image_size=image_size,
            width=width,
            gaussian_dim=gaussian_dim,
            categories=categories,
            frequencies=frequencies,
        )
        stages = depth(image_size)
        if frequencies:
            self.features = Spectrum(image_size, frequencies)
            features = self.features.length
        else:
            channels = [3, *(width * 2**stage for stage in range(stages))]
            layers = []
            for before, after in itertools.pairwise(channels):
                layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
            self.features = nn.Sequential(*layers, nn.Flatten())
            features = channels[-1] * (image_size >> stages) ** 2
        self.gaussian = nn.Sequential(nn.Linear(features, gaussian_dim), RadialGaussianization(gaussian_dim))
        self.categorical = nn.Sequential(nn.Linear(features, categories), RunningNorm(categories))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32 ``[N, 3, S, S]`` in [0, 1] -> Gaussian ``[N, G]``, categorical ``[N, K]`` (rows sum to 1)."""
        gaussian, logits = self.encode(images)
        return gaussian, logits.softmax(1)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, with the logits ``[N, K]`` of the categorical part: mean 0, deviation 1."""
        features = self.features(images) if self.config["frequencies"] else _convolve(self.features, images, up=False)
        (to_gaussian, radial), (to_logits, norm) = self.gaussian, self.categorical
        return radial(_multiply(to_gaussian, features)), norm(_multiply(to_logits, features))


class Decoder(nn.Module):
    """Latent vector -> image: the encoder's mirror, and the private key of its masks.

    The contrast that :class:`RadialGaussianization` took out is put back (two parameters), then a linear layer
    and the transposed convolutions, or, with ``frequencies``, the image of those frequencies and five 3x3
    convolutions that correct it, on a grid of 16 to 31 pixels a side (of images below 16, half of theirs).

    Args: as for :class:`Encoder`; with ``frequencies``, ``width`` is the channels of the correction.
    """

    def __init__(
        self,
        image_size: int = 32,
        width: int = 16,
        gaussian_dim: int = 384,
        categories: int = 20,
        frequencies: int = 0,
    ):
        super().__init__()
        self.config = dict(
            image_size=image_size,
            width=width,
            gaussian_dim=gaussian_dim,
            categories=categories,
            frequencies=frequencies,
        )
        stages = depth(image_size)
        self.gaussian_dim = gaussian_dim
        self.normal_log_radius = normal_log_radius(gaussian_dim)
        self.contrast = nn.Parameter(torch.tensor([0.5 * math.log(gaussian_dim), 0.3]))  # log radius: mean, deviation
        if frequencies:
            self.spectrum = Spectrum(image_size, frequencies)
            self.linear = nn.Linear(gaussian_dim + categories, self.spectrum.length)
            scale = 2 ** (stages - 2)
            pixels = 3 * scale**2
            correction = [nn.PixelUnshuffle(scale), nn.Conv2d(pixels, width, 3, padding=1), nn.LeakyReLU(0.2)]
            for _ in range(3):
                correction += [nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2)]
            last = nn.Conv2d(width, pixels, 3, padding=1)
            nn.init.zeros_(last.weight)  # it starts by correcting nothing
            nn.init.zeros_(last.bias)
            self.correction = nn.Sequential(*correction, last, nn.PixelShuffle(scale))
        else:
            self.spectrum = None
            channels = [3, *(width * 2**stage for stage in range(stages))][::-1]
            self.shape = (channels[0], image_size >> stages, image_size >> stages)
            self.linear = nn.Linear(gaussian_dim + categories, math.prod(self.shape))
            layers = []
            for before, after in itertools.pairwise(channels):
                layers += [nn.LeakyReLU(_SLOPE), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
            self.convolutions = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        """Both parts side by side, float32 ``[N, G + K]`` -> images ``[N, 3, S, S]``.

        In [0, 1] in eval mode; in training mode not clamped, or saturated pixels would have no gradient.
        """
        return self.rebuild(self.unmask(latent))

    def rebuild(self, unmasked: Tensor) -> Tensor:
        """As :meth:`forward`, of what :meth:`unmask` gave: ``[N, G + K]`` -> images ``[N, 3, S, S]``."""
        features = _multiply(self.linear, unmasked)
        if self.spectrum:
            images = self.spectrum.inverse(features)
            # in training the correction, small beside the image, bears rounding; most of a step's time is spent on it
            with torch.autocast(images.device.type, torch.bfloat16, self.training and has_bfloat16(images.device)):
                correction = self.correction(_fast_layout(images - 0.5))
            images = images + correction
        else:
            images = _convolve(self.convolutions, features.unflatten(1, self.shape), up=True) + 0.5
        return images if self.training else images.clamp(0, 1)

    def unmask(self, latent: Tensor) -> Tensor:
        """Undo what is not linear in the heads: the radius of the Gaussian part, the softmax; ``[N, G + K]`` twice."""
        gaussian, categorical = latent[:, : self.gaussian_dim], latent[:, self.gaussian_dim :]
        normal_mean, normal_deviation = self.normal_log_radius
        mean, deviation = self.contrast
        power = deviation / normal_deviation
        gaussian = _with_power_of_radius(gaussian, power, mean - power * normal_mean)
        # a one-hot draw of the prior has no logarithm: 1e-3 is below what encoded images reach
        return torch.cat((gaussian, categorical.clamp_min(1e-3).log()), 1)


class RunningNorm(nn.Module):
    """Subtract the mean and divide by the deviation of every feature: ``[N, F]`` twice.

    The statistics are running averages in training mode too, and constants to the gradient: those of a mini-batch of
    16 are noise that the decoder cannot undo. :meth:`fit` sets them exactly.

    They reach back 100 mini-batches at first, and further the longer the training, whose steps become smaller: over
    500 from the start, the encoder runs away from them.
    """

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self._follow(x.detach(), self._next_weight())
        return self.standardise(x)

    def _next_weight(self) -> Tensor:
        """Of the rows at hand in the running statistics, a scalar."""
        self.steps += 1
        return 1 / torch.minimum(self.steps, _WINDOW + self.steps / 50)

    def standardise(self, x: Tensor) -> Tensor:
        """By the statistics as they are: ``[N, F]`` twice."""
        return (x - self.center) * self.variance.clamp_min(_TINY).rsqrt()

    @torch.no_grad()
    def _follow(self, x: Tensor, weight: Tensor) -> None:
        self.center.lerp_(distributed.mean(x), weight)
        self.variance.lerp_(distributed.mean((x - self.center).square()), weight)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Set the statistics to those of ``x``, float32 ``[N, F]``, N >= 2.

        Variances are shrunk towards their mean as if F more rows had it: of few rows, some features have none.
        """
        mean = distributed.mean(x.double())
        variance = distributed.mean((x - mean).square())
        self.center.copy_(mean)
        self.variance.copy_(variance.lerp(variance.mean(), _shrinkage(x)))
        self.steps.clamp_(min=_WINDOW)  # what is fitted weighs as much as a window of mini-batches


class RadialGaussianization(RunningNorm):
    """Give vectors ``[N, F]`` directions spread evenly and lengths spread like those of N(0, I).

    Most of what is not normal in a linear code of natural images is its length, the image's contrast. One
    invertible step mends it (Lyu and Simoncelli, "Nonlinear extraction of independent components of natural
    images using radial Gaussianization", Neural Computation 2009); here a power law: the logarithm of the length
    gets the mean and deviation it has under N(0, I). Centre and scale of the features are those of a multivariate
    Student distribution of 0.1 F degrees of freedom, in which images of high contrast do not outweigh the others: so
    the *directions* have mean 0 and even variance (an M-estimator: Maronna, Annals of Statistics 1976).
    """

    def __init__(self, features: int):
        super().__init__(features)
        self.normal_log_radius = normal_log_radius(features)
        self.register_buffer("log_radius_mean", torch.zeros(()))
        self.register_buffer("log_radius_variance", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and distributed.size() == 1 and ops.has_step_kernels(x):
            statistics = self.center, self.variance, self.log_radius_mean, self.log_radius_variance
            return ops.radial_norm(x, *statistics, self._next_weight().item(), _TAIL, self.normal_log_radius)
        x = super().forward(x)
        normal_mean, normal_deviation = self.normal_log_radius
        power = normal_deviation * self.log_radius_variance.clamp_min(_TINY).rsqrt()
        return _with_power_of_radius(x, power, normal_mean - power * self.log_radius_mean)

    @torch.no_grad()
    def _follow(self, x: Tensor, weight: Tensor) -> None:
        self._improve(x, weight)
        log_radius = _radius(self.standardise(x)).log().squeeze(1)
        # not lerp_: torch.compile (2.13) loses what a method writes into a buffer of no dimensions
        self.log_radius_mean += weight * (distributed.mean(log_radius) - self.log_radius_mean)
        variance = distributed.mean((log_radius - self.log_radius_mean).square())
        self.log_radius_variance += weight * (variance - self.log_radius_variance)

    def _improve(self, x: Tensor, weight: Tensor | float, shrinkage: float = 0.0) -> None:
        """A step towards the fixed point, as far as ``weight``: 1 with all rows, small with a few of them."""
        features, centred = x.shape[1], x - self.center
        squares = (centred * self.variance.clamp_min(_TINY).rsqrt()).square()
        rows = (1 + _TAIL) * features / (_TAIL * features + squares.sum(1))
        sums = rows @ squares, rows @ centred, rows.sum(), rows.new_full((), len(x))
        shares, shifts, weights, count = distributed.total(*sums)
        self.center += weight * shifts / weights
        self.variance *= 1 + weight * (1 - shrinkage) * (shares / count - 1)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        super().fit(x)
        for _ in range(8):
            self._improve(x, 1.0, _shrinkage(x))
        log_radius = _radius(self.standardise(x)).double().log().squeeze(1)
        mean = distributed.mean(log_radius)
        variance = distributed.mean((log_radius - mean).square())
        self.log_radius_mean.copy_(mean)
        # of few rows, all have nearly the same length once their features are scaled
        self.log_radius_variance.copy_(variance.lerp(torch.full_like(variance, _NATURAL), _shrinkage(x)))


def normal_log_radius(features: int) -> tuple[float, float]:
    """Mean and deviation of log |z| for z ~ N(0, I) of ``features`` dimensions.

    log |z|^2 is log 2 plus the logarithm of a Gamma(features / 2) variable, so its mean and variance are digamma and
    trigamma.
    """
    # on the CPU even where modules are built without memory ("meta")
    half = torch.tensor(features / 2, dtype=torch.float64, device="cpu")
    mean = 0.5 * (math.log(2) + torch.digamma(half).item())
    return mean, 0.5 * math.sqrt(torch.polygamma(1, half).item())


class Spectrum(nn.Module):
    """The lowest frequencies of images: an orthonormal cosine transform (DCT-II), most of it thrown away.

    Principal components of natural images lie almost wholly in it, and it needs no weights: 400 of 1,024
    frequencies a colour lose 0.0001 of the MSE of 384 components.

    Args:
        image_size: side S of the images.
        frequencies: how many are kept of each colour, the lowest first; at most S^2.
    """

    def __init__(self, image_size: int, frequencies: int):
        super().__init__()
        frequencies = min(frequencies, image_size**2)
        self.length = 3 * frequencies
        self.side = min(image_size, math.ceil(math.sqrt(4 / math.pi * frequencies)) + 2)  # none of them lies outside
        # on the CPU even where modules are built without memory ("meta")
        pixels = torch.arange(image_size, dtype=torch.float64, device="cpu")
        numbers = pixels[: self.side]
        basis = torch.cos(math.pi / image_size * (pixels + 0.5) * numbers[:, None]) * math.sqrt(2 / image_size)
        basis[0] /= math.sqrt(2)
        squares, order = (numbers.square() + numbers.square()[:, None]).flatten().sort(stable=True)
        # none is trained or stored: they follow from the sizes
        self.register_buffer("basis", basis.float(), persistent=False)
        self.register_buffer("kept", order[:frequencies], persistent=False)
        self.register_buffer("squares", squares[:frequencies].float(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 3, S, S]`` -> ``[N, length]``."""
        return (self.basis @ (images @ self.basis.T)).flatten(2)[..., self.kept].flatten(1)

    def natural_variances(self) -> Tensor:
        """How variances fall off over ``[length]`` in natural images, up to a factor: 1 / f^2."""
        return (1 / (1 + self.squares)).repeat(3)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """``[N, length]`` -> the images ``[N, 3, S, S]`` that have these frequencies and no others."""
        full = spectrum.new_zeros(len(spectrum), 3, self.side**2)
        full = full.index_copy(2, self.kept, spectrum.view(len(spectrum), 3, -1))
        return self.basis.T @ full.unflatten(2, (self.side, self.side)) @ self.basis


@torch.no_grad()
def start_from_principal_components(encoder: Encoder, decoder: Decoder, batches: Iterable[Tensor]) -> None:
    """Start networks with ``frequencies`` from the best linear code of their training images, in closed form.

    The Gaussian part gets the strongest principal components of the frequencies, each scaled to variance 1, in an
    order and with signs drawn from torch's generator: they make the key. The categorical part's logits get the next
    K - 1, turned at random so that no category stands out. The decoder's linear layer is the way back.

    Args:
        batches: float32 ``[N, 3, S, S]``, more images than frequencies for a good start; of several processes each
            gives its part of every batch.

    Raises:
        ValueError: fewer frequencies than numbers in the latent vector.
    """
    features = torch.cat([encoder.features(images) for images in batches])
    gaussian_dim, categories = encoder.config["gaussian_dim"], encoder.config["categories"]
    components = gaussian_dim + categories - 1
    if gaussian_dim + categories > features.shape[1]:
        raise ValueError(
            f"{gaussian_dim} + {categories} numbers are more than the {features.shape[1]} frequencies of the images"
        )
    mean = distributed.mean(features)
    centred = (features - mean).double()
    covariance = distributed.total(centred.T @ centred)[0] / distributed.count(features)
    # where images are few, most components have no variance: shrunk a little towards what natural images have
    natural = encoder.features.natural_variances().double()
    natural = torch.diag(natural * ((covariance.trace() + _TINY) / natural.sum()))  # images may all be the same
    covariance = covariance.lerp(natural, 0.1 * _shrinkage(features))
    variances, axes = torch.linalg.eigh(covariance)
    variances, axes = variances.flip(0)[:components], axes.flip(1)[:, :components]
    whitening = (axes / variances.sqrt()).float()

    signs = torch.randint(2, (gaussian_dim,)) * 2 - 1
    simplex = torch.linalg.qr(torch.cat((torch.ones(categories, 1), torch.randn(categories, categories - 1)), 1))[0]
    simplex = simplex[:, 1:].to(whitening.device)  # orthonormal and orthogonal to (1, ..., 1)
    weights = (
        whitening[:, :gaussian_dim][:, torch.randperm(gaussian_dim)] * signs.to(whitening.device),
        whitening[:, gaussian_dim:] @ simplex.T,
    )
    for (linear, norm), weight in zip((encoder.gaussian, encoder.categorical), weights, strict=True):
        linear.weight.copy_(weight.T)
        linear.bias.copy_(-mean @ weight)
        norm.fit(linear(features))
        norm.steps.fill_(20_000)  # so good a start moves slowly: long averages follow it, with less noise

    # the way back: each latent number stands for a multiple of one axis
    radial = encoder.gaussian[1]
    decoder.contrast.copy_(torch.stack((radial.log_radius_mean, radial.log_radius_variance.sqrt())))
    decoder.linear.bias.copy_(mean)
    backward = []
    for (_, norm), weight in zip((encoder.gaussian, encoder.categorical), weights, strict=True):
        inverse = torch.linalg.pinv(weight.double(), rtol=1e-5).float()  # the logits have a rank less
        decoder.linear.bias += norm.center @ inverse
        backward.append(norm.variance.sqrt()[:, None] * inverse)
    decoder.linear.weight.copy_(torch.cat(backward).T)


@torch.no_grad()
def calibrate(encoder: Encoder, decoder: Decoder, batches: Iterable[Tensor]) -> None:
    """Set the normalisations' statistics exactly, and make the dimensions of the Gaussian part uncorrelated.

    The running averages of training trail behind the weights ("precise batch normalisation": Wu and Johnson,
    "Rethinking 'Batch' in BatchNorm", 2021). Correlations are removed before the radius is Gaussianized: the codes are
    multiplied by the inverse square root of their directions' second moment ("ZCA": of all whitenings the one that
    moves them least; Kessy, Lewin and Strimmer, American Statistician 2018), and the first layer of the decoder by the
    square root, so the pair rebuilds the same pictures.

    It does as long as the decoder takes the radius as it is. Where it takes a power of it, and whitening changes radii
    much (few kinds of images, which leave many directions empty), the pictures would suffer: then a smaller power of
    the moment is used, or none, or the Gaussian part stays as it is.

    Args:
        batches: float32 ``[N, 3, S, S]``, two images or more in all; many times G for little correlation. The first
            batch is what the pictures are compared on. Of several processes each gives its part of every batch.
    """
    first, outputs = None, []
    for images in batches:
        features = encoder.features(images)
        outputs.append((encoder.gaussian[0](features), encoder.categorical[0](features)))
        first = images if first is None else first
    gaussian, logits = (torch.cat(part) for part in zip(*outputs, strict=True))
    bound = _PICTURES_KEPT * _picture_error(encoder, decoder, first)
    encoder.categorical[1].fit(logits)
    before = [copy.deepcopy(module.state_dict()) for module in (encoder, decoder)]
    for power in (0.5, 0.25, 0.125, 0.0):
        _decorrelate(encoder, decoder, gaussian, power)
        if _picture_error(encoder, decoder, first) <= bound:
            break
        encoder.load_state_dict(before[0]), decoder.load_state_dict(before[1])


def _picture_error(encoder: Encoder, decoder: Decoder, images: Tensor) -> Tensor:
    training = encoder.training
    encoder.eval()  # its statistics stay as they are
    error = distributed.mean((decoder(torch.cat(encoder(images), 1)) - images).square()).mean()
    encoder.train(training)
    return error


def _decorrelate(encoder: Encoder, decoder: Decoder, gaussian: Tensor, power: float) -> None:
    """Multiply the codes by their directions' second moment to the power of minus ``power``, and fit their statistics.

    Args:
        gaussian: outputs of the linear layer for many images, ``[N, G]``.
    """
    linear, norm = encoder.gaussian
    codes = norm.standardise(gaussian).double()
    directions = codes / _radius(codes) * math.sqrt(codes.shape[1])
    moment = distributed.total(directions.T @ directions)[0] / distributed.count(codes)
    # of few images, most axes have no variance
    variances, axes = torch.linalg.eigh(moment.lerp(torch.eye(len(moment)).to(moment), _shrinkage(codes) ** 2))
    whitening, coloring = ((axes * variances**sign) @ axes.T for sign in (-power, power))

    scale = norm.variance.double().clamp_min(_TINY).sqrt()
    linear.bias.copy_(whitening @ ((linear.bias - norm.center) / scale))
    linear.weight.copy_(whitening @ (linear.weight / scale[:, None]))
    log_radius_mean, log_radius_variance = norm.log_radius_mean.clone(), norm.log_radius_variance.clone()
    norm.fit((codes @ whitening.T).float())

    # the decoder's contrast is a power law of the radius; it stays the same one
    exponent = decoder.contrast[1] / log_radius_variance.sqrt()
    decoder.contrast[0] += exponent * (norm.log_radius_mean - log_radius_mean)
    decoder.contrast[1] = exponent * norm.log_radius_variance.sqrt()
    backward = decoder.linear.weight[:, : len(moment)].double() @ coloring
    decoder.linear.bias += (backward @ norm.center.double()).float()
    decoder.linear.weight[:, : len(moment)] = (backward * norm.variance.double().sqrt()).float()


class Discriminator(nn.Module):
    """Tells prior draws from encoded images, one for each latent part.

    Args:
        features: length of the latent part.
        hidden: width of the two hidden layers.
    """

    def __init__(self, features: int, hidden: int = 256):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """float32 ``[N, features]`` -> logits ``[N]``, high for what looks drawn from the prior."""
        return _multiply(self.layers, latent).squeeze(1)


class MaskClassifier(nn.Module):
    """Three linear layers with ReLU between; the softmax is in the cross-entropy (paper, "Classification").

    Args:
        features: length of a masked vector.
        classes: number of classes.
        hidden: width of the two hidden layers.
        dropout: of the hidden layers, in training.
    """

    def __init__(self, features: int, classes: int, hidden: int = 256, dropout: float = 0.3):
        super().__init__()
        self.dropout = dropout
        self.layers = nn.Sequential(
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, masked: Tensor) -> Tensor:
        """float32 ``[N, features]`` -> logits ``[N, classes]``."""
        return self.layers(masked)


class ClassifierStack(nn.Module):
    """R classifiers that are trained together: one batched matrix product a layer.

    Mini-batches of 4 leave a processor idle most of the time; ten classifiers at once fill it. The gradient of a sum of
    their losses is the gradient of each, and Adam works number by number: each is trained as if it were alone.

    Args:
        classifiers: of the same sizes; their weights are copied.
    """

    def __init__(self, classifiers: list[MaskClassifier]):
        super().__init__()
        layers = zip(*([layer for layer in c.layers if isinstance(layer, nn.Linear)] for c in classifiers), strict=True)
        for number, alike in enumerate(layers, 1):
            # [R, in, out] and [R, 1, out]: the layout in which small batches are multiplied fastest
            setattr(self, f"weight{number}", nn.Parameter(torch.stack([layer.weight.detach().T for layer in alike])))
            setattr(self, f"bias{number}", nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in alike])))
        self.dropout = classifiers[0].dropout

    def draw_dropout(self, steps: int, batch: int, generators: list[torch.Generator]) -> Tensor:
        """Factors of the hidden units, 0 or 1 / (1 - p): float32 ``[steps, 2, R, batch, hidden]``.

        Args:
            generators: one (CPU) a classifier, so that its draws do not depend on the others.
        """
        shape = steps, 2, batch, self.weight2.shape[1]
        kept = torch.stack([torch.rand(shape, generator=generator) >= self.dropout for generator in generators], 2)
        return kept / (1 - self.dropout)

    def forward(self, masked: Tensor, kept: Tensor | None = None) -> Tensor:
        """``[R, N, features]`` -> logits ``[R, N, classes]``; ``kept`` is dropout's factors ``[2, R, N, hidden]``."""
        x = torch.baddbmm(self.bias1, masked, self.weight1).relu()
        x = x if kept is None else x * kept[0]
        x = torch.baddbmm(self.bias2, x, self.weight2).relu()
        x = x if kept is None else x * kept[1]
        return torch.baddbmm(self.bias3, x, self.weight3)


@functools.cache
def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    abilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def _radius(x: Tensor) -> Tensor:
    return x.norm(dim=1, keepdim=True).clamp_min(_TINY)


def _with_power_of_radius(x: Tensor, power: Tensor, offset: Tensor) -> Tensor:
    """Vectors ``[N, F]`` of the same directions, whose log radius is ``power`` times what it was plus ``offset``."""
    return x * ((power - 1) * _radius(x).log() + offset).exp()


def _shrinkage(x: Tensor) -> float:
    features = x.shape[1]
    return features / (distributed.count(x) + features)


def _multiply(layers: nn.Module, x: Tensor) -> Tensor:
    """A linear layer, or several with LeakyReLU between, of a mini-batch ``[N, F]``; in training by the fastest way."""
    if not (layers.training and ops.has_step_kernels(x)):
        return layers(x)
    linear = [layer for layer in layers.modules() if isinstance(layer, nn.Linear)]
    slope = 1.0 if len(linear) == 1 else layers[1].negative_slope
    return ops.mlp(x, [layer.weight for layer in linear], [layer.bias for layer in linear], slope)


def _convolve(layers: nn.Sequential, images: Tensor, up: bool) -> Tensor:
    """The encoder's convolutions, whose result is flat, or the decoder's (up); in training by the fastest way."""
    if not (layers.training and ops.has_step_kernels(images)):
        return layers(_fast_layout(images))
    convolutions = [layer for layer in layers if isinstance(layer, nn.ConvTranspose2d if up else nn.Conv2d)]
    weights, biases = [layer.weight for layer in convolutions], [layer.bias for layer in convolutions]
    images = ops.convolutions(images, weights, biases, _SLOPE, up)
    return images if up else images.flatten(1)


def _fast_layout(images: Tensor) -> Tensor:
    """Channels last, in which convolutions of small batches are a quarter faster; the values stay."""
    return images.contiguous(memory_format=torch.channels_last)


def depth(image_size: int) -> int:
    """How often a stack of convolutions halves an image: until 4 to 7 pixels a side are left, three times at least.

    3 for 8 to 63 pixels (the paper's 32), 4 for 64 to 127, 5 for 128 to 255, 6 for 256.

    Raises:
        ValueError: no size that can be halved so often.
    """
    stages = max(3, int(math.log2(max(1, image_size) / 4)))
    if image_size % 2**stages or not 8 <= image_size <= LARGEST_IMAGE:
        raise ValueError(f"{image_size} is not within 8 and {LARGEST_IMAGE}, or not a multiple of {2**stages}")
    return stages
