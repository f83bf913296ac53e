"""Attacks on masks: what somebody who was not meant to see the images can find out.

Plain functions, tensors in and tensors out; ``maskbench.audit`` runs them under named threat models. Throughout,
``codes`` are the masked vectors ``[N, D]`` as the attacker reads them, ``images`` float32 ``[N, 3, S, S]`` in [0, 1],
``pixels`` the same as ``[N, 3 S S]``.

That codes of independently trained encoders differ by little more than a linear map, so that a few pairs, or none,
align them, is known from word vectors (Conneau et al., "Word translation without parallel data", ICLR 2018) and image
models (Moschella et al., "Relative representations enable zero-shot latent space communication", ICLR 2023); "instance
encodings" of images fell to such attacks (Carlini et al., "Is private learning possible with instance encoding?", IEEE
S&P 2021).
"""

import copy
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import linear_sum_assignment, quadratic_assignment
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn
from tqdm import tqdm

Map = Callable[[Tensor], Tensor]

_ALPHAS = np.logspace(-14, 1, 31)  # of ridge regression, in units of the inputs' total variance
_ROUNDS, _BATCH = 10, 1000  # of Wasserstein-Procrustes
_PARTNERS, _THIRD = 128, 10_000  # axes and images that third moments are taken of
_SKETCH = 64  # random combinations of the targets on which the ridge is chosen


class Ridge:
    """Ridge regression of any targets on k inputs, its strength chosen by leave-one-out cross-validation.

    Threat models: known pairs, oracle, stolen encoder. The attacker knows k pairs and nothing else. One
    eigendecomposition, of the smaller of the Gram and the covariance matrix, serves all strengths and targets; the
    leave-one-out errors follow in closed form (Hoerl and Kennard, Technometrics 1970; Allen's PRESS, 1974).

    Args:
        inputs: ``[k, D]``.
        mean: of all inputs, ``[D]``: who holds a masked set, or public images, knows it better than from k pairs.
    """

    def __init__(self, inputs: Tensor, mean: Tensor):
        self.mean = mean.double()
        self.inputs = inputs.double() - self.mean
        rows, width = inputs.shape
        self.dual = rows <= width
        gram = self.inputs @ self.inputs.T if self.dual else self.inputs.T @ self.inputs
        values, self.vectors = torch.linalg.eigh(gram)
        self.values = values.clamp_min(0)
        self.alphas = (self.values.sum() * torch.from_numpy(_ALPHAS).to(gram)).clamp_min(1e-30)

    def fit(self, targets: Tensor, mean: Tensor) -> Map:
        """The affine map ``[N, D] -> [N, M]`` (float32) for targets ``[k, M]``, whose mean over all is ``[M]``."""
        mean = mean.double()
        centred = targets.double() - mean
        strength = self._choose(centred)
        if self.dual:
            weights = self.inputs.T @ (self.vectors @ ((self.vectors.T @ centred) / (self.values + strength)[:, None]))
        else:
            projected = self.vectors.T @ (self.inputs.T @ centred)
            weights = self.vectors @ (projected / (self.values + strength)[:, None])
        offset = mean - self.mean @ weights
        weights, offset = weights.float(), offset.float()
        return lambda inputs: inputs.float() @ weights + offset

    def _choose(self, centred: Tensor) -> Tensor:
        """The strength of the smallest leave-one-out error; errors are lengths, which random combinations keep."""
        generator = torch.Generator().manual_seed(0)
        sketch = torch.randn(centred.shape[1], _SKETCH, generator=generator, dtype=torch.float64).to(centred)
        centred = centred if centred.shape[1] <= _SKETCH else centred @ sketch
        # in the basis of the rows in which every strength is diagonal; what it leaves out, no strength explains
        if self.dual:
            basis, outside, uncovered = self.vectors, 0, 0
        else:
            basis = (self.inputs @ self.vectors) / self.values.clamp_min(1e-300).sqrt()
            basis = basis * (self.values > 1e-13 * self.values[-1])
            outside, uncovered = centred - basis @ (basis.T @ centred), 1 - basis.square().sum(1)
        inside, squares = basis.T @ centred, basis.square()
        errors = []
        for alpha in self.alphas:
            left = alpha / (self.values + alpha)  # small numbers as they are: a difference from 1 would lose them
            residual = outside + basis @ (left[:, None] * inside)
            errors.append((residual / (uncovered + squares @ left).clamp_min(1e-30)[:, None]).square().sum())
        return self.alphas[torch.stack(errors).argmin()]


