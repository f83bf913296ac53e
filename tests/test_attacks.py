"""Each attack works where it must, and fails where there is nothing to find."""

import functools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from attacks_common import SIZE, natural, ranks, rotation, sources
from torch import nn

from maskbench.leakage import plan, scores
from maskbench.leakage.attacks import alignment, decoders, gromov_wasserstein, reidentification, retrieval, ridge
from maskbench.leakage.attacks.alignment import match_axes, procrustes, turned_by_transport, unkeyed, unpaired
from maskbench.leakage.attacks.decoders import gradient_inversion, inverse_decoder, scratch_decoder
from maskbench.leakage.attacks.inference import attribute, membership_rule
from maskbench.leakage.attacks.oracle import chosen_images, wiener
from maskbench.leakage.attacks.reidentification import ranks_of
from maskbench.leakage.attacks.ridge import Ridge
from maskbench.leakage.knowledge import Instance, Knowledge, Labelled, Membership, Pairs, Public, limited_oracle
from maskbench.masking.key import KeyedTransform

FEW_TURNS = (40, 700, 3.0), (30, 2000, 4.0), (12, 4000, 2.0)  # of transport, for small sets


def membership(members: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Whether each of the second half of both is told rightly by a rule that the first halves gave."""
    half = len(members) // 2
    rule = membership_rule(members[:half], others[:half])
    return torch.cat((rule(members[half:]), ~rule(others[half:])))


@pytest.fixture(autouse=True)
def little_work(monkeypatch, few_steps):
    """Optimal transport of 400 codes, few epochs of decoders: of what attacks take, it would be most of the time."""
    monkeypatch.setattr(alignment, "_BATCH", 400)
    monkeypatch.setattr(decoders, "PASSES", 10_000)
    monkeypatch.setattr(decoders, "FINE", 1000)
    monkeypatch.setattr(decoders, "EPOCHS", (1, 10))
    monkeypatch.setattr(decoders, "gradient_inversion", functools.partial(gradient_inversion, steps=300))


@pytest.mark.parametrize("width", [40, 404])
def test_ridge_recovers_images_of_a_subspace(generator, width):
    def draw(count):
        return torch.randn(count, width, generator=generator, dtype=torch.float64) @ basis + 0.5

    basis = torch.randn(width, 3 * SIZE**2, generator=generator, dtype=torch.float64) / 10
    mask = torch.randn(3 * SIZE**2, width, generator=generator, dtype=torch.float64) / 30
    known, secret = draw(width + 20), draw(50)
    means = (mask.sum(0) / 2, torch.full((3 * SIZE**2,), 0.5))
    rebuild = Ridge(known @ mask, means[0]).fit(known, means[1])
    assert F.mse_loss(rebuild((secret @ mask).float()).double(), secret) < 1e-8 * secret.var()
    # below the width it cannot: the pairs do not span the pictures
    rebuild = Ridge((known @ mask)[: width // 2], means[0]).fit(known[: width // 2], means[1])
    assert F.mse_loss(rebuild((secret @ mask).float()).double(), secret) > 0.2 * secret.var()


def test_the_ridge_is_that_of_the_best_left_out_row(generator):
    from sklearn.linear_model import RidgeCV

    for rows in (15, 60):  # the Gram matrix, the covariance
        inputs = torch.randn(rows, 30, generator=generator, dtype=torch.float64)
        targets = inputs[:, :3] + torch.randn(rows, 3, generator=generator, dtype=torch.float64)
        ridge = Ridge(inputs, torch.zeros(30))
        ours = ridge.fit(targets, torch.zeros(3))
        model = RidgeCV(ridge.alphas.numpy(), fit_intercept=False).fit(inputs.numpy(), targets.numpy())
        wanted = torch.from_numpy(model.predict(inputs.numpy())).float()
        torch.testing.assert_close(ours(inputs.float()), wanted, rtol=1e-4, atol=1e-4)


def test_chosen_images_tell_more_than_photographs(generator):
    pixels = natural(2000, generator).flatten(1)
    mean = pixels.mean(0)
    _, strengths, axes = torch.linalg.svd(pixels - mean, full_matrices=False)
    components = (strengths[:48, None] * axes[:48]) / 2000**0.5  # 3 x 4 x 4 numbers make such a picture
    mask = torch.randn(3 * SIZE**2, 60, generator=generator)
    secret, photographs = natural(50, generator).flatten(1), natural(16, generator).flatten(1)

    def error(queries: torch.Tensor) -> float:
        rebuild, _ = wiener(queries, queries @ mask, mean, components, pixels @ mask)
        return (F.mse_loss(rebuild(secret @ mask), secret) / secret.var()).item()

    chosen = chosen_images(mean, components)
    assert chosen.min() >= 0 and chosen.max() <= 1 and chosen.shape == (48, 3 * SIZE**2)
    assert error(chosen) < 0.01
    _, forward = wiener(chosen, chosen @ mask, mean, components, pixels @ mask)
    assert (ranks(secret @ mask, forward(secret)) == 1).all()
    assert error(chosen_images(mean, components[:16])) < 0.8 * error(photographs)


def test_procrustes_recovers_a_planted_rotation(generator):
    turn = rotation(20, generator)
    codes = torch.randn(100, 20, generator=generator)
    own, mean, own_mean = 3 * codes @ turn + 1, torch.zeros(20), torch.ones(20)
    align = procrustes(codes[:30], own[:30], mean, own_mean)
    torch.testing.assert_close(align(codes), own, rtol=0, atol=1e-4)
    # with fewer pairs than dimensions: what lies in their plane, and nothing of the rest
    align = procrustes(codes[:8], own[:8], mean, own_mean)
    torch.testing.assert_close(align(codes[:8]), own[:8], rtol=0, atol=1e-4)
    across = codes - codes @ torch.linalg.pinv(codes[:8]) @ codes[:8]
    torch.testing.assert_close(align(across), torch.ones_like(across), rtol=0, atol=1e-4)


def test_a_permutation_is_found_without_pairs(generator):
    order, signs = torch.randperm(24, generator=generator), torch.randn(24, generator=generator).sign()
    own = sources(8000, 24, generator)
    codes = torch.empty(8000, 24)
    codes[:, order] = signs * sources(8000, 24, generator)
    found = match_axes(codes, own)
    wanted = torch.zeros(24, 24, dtype=torch.float64)
    wanted[order, torch.arange(24)] = signs.double()
    assert (found == wanted).all(0).float().mean() > 0.9
    align = unpaired(codes, own)
    assert F.mse_loss(align(codes), signs * codes[:, order]) < 0.3


def test_unpaired_finds_nothing_in_noise(generator):
    codes, own = (torch.randn(2000, 24, generator=generator) for _ in range(2))
    turned = unpaired(codes @ rotation(24, generator), own)(codes)
    assert F.cosine_similarity(turned, codes).mean() < 0.5


def curved(count: int, generator: torch.Generator) -> torch.Tensor:
    """Codes ``[N, 24]`` on a curved surface of four dimensions, which is the same each time and has crowds."""
    fixed = torch.Generator().manual_seed(1)
    inner, outer = 0.75 * torch.randn(4, 64, generator=fixed), torch.randn(64, 24, generator=fixed) / 8
    places = torch.empty(count, 4).exponential_(generator=generator) - 1
    return torch.tanh(places @ inner + 0.5) @ outer + 0.1 * torch.randn(count, 24, generator=generator)


@pytest.mark.parametrize("noise", [False, True])
def test_codes_of_other_images_are_turned_by_their_crowds(generator, monkeypatch, noise):
    monkeypatch.setattr(gromov_wasserstein, "CROWDED", 0.3)  # of so few codes
    codes, own = (torch.randn(1500, 24, generator=generator) if noise else curved(1500, generator) for _ in range(2))
    masks = codes @ rotation(24, generator)
    turn, own_turn = turned_by_transport(masks, own, stages=FEW_TURNS)
    agree = F.cosine_similarity(turn(masks), own_turn(codes)).mean()
    assert agree < 0.3 if noise else agree > 0.85


def test_batches_of_a_pass_share_nothing(generator):
    batches = alignment._batches(torch.arange(10)[:, None], 3, generator)
    for _ in range(20):
        of_a_pass = torch.cat([next(batches) for _ in range(3)]).flatten()
        assert len(of_a_pass.unique()) == 9


@pytest.mark.parametrize("deviation", [0.0, 0.05])
def test_masks_are_told_by_their_crowds(generator, monkeypatch, deviation):
    """Without a pair, masks are linked, and a decoder learns from images whose own codes are alike; also in noise."""
    monkeypatch.setattr(decoders, "FINE", 2000)
    monkeypatch.setattr(alignment, "_STAGES", FEW_TURNS)
    monkeypatch.setattr(gromov_wasserstein, "CROWDED", 0.3)  # of so few codes
    basis = torch.randn(24, 3 * SIZE**2, generator=generator) / 20
    back = torch.linalg.pinv(basis)

    def shown(codes: torch.Tensor) -> torch.Tensor:
        return (0.5 + codes @ basis).clamp(0, 1).view(-1, 3, SIZE, SIZE)

    public = Public(shown(curved(1500, generator)).mul(255).round().to(torch.uint8))
    own = Instance(lambda images: (images.flatten(1) - 0.5) @ back, public, Linear(24), deviation)
    with torch.no_grad():
        own.decode.linear.weight.copy_(basis.T)
        own.decode.linear.bias.fill_(0.5)
    codes = curved(1500, generator)
    masks, true = codes @ rotation(24, generator), shown(codes)
    masks += deviation * torch.randn(masks.shape, generator=generator)
    nothing = F.mse_loss(own.public.mean.expand_as(true), true)
    guessed = alignment.guessed_pairs(masks, own, None)[0].images.unflatten(0, (len(masks), -1))
    assert F.mse_loss(guessed, true[:, None].expand_as(guessed)) < 0.7 * nothing
    order = torch.randperm(100, generator=generator)
    candidates = {"set": true[:100][order]}
    knowledge = Knowledge(masks={"set": masks[:100]}, collection=masks, public=public, own=own, candidates=candidates)
    pictures = alignment.similar_from_guessed_pairs(knowledge)["set"]
    assert F.mse_loss(pictures, true[:100]) < 0.5 * nothing
    found_ranks = ranks_of(reidentification.from_masks_by_alignment(knowledge)["set"], order.argsort())
    assert (found_ranks == 1).double().mean() > 0.5


class Linear(nn.Module):
    """Codes to pictures."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, 3 * SIZE**2)

    def forward(self, codes):
        return self.linear(codes).view(-1, 3, SIZE, SIZE)


def test_the_inverse_decoder_learns_and_never_loses(generator):
    images = natural(400, generator)
    mask = torch.randn(3 * SIZE**2, 60, generator=generator) / 10
    codes = (images.flatten(1) - 0.5) @ mask
    start = Linear(60)
    with torch.no_grad():
        start.linear.weight.copy_(torch.linalg.lstsq(codes, images.flatten(1) - 0.5).solution.T)
        start.linear.bias.fill_(0.48)  # all but right
    before = [parameter.clone() for parameter in start.parameters()]
    align = Ridge(codes[:300], torch.zeros(60)).fit(codes[:300], torch.zeros(60))
    decode = inverse_decoder(codes[:300], images[:300], start, align)
    with torch.no_grad():
        assert F.mse_loss(decode(codes[300:]), images[300:]) < 0.5 * F.mse_loss(start(codes[300:]), images[300:])
    assert all(torch.equal(old, new) for old, new in zip(before, start.parameters(), strict=True))


def test_the_scratch_decoder_learns_what_a_linear_one_cannot_and_nothing_of_noise(generator):
    numbers = torch.randn(1100, 3, 2, 2, generator=generator)
    images = (0.5 + 0.15 * F.interpolate(numbers, SIZE, mode="bilinear")).clamp(0, 1)
    projection = torch.randn(3 * SIZE**2, 12, generator=generator)
    mean, secret = images[:1000].mean(0), slice(1000, 1100)

    def errors(codes: torch.Tensor, pairs: int = 1000) -> tuple[float, float]:
        """Of ridge regression and of the decoder, in units of the mean image's."""
        known = slice(0, pairs)
        ridge = Ridge(codes[known], codes[known].mean(0)).fit(images[known].flatten(1), mean.flatten())
        decode = scratch_decoder(codes[known], images[known], epochs=10)
        rebuilt = [ridge(codes[secret]).view(-1, 3, SIZE, SIZE), decode(codes[secret])]
        of_mean = F.mse_loss(mean.expand(100, -1, -1, -1), images[secret])
        return tuple((F.mse_loss(some, images[secret]) / of_mean).item() for some in rebuilt)

    linear, found = errors((images.flatten(1) - 0.5) @ projection, 300)
    assert found < linear + 0.01 and found < 0.05
    bent = torch.cat((numbers.flatten(1) ** 3, torch.zeros(1100, 1)), 1)  # and a category that no image has
    linear, found = errors(bent)
    assert found < 0.6 * linear
    assert errors(torch.randn(1100, 12, generator=generator), 300)[1] > 0.98


def test_the_scratch_decoder_is_the_same_each_time(generator):
    images, codes = natural(40, generator), torch.randn(40, 12, generator=generator)
    before = torch.get_rng_state()
    first, second = (scratch_decoder(codes, images, epochs=10)(codes) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), before)
    assert first.shape == images.shape and not first.requires_grad


