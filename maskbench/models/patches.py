"""Convolutions of small maps as products of matrices, where that is faster than a convolution library."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LARGEST_MAP = 4  # side of the result up to which products of matrices were faster


class SmallConvolution(nn.Conv2d):
    """``nn.Conv2d`` without a bias, of square kernels and images; its values and parameters are the same.

    In training in bfloat16 on a CPU, small maps are gathered as patches, once for the result and for the gradient of
    the weights. PyTorch's own gradient of the weights (oneDNN's) takes several times as long there.
    """

    def forward(self, images: Tensor) -> Tensor:
        """``[N, C, S, S]`` -> ``[N, C', S', S']``."""
        side = result_side(images, self.kernel_size[0], self.stride[0], self.padding[0])
        by_patches = (
            self.training
            and images.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and images.dtype != torch.float64  # which autocast leaves alone
            and side <= LARGEST_MAP
            and not torch.compiler.is_compiling()
        )
        if not by_patches:
            return super().forward(images)
        dtype = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            return convolve_patches(images.to(dtype), self.weight.to(dtype), self.stride[0], self.padding[0])


def convolve_patches(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """``F.conv2d`` of square images ``[N, C, S, S]`` and kernels ``[C', C, K, K]``; differentiable once."""
    return _Patches.apply(images, weight, stride, padding)


def result_side(images: Tensor, kernel: int, stride: int, padding: int) -> int:
    """The side of what a convolution makes of ``[N, C, S, S]``."""
    return (images.shape[2] + 2 * padding - kernel) // stride + 1


def patches(images: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """What each value of a convolution's result is made of: ``[N, C, S, S]`` -> ``[N S' S', K K C]``."""
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    end = stride * (result_side(images, kernel, stride, padding) - 1) + 1
    shifts = [(row, column) for row in range(kernel) for column in range(kernel)]
    shifted = [padded[:, row : row + end : stride, column : column + end : stride] for row, column in shifts]
    return torch.cat(shifted, 3).flatten(0, 2)


class _Patches(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        outputs, _, kernel, _ = weight.shape
        side = result_side(images, kernel, stride, padding)
        gathered = patches(images, kernel, stride, padding)
        ctx.save_for_backward(weight, gathered)
        ctx.shape, ctx.stride, ctx.padding = images.shape, stride, padding
        result = gathered @ weight.permute(2, 3, 1, 0).reshape(-1, outputs)
        return result.view(len(images), side, side, outputs).permute(0, 3, 1, 2)  # channels last

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        weight, gathered = ctx.saved_tensors
        outputs, inputs, kernel, _ = weight.shape
        # rows of numbers side by side: oneDNN is slow with the transposed matrix
        of_weight = gradient.transpose(0, 1).flatten(1) @ gathered
        of_weight = of_weight.view(outputs, kernel, kernel, inputs).permute(0, 3, 1, 2)
        of_images = None
        if ctx.needs_input_grad[0]:
            # of the images only shape and layout are looked at; torch.nn.grad.conv2d_input would lose channels last
            images = torch.empty(ctx.shape, dtype=weight.dtype, memory_format=torch.channels_last)
            stride, padding = [ctx.stride] * 2, [ctx.padding] * 2
            settings = None, stride, padding, [1, 1], False, [0, 0], 1, [True, False, False]
            of_images = torch.ops.aten.convolution_backward(gradient, images, weight, *settings)[0]
        return of_images, of_weight, None, None
