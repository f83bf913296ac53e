"""What is said of an image without showing it: a withheld label, and whether it trained the encoder."""

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from maskbench.classification.features import moments
from maskbench.leakage.knowledge import Knowledge, Map


def attribute(codes: Tensor, labels: Tensor, test_codes: Tensor) -> Tensor:
    """Labels int64 ``[N]`` that a classifier gives to test codes, learned from k codes ``[k, D]`` and labels.

    Threat models: known pairs (of mask and label), stolen encoder (public labelled images, masked by the attacker).
    An MLP of 256 units, scikit-learn's, on standardised codes, with weight decay; stopped early where there are enough
    to hold a tenth out.
    """
    mean, deviation = moments(codes)
    scaled, test = ((part - mean) / deviation for part in (codes, test_codes))
    model = MLPClassifier((256,), alpha=1.0, max_iter=40, early_stopping=len(codes) >= 1000, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 40 passes are meant
        model.fit(scaled.numpy(), labels.numpy())
    return torch.from_numpy(model.predict(test.numpy()))


def membership_rule(members: Tensor, others: Tensor) -> Map:
    """A rule that tells images that were trained on from others: ``[M, S]`` -> bool ``[M]``.

    Threat model: stolen encoder (and decoder). Some numbers an image, such as the reconstruction error (Yeom et al.,
    "Privacy risk in machine learning", CSF 2018; Hayes et al., "LOGAN", PETS 2019). Which number, its threshold and its
    direction are those of the best balanced accuracy on images whose answer is known.

    Args:
        members: ``[N, S]``, of images that were trained on.
        others: ``[N, S]``, of as many images that were not.
    """
    values = torch.cat((members, others)).double()
    is_member = torch.arange(len(values)) < len(members)
    order = values.argsort(0)
    # at each place between two sorted values: members below and others above, less their opposites
    gain = torch.where(is_member[order], 1, -1).cumsum(0)
    place, number = divmod(gain.abs().argmax().item(), values.shape[1])
    threshold, below = values[order[place, number], number], gain[place, number] > 0  # members lie below
    return lambda asked: (asked[:, number].double() <= threshold) == below


def attributes(knowledge: Knowledge) -> dict[str, Tensor]:
    """Masks with labels: the labels of the masks asked about, int64 ``[N]`` under the name of their set."""
    known = knowledge.labelled
    return {known.asked: attribute(known.codes, known.labels, knowledge.masks[known.asked])}


def members(knowledge: Knowledge) -> dict[str, Tensor]:
    """The encoder and what its decoder says: whether each of the images asked about is a member, bool ``[M]``."""
    known = knowledge.membership
    return {known.images: membership_rule(known.members, known.others)(known.asked)}