def test_gradient_inversion_of_a_linear_encoder(generator):
    images = natural(8, generator)
    mask = torch.randn(3 * SIZE**2, 3 * SIZE**2, generator=generator) / 28
    start = torch.full((3, SIZE, SIZE), 0.5)
    codes = (images.flatten(1) - 0.5) @ mask
    found = gradient_inversion(lambda x: (x.flatten(1) - 0.5) @ mask, codes, start, steps=400)
    assert F.mse_loss(found, images) < 0.02 * images.var()


def test_noise_tells_no_more_than_the_mean_image(generator):
    images = natural(300, generator)
    codes, mean = torch.randn(300, 50, generator=generator), images.mean(0)
    known, secret = slice(0, 200), slice(200, 300)
    ridge = Ridge(codes[known], torch.zeros(50))
    of_mean = F.mse_loss(mean.expand(100, -1, -1, -1), images[secret])
    rebuilt = ridge.fit(images[known].flatten(1), mean.flatten())(codes[secret]).view(-1, 3, SIZE, SIZE)
    assert F.mse_loss(rebuilt, images[secret]) > 0.99 * of_mean
    centred = images.flatten(1) - mean.flatten()
    components = torch.linalg.svd(centred, full_matrices=False)[2][:50] * centred.norm() / 300**0.5 / 50**0.5
    back, _ = wiener(images[known].flatten(1), codes[known], mean.flatten(), components, codes)
    assert F.mse_loss(back(codes[secret]).view(-1, 3, SIZE, SIZE), images[secret]) > 0.97 * of_mean
    projection = torch.randn(3 * SIZE**2, 50, generator=generator)
    own = centred @ projection
    rebuild = Ridge(own, torch.zeros(50)).fit(images.flatten(1), mean.flatten())
    inverted = gradient_inversion(
        lambda x: (x.flatten(1) - mean.flatten()) @ projection, 10 * codes[secret], mean, steps=100
    )
    assert F.mse_loss(inverted, images[secret]) > 0.97 * of_mean
    start = Linear(50)
    with torch.no_grad():
        start.linear.weight.copy_(torch.linalg.lstsq(own, centred).solution.T)
        start.linear.bias.copy_(mean.flatten())
    decode = inverse_decoder(codes[known], images[known], start, ridge.fit(own[known], torch.zeros(50)))
    assert F.mse_loss(decode(codes[secret]), images[secret]) > 0.97 * of_mean
    for align in (
        ridge.fit(own[known], torch.zeros(50)),
        procrustes(codes[known], own[known], torch.zeros(50), torch.zeros(50)),
        unpaired(codes, own),
    ):
        rebuilt = rebuild(align(codes[secret])).view(-1, 3, SIZE, SIZE)
        assert F.mse_loss(rebuilt, images[secret]) > 0.97 * of_mean


