"""Closed forms of a training: a start from principal components; exact statistics, no correlation, after an epoch."""

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from maskbench.models.decoder import Decoder
from maskbench.models.encoder import Encoder
from maskbench.models.heads import TINY, radius, shrinkage
from maskbench.runtime import torchrun

_PICTURES_KEPT = 1.1  # the MSE that decorrelation may cost, as a factor


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
    mean = torchrun.mean(features)
    centred = (features - mean).double()
    covariance = torchrun.total(centred.T @ centred)[0] / torchrun.count(features)
    # where images are few, most components have no variance: shrunk a little towards what natural images have
    natural = encoder.features.natural_variances().double()
    natural = torch.diag(natural * ((covariance.trace() + TINY) / natural.sum()))  # images may all be the same
    covariance = covariance.lerp(natural, 0.1 * shrinkage(features))
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
    error = torchrun.mean((decoder(torch.cat(encoder(images), 1)) - images).square()).mean()
    encoder.train(training)
    return error


def _decorrelate(encoder: Encoder, decoder: Decoder, gaussian: Tensor, power: float) -> None:
    """Multiply the codes by their directions' second moment to the power of minus ``power``, and fit their statistics.

    Args:
        gaussian: outputs of the linear layer for many images, ``[N, G]``.
    """
    linear, norm = encoder.gaussian
    codes = norm.standardise(gaussian).double()
    directions = codes / radius(codes) * math.sqrt(codes.shape[1])
    moment = torchrun.total(directions.T @ directions)[0] / torchrun.count(codes)
    # of few images, most axes have no variance
    variances, axes = torch.linalg.eigh(moment.lerp(torch.eye(len(moment)).to(moment), shrinkage(codes) ** 2))
    whitening, coloring = ((axes * variances**sign) @ axes.T for sign in (-power, power))

    scale = norm.variance.double().clamp_min(TINY).sqrt()
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
