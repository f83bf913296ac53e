"""Closed forms of a training: even categories at its start, and after every epoch codes that are white.

On request, codes also forget what tells most of the picture's light and contrast. What changes the encoder are its last
layers, the running statistics aside.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskbench.models.decoder import Decoder
from maskbench.models.encoder import Encoder
from maskbench.models.layers import BatchNorm
from maskbench.runtime import torchrun

_LEAST = 1e-6  # variance of codes: images may all be the same
_LOGITS = 3.0  # standard deviation at the start: confident, and yet with a gradient
_SIDE = 8  # of the small pictures of light and of contrast that codes are to forget, in pixels
_WINDOW = 7  # pixels a side that contrast is of
_FLAT = 0.02  # standard deviation of pixels; less is as good as none


@torch.no_grad()
def linear_outputs(encoder: Encoder, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """What both linear layers say of images: ``[N, G]``, before the contrast, and logits ``[N, K]``.

    Args:
        encoder: in eval mode.
        batches: float32 ``[N, 3, S, S]``.
    """
    features = map(encoder.read, batches)
    outputs, logits = zip(*((encoder.gaussian(some), encoder.categorical(some)) for some in features), strict=True)
    return torch.cat(outputs), torch.cat(logits)


@torch.no_grad()
def features_and_pictures(encoder: Encoder, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`forget` is fitted to: features of images ``[N, F]``, and small pictures of their light and contrast.

    Args: as for :func:`linear_outputs`.

    Returns:
        Features ``[N, F]``, light and contrast ``[N, P]`` each.
    """
    found = [(encoder.read(images), *light_and_contrast(images)) for images in batches]
    features, light, contrast = map(torch.cat, zip(*found, strict=True))
    return features, light, contrast