@pytest.mark.parametrize("seed", range(6))
def test_categories_give_a_key_away(seed):
    """Of normal numbers, whose axes nothing tells apart, but categories that differ in mean and covariance."""
    generator = torch.Generator().manual_seed(seed)
    shares, width = torch.tensor([0.4, 0.3, 0.2, 0.1]), 8
    means, spreads = torch.randn(4, width, generator=generator), 0.5 * torch.randn(4, width, width, generator=generator)

    def draw(count: int, told: bool) -> torch.Tensor:
        category = torch.multinomial(shares, count, True, generator=generator)
        numbers = torch.randn(count, width, generator=generator)
        if told:
            numbers = (numbers[:, None] @ spreads[category])[:, 0] + means[category]
        return torch.cat((numbers, torch.eye(4)[category]), 1)

    transform = KeyedTransform(bytes(32), width, 4)
    for told in (True, False):
        codes, own = draw(4000, told), draw(6000, told)
        keyed = torch.cat(transform.apply(*codes.split((width, 4), 1)), 1)
        found = unkeyed(keyed, own)(keyed)
        left = F.mse_loss(found[:, :width], codes[:, :width]) / codes[:, :width].var()
        assert left < 0.02 and torch.equal(found[:, width:], codes[:, width:]) if told else left > 1


