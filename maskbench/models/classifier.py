"""The classifier of masks, alone and many at once."""

import torch
from torch import Tensor, nn


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
