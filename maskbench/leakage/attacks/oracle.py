"""Chosen plaintexts: what an oracle is asked, and what follows from its answers."""

import functools

import torch
from torch import Tensor

from maskbench.leakage.attacks.ridge import Ridge
from maskbench.leakage.knowledge import Instance, Knowledge, Map, Oracle, Public, batched


def chosen_images(mean: Tensor, components: Tensor) -> Tensor:
    """What an oracle is best asked to mask: as many images as components, ``[n, P]``, in [0, 1].

    Threat model: oracle. Each is a random mixture of the strongest principal components of public images, all in their
    natural strength, and no two mixtures repeat each other: so n masks tell of the n directions that matter most, while
    n photographs tell of n directions at random.

    Args:
        mean: of public images, ``[P]``.
        components: ``[n, P]``, each as long as its standard deviation.
    """
    count = len(components)
    generator = torch.Generator().manual_seed(0)
    mixtures = torch.linalg.qr(torch.randn(count, count, generator=generator))[0]
    return (mean + count**0.5 * mixtures @ components).clamp(0, 1)


def wiener(queries: Tensor, answers: Tensor, mean: Tensor, components: Tensor, codes: Tensor) -> tuple[Map, Map]:
    """The best linear maps from codes back to images and from images to codes, given what an oracle answered.

    Threat model: oracle. A ridge regression of the answers on the queries says what the mask does to an image. The way
    back, ``[N, D]`` -> ``[N, P]``, is the Wiener filter: the covariance of images is that of public ones, the
    covariance of codes that of the masks in the attacker's hands, and what of the latter the queries do not explain is
    noise.

    Args:
        queries: images ``[n, P]``.
        answers: their codes ``[n, D]``.
        mean: of public images, ``[P]``.
        components: of public images, ``[C, P]``, each as long as its standard deviation.
        codes: of other images, ``[N, D]``; of fewer than D, their covariance is not known well.

    Returns:
        codes to images; images to codes, ``[N, P]`` -> ``[N, D]``.
    """
    center = codes.double().mean(0)
    x, y = queries.double() - mean.double(), answers.double() - center
    components = components.double()
    gram = x @ x.T
    gram = gram + 1e-4 * gram.diagonal().mean() * torch.eye(len(x)).to(gram)
    weights = torch.linalg.solve(gram, y)  # of the queries
    effect = (components @ x.T) @ weights  # of one standard deviation of each component, [C, D]
    explained = effect.T @ effect
    observed = (codes.double() - center).T.cov(correction=0)
    values, axes = torch.linalg.eigh(observed - explained)
    unexplained = (axes * values.clamp_min(1e-9 * observed.diagonal().mean().clamp_min(1e-30))) @ axes.T
    back = torch.linalg.solve(explained + unexplained, effect.T @ components).float()
    offset = mean - center.float() @ back
    return (
        lambda codes: codes.float() @ back + offset,
        lambda images: (center + ((images.double() - mean.double()) @ x.T) @ weights).float(),
    )


@functools.lru_cache(maxsize=1)
def _learned(oracle: Oracle, public: Public, own: Instance, collection: Tensor) -> tuple[Map, Map]:
    """Codes to images, and images to codes or what these are compared by; all queries are spent.

    Beyond as many queries as can be chosen well, photographs are asked for: of a mask that is not quite linear they
    tell more.
    """
    mean, components = public.principal
    if oracle.queries <= len(components):
        queries = chosen_images(mean, components[: oracle.queries])
        answers = oracle.ask(public.shaped(lambda flat: flat)(queries))
        back, forward = wiener(queries, answers, mean, components, collection)
        return public.shaped(back), lambda images: forward(images.flatten(1))
    queries, code_mean = public.some[: oracle.queries], collection.mean(0)
    answers = oracle.ask(queries)
    back = Ridge(answers, code_mean).fit(queries.flatten(1), public.mean.flatten())
    turn = Ridge(own.expected[: oracle.queries], own.expected.mean(0)).fit(answers, code_mean)
    return public.shaped(back), lambda images: turn(batched(own.encode, images))


def learned(knowledge: Knowledge) -> tuple[Map, Map]:
    """What the oracle's answers teach: codes to images, and images to codes; shared by the attacks that ask alike."""
    return _learned(knowledge.oracle, knowledge.public, knowledge.own, knowledge.collection)


def reconstructed(knowledge: Knowledge) -> dict[str, Tensor]:
    """Oracle: the linear way back. Images by set."""
    return knowledge.decoded(learned(knowledge)[0])
