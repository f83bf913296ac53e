"""Layers of a mini-batch by the fastest way: the training step's kernels, or PyTorch's own."""

import torch
from torch import Tensor, nn

from maskbench import ops
from maskbench.runtime import torchrun

SLOPE = 0.5  # of the leaky ReLUs in encoder and decoder: nearer to linear rebuilds better, see docs/method.md


def batch_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance ``[C]`` of ``[N, C]`` or ``[N, C, H, W]`` over the rows of all processes, and how many values.

    In float32 at least, with their gradients.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    over = [dimension for dimension in range(x.dim()) if dimension != 1]
    count = x.new_full((1,), x.numel() / x.shape[1])
    sums = torchrun.summed(torch.cat((x.sum(over), x.square().sum(over), count)))
    total, squares, count = sums.split([x.shape[1], x.shape[1], 1])
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(0), count


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of ``[N, C]`` or ``[N, C, H, W]``; under torchrun the batch is that of all processes.

    (torch's SyncBatchNorm knows GPUs alone.)
    """

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of dimensions will do."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or torchrun.size() == 1:
            return super().forward(x)
        mean, variance, count = batch_moments(x)
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        scale, shift = (each.view(-1, *[1] * (x.dim() - 2)) for each in (scale, self.bias - mean * scale))
        return (x * scale + shift).to(x.dtype)


def multiply(layers: nn.Module, x: Tensor) -> Tensor:
    """A linear layer, or several with LeakyReLU between, of a mini-batch ``[N, F]``; in training by the fastest way."""
    if not (layers.training and ops.has_step_kernels(x)):
        return layers(x)
    linear = [layer for layer in layers.modules() if isinstance(layer, nn.Linear)]
    slope = 1.0 if len(linear) == 1 else layers[1].negative_slope
    return ops.mlp(x, [layer.weight for layer in linear], [layer.bias for layer in linear], slope)


def convolve(layers: nn.Sequential, images: Tensor, up: bool) -> Tensor:
    """The encoder's convolutions, whose result is flat, or the decoder's (up); in training by the fastest way."""
    if not (layers.training and ops.has_step_kernels(images)):
        return layers(channels_last(images))
    convolutions = [layer for layer in layers if isinstance(layer, nn.ConvTranspose2d if up else nn.Conv2d)]
    weights, biases = [layer.weight for layer in convolutions], [layer.bias for layer in convolutions]
    images = ops.convolutions(images, weights, biases, SLOPE, up)
    return images if up else images.flatten(1)


def channels_last(images: Tensor) -> Tensor:
    """Channels last, in which convolutions of small batches are a quarter faster; the values stay."""
    return images.contiguous(memory_format=torch.channels_last)