def light_and_contrast(images: Tensor) -> tuple[Tensor, Tensor]:
    """Small pictures of what SSIM compares: local means, and logarithms of local standard deviations, ``[N, P]`` each.

    Args:
        images: float32 ``[N, 3, S, S]`` in [0, 1].
    """
    grey = images.mean(1, keepdim=True)
    means, squares = (F.avg_pool2d(x, _WINDOW, 1, _WINDOW // 2, count_include_pad=False) for x in (grey, grey.square()))
    contrast = ((squares - means.square()).clamp_min(0).sqrt() + _FLAT).log()
    return tuple(F.adaptive_avg_pool2d(x, _SIDE).flatten(1) for x in (grey, contrast))


@torch.no_grad()
def set_statistics(encoder: Encoder, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of batch normalisation to those of images: the means over these batches.

    An average that follows the training lags behind it, and the codes are whitened by what the encoder says in eval
    mode. An encoder without batch normalisation stays as it is.

    Args:
        encoder: in training mode.
        batches: float32 ``[N, 3, S, S]``, of two images or more, as many for each process.
    """
    layers = [layer for layer in encoder.modules() if isinstance(layer, BatchNorm)]
    for number, images in enumerate(batches if layers else (), 1):
        for layer in layers:
            layer.momentum = 1 / number  # the average of all so far
        encoder.read(images)
    for layer in layers:
        layer.momentum = 0.1


@torch.no_grad()
def start_with_even_categories(linear: nn.Linear, logits: Tensor) -> None:
    """Give all logits of the categories the same mean and standard deviation, so that none wins everywhere.

    Args:
        linear: the encoder's layer.
        logits: what it says of images, ``[N, K]``; of several processes each gives those of its part of the images.
    """
    mean = torchrun.mean(logits)
    deviation = torchrun.mean((logits - mean).square()).sqrt()
    scale = torch.where(deviation > 1e-6, _LOGITS / deviation, 1.0)  # images may all be the same
    linear.weight *= scale[:, None]
    linear.bias.copy_(scale * (linear.bias - mean))


@torch.no_grad()
def whiten(encoder: Encoder, decoder: Decoder | None, outputs: Tensor, seed: int) -> None:
    """Make the dimensions of the Gaussian part uncorrelated, of mean 0 and variance 1, in the decoder's principal axes.

    An affine map goes into the last layer of the encoder, its inverse into the first of the decoder: the pair rebuilds
    the same pictures. N(0, I) leaves a rotation free. Here each dimension is a principal axis of what the first layer
    of the decoder makes of the code, so that what belongs together in the picture is not scattered over all dimensions:
    a decision tree reads one number at a time. Order and signs of the axes are drawn from the seed. They make the key.

    Args:
        encoder: its :class:`maskbench.models.heads.Contrast` has the parameters of the decoder's.
        decoder: None where it has learned nothing yet; then it stays as it is, and so do the axes.
        outputs: what the linear layer of the Gaussian part says of images, ``[N, G]``; of two or more in all, many
            times G for little correlation. Of several processes each gives those of its part of the images.
        seed: of the instance.
    """
    outputs = outputs.double()
    size = outputs.shape[1]
    shift, matrix = torch.zeros_like(outputs[0]), torch.eye(size).to(outputs)
    for _ in range(4):  # how much the contrast shortens each code depends on the map: a fixed point
        factor = encoder.contrast.factor((outputs - shift) @ matrix.T)
        sums, factors = torchrun.total((factor * outputs).sum(0), factor.sum())
        shift = sums / factors
        codes = factor * (outputs - shift)
        moment = torchrun.total(codes.T @ codes)[0] / torchrun.count(codes)
        variances, axes = _axes(moment, codes)
        matrix = (axes * variances.rsqrt()) @ axes.T
    squares = torchrun.mean(encoder.contrast((outputs - shift) @ matrix.T).square()).mean()
    encoder.contrast.log_scale -= 0.5 * squares.clamp_min(_LEAST).log()  # the decoder has it, too

    if decoder is not None:
        before = decoder.linear.weight[:, :size].double()
        back = before @ torch.linalg.inv(matrix)
        principal = torch.linalg.eigh(back.T @ back).eigenvectors.T
        # which of two signs, LAPACK leaves open
        principal = torch.where(principal.sum(1, keepdim=True) < 0, -principal, principal)
        random = torch.Generator().manual_seed(seed)
        order, signs = torch.randperm(size, generator=random), 2 * torch.randint(2, (size, 1), generator=random) - 1
        matrix = signs.to(matrix) * principal[order.to(matrix.device)] @ matrix
        decoder.linear.bias += before @ shift
        decoder.linear.weight[:, :size] = before @ torch.linalg.inv(matrix)
    encoder.gaussian.bias.copy_(matrix @ (encoder.gaussian.bias - shift))
    encoder.gaussian.weight.copy_(matrix @ encoder.gaussian.weight.double())


@torch.no_grad()
def forget(linear: nn.Linear, features: Tensor, *kinds: tuple[Tensor, int]) -> None:
    """Make what a linear layer says of features uncorrelated with the patterns of pictures that they tell most of.

    Of all such affine maps of the features, this one changes them least (LEACE: Belrose et al., "LEACE: perfect linear
    concept erasure in closed form", NeurIPS 2023; here not all is erased that the features tell, but the patterns by
    which the most of the pictures' variance is explained). What the layer says now is the best linear
    prediction of what it said before.

    Args:
        linear: its weight and bias change, the mean of what it says does not.
        features: ``[N, F]``, what it reads; of several processes each has some.
        kinds: pictures ``[N, P]`` of the same images, and how many patterns of them to erase, at most P and F. Erased
            one kind after another, the second would bring back some of the first.
    """
    features = features.double()
    mean = torchrun.mean(features)
    centred = features - mean
    variances, axes = _axes(torchrun.total(centred.T @ centred)[0] / torchrun.count(features), features)
    root, inverse = ((axes * variances**power) @ axes.T for power in (0.5, -0.5))
    told = []
    for pictures, patterns in kinds:
        pictures = pictures.double()
        across = torchrun.total(centred.T @ (pictures - torchrun.mean(pictures)))[0] / torchrun.count(features)
        told.append(torch.linalg.svd(inverse @ across, full_matrices=False).U[:, :patterns])
    told = torch.linalg.qr(torch.cat(told, 1)).Q  # a basis of all that tells one or more of the patterns
    lost = linear.weight.double() @ root @ told @ told.T @ inverse
    linear.weight.copy_(linear.weight - lost)
    linear.bias.copy_(linear.bias + lost @ mean)


def _axes(moment: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of the second moment ``[F, F]`` of the rows of all ranks, ``[N, F]``.

    It is shrunk to a multiple of the identity by (F / (N + F))^2: of few images, most axes have no variance.
    """
    size = len(moment)
    least = torch.eye(size).to(moment) * (moment.trace() / size).clamp_min(_LEAST)
    return torch.linalg.eigh(moment.lerp(least, (size / (torchrun.count(x) + size)) ** 2))