def test_attributes_are_learned_where_they_are(generator):
    labels = torch.randint(4, (600,), generator=generator)
    codes = torch.randn(600, 20, generator=generator)
    noise = attribute(codes[:400], labels[:400], codes[400:]) == labels[400:]
    assert abs(noise.float().mean() - 0.25) < 0.12
    codes[torch.arange(600), labels] += 4
    assert (attribute(codes[:400], labels[:400], codes[400:]) == labels[400:]).float().mean() > 0.9


@pytest.mark.parametrize("sign", [1, -1])
def test_membership(generator, sign):
    noise = [sign * torch.rand(2000, 2, generator=generator) for _ in range(2)]
    same = membership(*noise)
    assert len(same) == 2000 and abs(same.float().mean() - 0.5) < 0.05
    noise[1][:, 1] += sign * 0.9  # only the second number tells
    assert membership(*noise).float().mean() > 0.85


NUMBERS, SMALL = 12, 8  # of a code; the side of its images
PARTS = 2  # the patches a side that such a picture has


class Planted:
    """Pictures of 12 skewed numbers, and codes that are these numbers: as they are, or in a secret order with signs."""

    def __init__(self, generator: torch.Generator):
        patches = torch.eye(NUMBERS).view(NUMBERS, 3, PARTS, PARTS)
        axes = F.interpolate(patches, SMALL, mode="bilinear").flatten(1)
        self.basis = torch.linalg.qr(axes.T)[0].T  # orthonormal, smooth
        self.order, self.signs = (
            torch.randperm(NUMBERS, generator=generator),
            torch.randn(NUMBERS, generator=generator).sign(),
        )

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        numbers = sources(count, NUMBERS, generator)
        return (0.5 + 0.1 * numbers @ self.basis).clamp(0, 1).view(-1, 3, SMALL, SMALL)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return 10 * (images.flatten(1) - 0.5) @ self.basis.T

    def turned(self, images: torch.Tensor) -> torch.Tensor:
        return self.signs * self.encode(images)[:, self.order]