def chosen_images(mean: Tensor, components: Tensor) -> Tensor:
    """What an oracle is best asked to mask: as many images as components, ``[n, P]``, in [0, 1].

    Threat model: oracle. Each is a random mixture of the strongest principal components of public images, all in their
    natural strength, and no two mixtures repeat each other: so n masks tell of the n directions that matter most, while
    n photographs tell of n directions at random.

    Args:
        mean: of public images, ``[P]``.
        components: ``[n, P]``, each as long as its deviation.
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
        components: of public images, ``[C, P]``, each as long as its deviation.
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
    effect = (components @ x.T) @ weights  # of a deviation of each component, [C, D]
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


def procrustes(codes: Tensor, own_codes: Tensor, mean: Tensor, own_mean: Tensor) -> Map:
    """The rotation, scale and shift that best turn codes into the attacker's own, ``[k, D]`` and ``[k, E]``.

    Threat model: known pairs (with the encoder and without its key: stolen encoder). The attacker encodes the k images
    with his own encoder. Where pairs are fewer than dimensions, what they do not determine maps to nothing.
    Orthogonal Procrustes (Schönemann, Psychometrika 1966), also between spaces of different widths. The means ``[D]``
    and ``[E]`` are those of all codes, which he knows without pairs.
    """
    source, target = (codes - mean).double(), (own_codes - own_mean).double()
    left, values, right = torch.linalg.svd(source.T @ target, full_matrices=False)
    seen = values > 1e-9 * values[0]
    scale = values.sum() / source.square().sum()
    rotation = (scale * left[:, seen] @ right[seen]).to(codes)
    return lambda codes: (codes - mean) @ rotation + own_mean


def unpaired(codes: Tensor, own_codes: Tensor) -> Map:
    """Turn codes into the attacker's own by statistics alone, ``[N, D]`` and ``[M, E]`` of different images.

    Threat model: masks only. The attacker has masks, public images of the same kind and an encoder that he trained on
    them. Both sets are whitened, so that what is left to find is a rotation. Two guesses at it:

    - a permutation with signs, by moments, see :func:`match_axes`;
    - the axes of the fourth-moment matrix E[|x|^2 x x^T] in their order (FOBI: Cardoso, ICASSP 1989), which turn with
      the data, with signs by third moments.

    Each is refined by optimal transport and Procrustes in turns (Wasserstein-Procrustes: Grave, Joulin and Berthet,
    AISTATS 2019). Of the four, the attacker takes the one with the cheapest transport plan.
    """
    width = min(codes.shape[1], own_codes.shape[1])
    whiten, _ = _whitening(codes, width)
    own_whiten, own_colour = _whitening(own_codes, width)
    x, y = whiten(codes), own_whiten(own_codes)
    generator = torch.Generator().manual_seed(0)

    def some() -> tuple[Tensor, Tensor]:
        return tuple(z[torch.randperm(len(z), generator=generator)[: min(_BATCH, len(x), len(y))]] for z in (x, y))

    guesses = [match_axes(x, y), _fourth_moment_axes(x) @ _fourth_moment_axes(y).T]
    for rotation in list(guesses):
        for _ in range(_ROUNDS):
            mine, his = some()
            his = his[_transport(mine @ rotation, his)[0]]
            rotation = torch.from_numpy(orthogonal_procrustes(mine.numpy(), his.numpy())[0])
        guesses.append(rotation)
    mine, his = some()
    rotation = min(guesses, key=lambda rotation: _transport(mine @ rotation, his)[1])
    return lambda codes: own_colour(whiten(codes) @ rotation).to(codes)


def match_axes(x: Tensor, y: Tensor) -> Tensor:
    """The permutation with signs ``[D, D]`` that best turns white vectors ``[N, D]`` into ``[M, D]``, by moments alone.

    Encoders of one kind often share their axes and differ in their order and signs. Of the vectors' directions u (their
    lengths, the images' contrast, say nothing of the axes), the moments E[u_i^2 u_j^2] make a graph on the axes. Two
    graphs are matched after their entries are replaced by ranks: axes by the spread of their entries, then by FAQ from
    there (Vogelstein et al., "Fast approximate quadratic programming for graph matching", PLoS ONE 2015; scipy's).
    Signs then follow from third moments: E[u_i u_j^2] votes on i alone, E[u_i u_j u_k] with the signs of j and k.
    """
    x, y = (F.normalize(z.float()) for z in (x, y))
    x, y = ((z - z.mean(0)) / z.std(0).clamp_min(1e-12) for z in (x, y))
    width = x.shape[1]
    fourth = [(z.square().T @ z.square() / len(z)).double() for z in (x, y)]
    spread = [torch.cat((m.diagonal()[:, None], m.sort(1).values[:, :: max(1, width // 32)]), 1) for m in fourth]
    cost = torch.cdist(*(part / spread[0].std(0).clamp_min(1e-12) for part in reversed(spread)))
    start = np.eye(width)[linear_sum_assignment(cost.numpy())[1]]
    graphs = [(m.flatten().argsort().argsort().view_as(m) / m.numel() - 0.5).fill_diagonal_(0).double() for m in fourth]
    options = {"maximize": True, "P0": start, "maxiter": 100, "tol": 1e-4}
    matched = quadratic_assignment(graphs[1].numpy(), graphs[0].numpy(), options=options)
    order = torch.from_numpy(matched.col_ind).long()  # axis i of y is axis order[i] of x

    x = x[:, order]
    alone = (x.T @ x.square() / len(x) * (y.T @ y.square() / len(y))).sum(1)
    signs = _signs(alone)
    partners = torch.randperm(width, generator=torch.Generator().manual_seed(0))[:_PARTNERS]
    x, y = x[:_THIRD], y[:_THIRD]
    votes = torch.empty(width, len(partners), width)
    for i in range(width):
        votes[i] = (x[:, partners] * x[:, i, None]).T @ x / len(x) * ((y[:, partners] * y[:, i, None]).T @ y / len(y))
        votes[i, :, i] = 0  # of the signs, only those of two others
        votes[i, partners == i] = 0
    votes[:, torch.arange(len(partners)), partners] = 0
    for _ in range(10):
        signs = _signs(torch.einsum("ijk,j,k->i", votes, signs[partners], signs) + alone)
    rotation = torch.zeros(width, width, dtype=torch.float64)
    rotation[order, torch.arange(width)] = signs.double()
    return rotation


def _signs(x: Tensor) -> Tensor:
    return torch.where(x < 0, -1.0, 1.0)


def _fourth_moment_axes(x: Tensor) -> Tensor:
    """Orthonormal axes ``[D, D]`` that turn with the white vectors ``[N, D]``, so that they line two sets up."""
    _, axes = torch.linalg.eigh((x * x.square().sum(1, keepdim=True)).T @ x / len(x))
    return axes * _signs((x @ axes).pow(3).mean(0))


def _transport(some: Tensor, others: Tensor) -> tuple[Tensor, float]:
    """The cheapest way to assign ``others`` to ``some``, ``[N, D]`` twice (discrete optimal transport); its cost."""
    cost = torch.cdist(some, others).numpy()
    rows, columns = linear_sum_assignment(cost)
    return torch.from_numpy(columns), float(cost[rows, columns].mean())


def _whitening(codes: Tensor, width: int) -> tuple[Map, Map]:
    """To ``width`` numbers of variance 1 (float64), and back; all of them move as little as can be."""
    codes = codes.double()
    mean = codes.mean(0)
    values, axes = torch.linalg.eigh((codes - mean).T.cov(correction=0))
    values, axes = values[-width:], axes[:, -width:]
    scale = values.clamp_min(1e-6 * values[-1]).sqrt()
    # turned back to where it came from, so that axes keep their meaning; a narrower set keeps its principal axes
    back = axes.T if width == codes.shape[1] else torch.eye(width, dtype=torch.float64)
    forward, backward = (axes / scale) @ back, back.T @ (axes * scale).T
    return lambda codes: (codes.double() - mean) @ forward, lambda white: white @ backward + mean


@torch.enable_grad()
def inverse_decoder(codes: Tensor, images: Tensor, start: nn.Module, align: Map, passes: int = 2000) -> Map:
    """The attacker's own decoder, fine-tuned to the victim's codes on k pairs: codes ``[k, D]`` and their images.

    Threat models: known pairs, stolen encoder. Pairs are few, so the decoder starts from what the attacker learned on
    public images, behind a linear map into his own code space. Both are trained with Adam, and the weights that do best
    on a held-out fifth of the pairs are kept, be they the first (decoders as attackers: Dosovitskiy and Brox,
    "Inverting visual representations with convolutional networks", CVPR 2016).

    Args:
        start: the attacker's decoder, his codes ``[N, E]`` to images; not changed.
        align: affine, the victim's codes to his.
        passes: images seen in training, each at most 50 times; more where there are more pairs, then each once.
    """
    batch, checks = 50, 4
    offset = align(codes.new_zeros(1, codes.shape[1]))
    linear = nn.Linear(codes.shape[1], offset.shape[1]).to(codes)
    with torch.no_grad():
        linear.bias.copy_(offset[0])
        linear.weight.copy_((align(torch.eye(codes.shape[1]).to(codes)) - offset).T)
    model = nn.Sequential(linear, copy.deepcopy(start)).eval()  # kept as it is: no statistics move
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    generator = torch.Generator().manual_seed(0)
    held_out, train = torch.randperm(len(codes), generator=generator).tensor_split([max(1, len(codes) // 5)])
    # a handful of pairs is learned by heart long before that many passes
    steps = max(min(passes, 50 * len(train)), len(train)) // min(batch, len(train))
    best, weights = _error(model, codes[held_out], images[held_out]), copy.deepcopy(model.state_dict())
    ahead = train[:0]
    for step in range(1, steps + 1):
        if len(ahead) < batch:
            ahead = torch.cat((ahead, train[torch.randperm(len(train), generator=generator)]))
        rows, ahead = ahead[:batch], ahead[batch:]
        for group in optimizer.param_groups:
            group["lr"] = 3e-4 * (1 - (step - 1) / steps)
        optimizer.zero_grad()
        F.mse_loss(model(codes[rows]), images[rows]).backward()
        optimizer.step()
        if step % max(1, steps // checks) == 0:
            error = _error(model, codes[held_out], images[held_out])
            if error < best:
                best, weights = error, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return torch.no_grad()(model)


@torch.no_grad()
def _error(model: nn.Module, codes: Tensor, images: Tensor) -> float:
    pairs = zip(codes.split(500), images.split(500), strict=True)
    return sum(F.mse_loss(model(some), pictures, reduction="sum").item() for some, pictures in pairs)


@torch.enable_grad()
def gradient_inversion(encode: Map, codes: Tensor, start: Tensor, steps: int = 1000, smoothness: float = 0.1) -> Tensor:
    """Images whose codes are these, found by descending through the encoder: codes ``[N, D]`` -> ``[N, 3, S, S]``.

    Threat model: stolen encoder. The attacker needs no pairs: he moves the pixels until the encoder says the same, and
    prefers smooth pictures (Mahendran and Vedaldi, "Understanding deep image representations by inverting them", CVPR
    2015: total variation as the prior; Adam with a cosine schedule).

    Args:
        encode: images to codes, differentiable.
        start: the image to begin with, ``[3, S, S]``.
        smoothness: weight of the total variation beside the squared error of the codes, in units of their variance.
    """
    images = start.expand(len(codes), *start.shape).clone().requires_grad_()
    scale = codes.var(0, correction=0).mean().clamp_min(1e-12)
    optimizer = torch.optim.Adam([images], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tqdm(range(steps), desc="gradient inversion", unit="step", leave=False):
        optimizer.zero_grad()
        error = (encode(images) - codes).square().mean(1) / scale
        variation = images.diff(dim=2).abs().mean((1, 2, 3)) + images.diff(dim=3).abs().mean((1, 2, 3))
        (error + smoothness * variation).sum().backward()  # images do not touch: as if each were alone
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    return images.detach()


def ranks(codes: Tensor, candidates: Tensor) -> Tensor:
    """Re-identification: the place of the true candidate when all are ordered by distance, float64 ``[N]`` from 1.

    The attacker has N images, one of which is behind each mask, and maps them or the masks until both are vectors of
    one space. A tie counts half.

    Args:
        codes: ``[N, D]``; row i is of candidate i.
        candidates: ``[N, D]``.
    """
    distances = _distances(codes, candidates)
    true = distances.diagonal()[:, None]
    return 0.5 + (distances < true).sum(1) + 0.5 * (distances == true).sum(1).double()


def named_once(codes: Tensor, candidates: Tensor) -> float:
    """Share of the candidates ``[N, D]`` that are nearest to some code ``[N, D]``.

    All of them where both lie in one space as they should, few where they do not: without knowing which is which, an
    attacker tells by it which of several ways to compare the two is best.
    """
    return len(_distances(codes, candidates).argmin(1).unique()) / len(candidates)


def distance_profiles(codes: Tensor) -> Tensor:
    """For each code its distances to all of them, sorted: ``[N, D]`` -> ``[N, N]``. No rotation changes them."""
    return _distances(codes, codes).sort(1).values


def turned_by_profiles(codes: Tensor, candidates: Tensor, rounds: int = 3) -> Tensor:
    """Codes ``[N, D]`` turned onto the candidates' ``[N, E]``, all of which are behind some code.

    Threat models: masks only, stolen encoder without the key; here the attacker has the images, and asks which mask is
    of which. Each code is assigned the candidate with the most similar :func:`distance_profiles`; from these pairs
    follows a rotation (:func:`procrustes`), from it a better assignment.
    """
    compared = distance_profiles(codes), distance_profiles(candidates)
    for _ in range(rounds):
        partners = _transport(*compared)[0]
        turn = procrustes(codes, candidates[partners], codes.mean(0), candidates.mean(0))
        compared = turn(codes), candidates
    return compared[0]


def _distances(codes: Tensor, candidates: Tensor) -> Tensor:
    return torch.cdist(codes.double(), candidates.double(), compute_mode="donot_use_mm_for_euclid_dist")


def attribute(codes: Tensor, labels: Tensor, test_codes: Tensor) -> Tensor:
    """Labels int64 ``[N]`` that a classifier gives to test codes, learned from k codes ``[k, D]`` and labels.

    Threat models: known pairs (of mask and label), stolen encoder (public labelled images, masked by the attacker).
    An MLP of 256 units, scikit-learn's, on standardised codes, with weight decay; stopped early where there are enough
    to hold a tenth out.
    """
    deviation, mean = torch.std_mean(codes, 0, correction=0)
    scaled, test = ((part - mean) / deviation.clamp_min(1e-6) for part in (codes, test_codes))
    model = MLPClassifier((256,), alpha=1.0, max_iter=40, early_stopping=len(codes) >= 1000, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 40 passes are meant
        model.fit(scaled.numpy(), labels.numpy())
    return torch.from_numpy(model.predict(test.numpy()))


def membership(members: Tensor, others: Tensor) -> Tensor:
    """Whether each of some images is told rightly to be, or not to be, of the training images: bool.

    Threat model: stolen encoder (and decoder). Some numbers an image, such as the reconstruction error (Yeom et al.,
    "Privacy risk in machine learning", CSF 2018; Hayes et al., "LOGAN", PETS 2019). Which number, its threshold and its
    direction are those of the best balanced accuracy on half of the images; the other half is judged, and returned.

    Args:
        members: ``[N, S]``, of images that were trained on.
        others: ``[N, S]``, of images that were not.
    """
    half = len(members) // 2
    values = torch.cat((members[:half], others[:half])).double()
    is_member = torch.arange(2 * half) < half
    order = values.argsort(0)
    # at each place between two sorted values: members below and others above, less their opposites
    gain = torch.where(is_member[order], 1, -1).cumsum(0)
    place, number = divmod(gain.abs().argmax().item(), values.shape[1])
    threshold, below = values[order[place, number], number], gain[place, number] > 0  # members lie below
    judged = torch.cat((members[half:], others[half:]))[:, number].double()
    truth = torch.arange(len(judged)) < len(members) - half
    return ((judged <= threshold) == below) == truth
