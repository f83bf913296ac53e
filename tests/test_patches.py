"""Convolutions by patches against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from ops_common import value_and_gradients

from maskbench.models.patches import SmallConvolution, convolve_patches

# channels before and after, kernel, stride, padding, side of the images
SHAPES = [
    (3, 5, 3, 1, 1, 4),
    (3, 5, 3, 2, 1, 6),
    (2, 4, 4, 2, 1, 8),
    (2, 4, 3, 2, 1, 7),
    (4, 2, 3, 2, 1, 1),
    (1, 1, 2, 1, 0, 2),
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("before", "after", "kernel", "stride", "padding", "side"), SHAPES)
def test_values_and_gradients_are_those_of_pytorch(before, after, kernel, stride, padding, side, layout):
    random = torch.Generator().manual_seed(0)
    images = torch.randn(3, before, side, side, dtype=torch.float64, generator=random)
    images = images.contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(after, before, kernel, kernel, dtype=torch.float64, generator=random, requires_grad=True)
    found = convolve_patches(images, weight, stride, padding)
    wanted = F.conv2d(images, weight, None, stride, padding)
    for one, other in zip(
        value_and_gradients(found, [images, weight]), value_and_gradients(wanted, [images, weight]), strict=True
    ):
        torch.testing.assert_close(one, other.contiguous(), rtol=1e-10, atol=1e-10)


def test_images_without_a_gradient_get_none():
    images, weight = torch.randn(2, 3, 4, 4), torch.randn(5, 3, 3, 3, requires_grad=True)
    convolve_patches(images, weight, 1, 1).sum().backward()
    assert images.grad is None and weight.grad.shape == weight.shape


def test_a_layer_in_training_rounds_as_bfloat16_and_learns_what_pytorch_teaches():
    torch.manual_seed(0)
    layer = SmallConvolution(16, 32, 3, stride=2, padding=1, bias=False)
    images, push = torch.randn(8, 16, 8, 8), torch.randn(8, 32, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(images)
        layer.eval()
        assert torch.equal(layer(images), F.conv2d(images, layer.weight, None, 2, 1))  # PyTorch's, autocast as well
    assert result.dtype == torch.bfloat16
    assert result.grad_fn.name().startswith("_Patches") and layer.weight.dtype == torch.float32
    exact = F.conv2d(images, layer.weight, None, 2, 1)
    torch.testing.assert_close(result.float(), exact, rtol=0.02, atol=0.02)
    (of_result,) = torch.autograd.grad((result.float() * push).sum(), layer.weight)
    (of_exact,) = torch.autograd.grad((exact * push).sum(), layer.weight)
    assert of_result.dtype == torch.float32
    assert (of_result - of_exact).norm() < 0.01 * of_exact.norm()
    layer.train()
    assert torch.equal(layer(images), exact)  # without autocast in float32, as ever