class PlantedDecoder(nn.Module):
    def __init__(self, planted: Planted):
        super().__init__()
        self.linear = nn.Linear(NUMBERS, 3 * SMALL**2)
        self.linear.weight.data, self.linear.bias.data = planted.basis.T / 10, torch.full((3 * SMALL**2,), 0.5)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return self.linear(codes).view(-1, 3, SMALL, SMALL)


@pytest.fixture(scope="module")
def scene() -> tuple[Planted, Public, Instance, Instance]:
    """What was planted, public images, the attacker's own instance and the stolen one: he learns from them once."""
    generator = torch.Generator().manual_seed(0)
    planted = Planted(generator)
    public = Public(planted.draw(1200, generator).mul(255).round().to(torch.uint8))
    own = Instance(planted.encode, public, PlantedDecoder(planted))
    return planted, public, own, Instance(planted.encode, public)


@functools.cache
def made(planted: Planted, turned: bool, noise: bool, known: int) -> SimpleNamespace:
    """Images, codes and the truth, of which attacks are given some: those of one threat learn from the same once."""

    def mask(images: torch.Tensor, again: bool = False) -> torch.Tensor:
        codes = (planted.turned if turned or again else planted.encode)(images)
        return 3 * torch.randn(codes.shape, generator=generator) if noise else codes

    generator = torch.Generator().manual_seed(0)
    secret, images, others = (planted.draw(count, generator) for count in (100, known, 5000))
    order = torch.randperm(100, generator=generator)
    labels = planted.encode(images)[:, 0] > planted.encode(images)[:, 1]
    told = 0.0 if noise else 3.0  # how much more members' codes differ
    members = torch.randn(400, 2, generator=generator), torch.randn(400, 2, generator=generator) + told
    return SimpleNamespace(
        mask=mask,
        masks={"set": mask(secret)},
        collection=mask(others),
        candidates={"set": secret[order]},
        pairs=Pairs(mask(images), images),
        second={"set": mask(secret[order], again=True)},
        labelled=Labelled(mask(images), labels.long(), "set"),
        membership=Membership(members[0][:200], members[1][:200], torch.cat([x[200:] for x in members]), "set"),
        truth={
            "images": secret,
            "places": order.argsort(),
            "labels": (planted.encode(secret)[:, 0] > planted.encode(secret)[:, 1]).long(),
            "members": torch.arange(400) < 200,
        },
    )


