"""The cross-pair figures depend on these pictures, so their bytes are frozen."""

import hashlib

import torch

from maskbench.data.patterns import test_patterns as make_patterns


def test_patterns_are_frozen():
    patterns = torch.stack(list(make_patterns().values()))
    assert patterns.shape == (20, 3, 32, 32) and patterns.dtype == torch.uint8
    assert patterns.unique().tolist() == [0, 255]
    assert len({pattern.numpy().tobytes() for pattern in patterns}) == 20
    assert (
        hashlib.sha256(patterns.numpy().tobytes()).hexdigest()
        == "eaf471ef5c78f869bef3b27f02214254b1cb4d019415f59417214c6819d2a628"
    )


def test_patterns_scale():
    small, large = make_patterns(32), make_patterns(64)
    for name in small:
        assert large[name].shape == (3, 64, 64)
        light = [float(patterns[name].float().mean()) / 255 for patterns in (small, large)]
        assert abs(light[0] - light[1]) < 0.06, name