def given(attack: plan.Attack, scene: tuple, noise: bool) -> tuple[Knowledge, dict[str, torch.Tensor]]:
    """What an attack of the table may know, and the truth; of ``noise``, masks say nothing of the images.

    Where the attacker has to find out how the owner's codes lie to his own, they are turned.
    """
    planted, public, own, stolen = scene
    turned = attack.threat in ("known-pairs", "oracle") or attack.name == "unpaired" or attack.masks is plan.keyed
    # who answers with a known image needs many
    parts = made(planted, turned, noise, 3000 if attack.name == "retrieval" else 300)
    knowledge = Knowledge(
        masks=parts.masks,
        collection=parts.collection,
        candidates=parts.candidates,
        public=public,
        own=own,
        pairs=parts.pairs if attack.pairs is not plan.none else None,
        oracle=limited_oracle(parts.mask, 12) if attack.threat == "oracle" else None,
        stolen=stolen if attack.threat == "stolen-encoder" else None,
        second=parts.second if attack.threat == "two-releases" else None,
        labelled=parts.labelled,
        membership=parts.membership,
    )
    return knowledge, parts.truth


def found(attack: plan.Attack, knowledge: Knowledge, truth: dict[str, torch.Tensor]) -> float:
    """1 where an attack finds everything out, about 0 where it does no better than chance."""
    result = attack.run(knowledge)["set"]
    if attack.kind is scores.RECONSTRUCTION:
        images = truth["images"][: len(result)]
        of_mean = F.mse_loss(knowledge.public.mean.expand_as(images), images)
        return 1 - (F.mse_loss(result, images) / of_mean).item()
    if attack.kind in (scores.REIDENTIFICATION, scores.RELEASES):
        return (ranks_of(result, truth["places"]) == 1).double().mean().item()
    truth = truth["labels" if attack.kind is scores.ATTRIBUTE else "members"]
    return 2 * (result == truth).double().mean().item() - 1


# one of each function and threat: linkage runs the functions of re-identification
DIFFERENT = list({(attack.run, attack.threat): attack for attack in reversed(plan.ATTACKS)}.values())


def each_of(attacks: list[plan.Attack]):
    ids = [f"{attack.threat}-{attack.name}-{attack.run.__name__}" for attack in attacks]
    return pytest.mark.parametrize("attack", attacks, ids=ids)


# these need crowds, of which these numbers have none: see test_masks_are_told_by_their_crowds
BY_CROWDS = (alignment.similar_from_guessed_pairs, reidentification.from_masks_by_alignment)


@each_of([attack for attack in DIFFERENT if attack.run not in BY_CROWDS or attack.threat != "masks-only"])
@torch.no_grad()
def test_every_attack_of_the_table_finds_what_is_planted(scene, attack):
    assert found(attack, *given(attack, scene, noise=False)) > 0.6


@each_of(DIFFERENT)
@torch.no_grad()
def test_every_attack_of_the_table_finds_nothing_in_noise(scene, attack, monkeypatch):
    monkeypatch.setattr(alignment, "_STAGES", FEW_TURNS)
    # chance names one of a hundred; answers of yes or no are few
    most = {scores.RECONSTRUCTION: 0.03, scores.REIDENTIFICATION: 0.06, scores.RELEASES: 0.06}.get(attack.kind, 0.25)
    assert found(attack, *given(attack, scene, noise=True)) < most


class Shrinking(nn.Module):
    """As a decoder of codes in noise: the mean of what was released, as an image."""

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return (0.5 * codes / 10 + 0.5).view(-1, 3, 2, 2)


@pytest.mark.parametrize(
    "attack",
    [ridge.latent_from_pairs, alignment.own_from_pairs],
    ids=lambda a: a.__name__,
)
def test_codes_in_noise_are_shrunk_towards_the_mean_once(generator, attack):
    """Of y = a x + sqrt(1 - a^2) e with normal x, the mean of x is a y: with a = 1/2, half of each number."""

    def encode(images: torch.Tensor) -> torch.Tensor:
        return 0.5 * (images.flatten(1) - 0.5) * 10

    def images(count: int) -> torch.Tensor:
        return torch.randn(count, 3, 2, 2, generator=generator) / 10 + 0.5

    def masks(images: torch.Tensor) -> torch.Tensor:
        return encode(images) + 0.75**0.5 * torch.randn(len(images), 12, generator=generator)

    public = Public(images(4000).clamp(0, 1).mul(255).round().to(torch.uint8))
    own, known = Instance(encode, public, Shrinking(), 0.75**0.5), images(4000)
    secret = masks(images(500))
    knowledge = Knowledge({"set": secret}, masks(images(4000)), public, own, pairs=Pairs(masks(known), known))
    found = 10 * (attack(knowledge)["set"].flatten(1) - 0.5)
    slope = (found * secret).sum() / secret.square().sum()
    assert slope == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("pairs", [5, 40])
def test_procrustes_is_that_of_the_whole_decomposition(generator, pairs):
    codes, own = (torch.randn(pairs, 30, generator=generator, dtype=torch.float64) for _ in range(2))
    zero = torch.zeros(30, dtype=torch.float64)
    left, values, right = torch.linalg.svd(codes.T @ own)
    rank = min(pairs, 30)
    rotation = values.sum() / codes.square().sum() * left[:, :rank] @ right[:rank]
    torch.testing.assert_close(procrustes(codes, own, zero, zero)(torch.eye(30, dtype=torch.float64)), rotation)


def test_the_nearest_is_found_in_parts(generator, monkeypatch):
    codes, others = torch.randn(30, 5, generator=generator), torch.randn(200, 5, generator=generator)
    wanted = torch.cdist(codes, others).argsort(1)
    assert torch.equal(retrieval.nearest(codes, others), wanted[:, :1])
    monkeypatch.setattr(retrieval, "_NUMBERS", 5 * 7)  # seven at once
    assert torch.equal(retrieval.nearest(codes, others, 3), wanted[:, :3])
    pixels = torch.randint(256, (200, 5), generator=generator, dtype=torch.uint8)
    assert torch.equal(retrieval.nearest(pixels[50:80] / 255, pixels)[:, 0], torch.arange(50, 80))
