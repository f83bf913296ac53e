"""Masks in noise: what is released, what it proves, and that attackers stay below the bound."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from maskbench import inspect
from maskbench.data import masked_set
from maskbench.errors import InputError
from maskbench.leakage import bounds
from maskbench.masking import key
from maskbench.masking.method import MaskingMethod
from maskbench.masking.noise import Noised, secret_order
from maskbench.storage import pt

SECRET = bytes(range(32))
PINNED = [
    1.2402558288067578,
    0.49728070205348746,
    1.8135514251764189,
    0.9454012708004794,
    -0.33717984932353134,
    -1.4087811577185656,
    0.03648831797580448,
]
FACTOR = 1.2  # of the bound over what is attained, at most


class FirstPixels(MaskingMethod):
    """The first numbers of an image, far beyond the radius where an image is bright; and its brightest channel."""

    name, image_size, widths, fingerprint = "toy", 8, (7, 3), "0" * 64

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return 1.9 * images.flatten(1)[:, :7], torch.eye(3)[images.mean((2, 3)).argmax(1)]


@pytest.fixture
def images() -> Tensor:
    bytes_ = torch.randint(256, (400, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    return bytes_ / 255


def test_what_is_released(images):
    code, _ = FirstPixels().encode(images)
    clipped = code * (7**0.5 / code.norm(dim=1, keepdim=True)).clamp_max(1)
    assert (code.norm(dim=1) > 7**0.5).any() and (code.norm(dim=1) < 7**0.5).any()
    for kept in (0.0, 0.6, 1.0):
        method = Noised(FirstPixels(), kept, SECRET)
        gaussian, categorical = method.encode(images)
        assert method.widths == (7, 0) and categorical.shape == (400, 0)
        noise = method.noise(clipped)
        # to the bit: noise that was rounded before it is added would tell codes apart by what cannot come out
        assert torch.equal(gaussian, (kept * clipped.double() + (1 - kept**2) ** 0.5 * noise).float())
    assert torch.equal(gaussian, clipped)  # of all, nothing is noise


def test_the_noise_is_normal_and_each_codes_own():
    codes = torch.randn(400, 383, generator=torch.Generator().manual_seed(0))
    noise = Noised(FirstPixels(), 0.6, SECRET).noise(codes)
    assert noise.dtype == torch.float64
    assert kstest(noise.flatten()[::7].numpy(), "norm").pvalue > 1e-3
    assert (noise.T.corrcoef() - torch.eye(383)).abs().max() < 5.5 / 400**0.5
    assert (noise.corrcoef() - torch.eye(400)).abs().max() < 5.5 / 383**0.5
    assert (noise * codes).sum().abs() < 5 * codes.numel() ** 0.5
    # pinned, by hashlib and math alone: another machine or version adds the same
    found = Noised(FirstPixels(), 0.6, SECRET).noise(torch.zeros(1, 7))[0]
    torch.testing.assert_close(found, torch.tensor(PINNED, dtype=torch.float64))


def test_what_noise_depends_on():
    codes = torch.randn(100, 7, generator=torch.Generator().manual_seed(0))
    method = Noised(FirstPixels(), 0.6, SECRET)
    noise = method.noise(codes)
    assert torch.equal(noise[50:60], method.noise(codes[50:60]))  # not on the batch, nor on the place in it
    rounded = codes[:1].clone()
    rounded[0, 6] = torch.nextafter(rounded[0, 6], torch.tensor(9.0))
    other_encoder = FirstPixels()
    other_encoder.fingerprint = "1" * 64
    others = (
        Noised(FirstPixels(), 0.6, bytes(32)).noise(codes[:1]),
        Noised(FirstPixels(), 0.600001, SECRET).noise(codes[:1]),
        Noised(other_encoder, 0.6, SECRET).noise(codes[:1]),
        method.noise(rounded),
        noise[1:2],
    )
    draws = torch.cat((noise[:1], *others))
    assert torch.cdist(draws, draws).add(torch.eye(6) * 9).min() > 0.5


def test_the_owner_rebuilds_from_the_mean(images):
    method = FirstPixels()
    method.rebuild = lambda gaussian, categorical: torch.cat((gaussian, categorical), 1)
    rebuilt = Noised(method, 0.5, SECRET).rebuild(torch.ones(2, 7), torch.ones(2, 0))
    assert torch.equal(rebuilt, torch.tensor([[0.5] * 7 + [0.0] * 3] * 2))


def test_the_bound_in_closed_form():
    for candidates in (2, 10, 1000):
        assert bounds.naming_bound(0, 16, 1, candidates) == pytest.approx(1 / candidates)
        assert bounds.naming_bound(1, 16, 1, candidates) == 1
    # a = 0.6, G = 16, 1 view: R / sigma = 3, and Phi(-3.0902 + 3) = 0.4641
    assert bounds.naming_bound(0.6, 16, 1, 1000) == pytest.approx(0.4641, abs=1e-4)
    assert bounds.naming_bound(0.6, 4, 4, 1000) == bounds.naming_bound(0.6, 16, 1, 1000)  # sqrt(v) R
    assert bounds.naming_bound(0.6, 16, 1, 2) == pytest.approx(0.99865, abs=1e-5)  # Phi(3)


ONE_VIEW = [(kept, 1) for kept in (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)]


@pytest.mark.parametrize(("kept", "views"), [*ONE_VIEW, (0.1, 5), (0.02, 20)])
def test_the_best_attacker_stays_below_the_bound(kept, views):
    """Planted codes, as far apart as clipping allows; the nearest to the mean of the views is the likeliest."""
    generator = torch.Generator().manual_seed(0)
    size, candidates, trials = 128, 128, 20_000
    codes = size**0.5 * torch.eye(size)
    truth = torch.randint(candidates, (trials,), generator=generator)
    released = kept * codes[truth]
    noise = torch.randn(trials, size, generator=generator) / views**0.5  # of the mean
    guess = ((released + (1 - kept**2) ** 0.5 * noise) @ codes.T).argmax(1)
    named = (guess == truth).float().mean().item()
    bound = bounds.naming_bound(kept, size, views, candidates)
    error = (bound * (1 - bound) / trials) ** 0.5
    assert named <= bound + 3 * error
    assert bound < FACTOR * named, (bound, named)


def impossible(released: Tensor, means: Tensor, deviation: float) -> Tensor:
    """How many numbers of a mask ``[G]`` no float32 noise makes of each candidate's mean ``[N, G]``, added in float32.

    Only some numbers can come of a mean, and others of another (Mironov, "On significance of the least significant bits
    for differential privacy", CCS 2012).
    """

    def neighbours(x: Tensor) -> tuple[Tensor, ...]:
        return x, *(torch.nextafter(x, torch.full_like(x, way)) for way in (-math.inf, math.inf))

    possible = torch.zeros_like(means, dtype=torch.bool)
    for added in neighbours((released.double() - means.double()).float()):
        for noise in neighbours((added.double() / deviation).float()):
            possible |= means + deviation * noise == released
    return (~possible).sum(1)


def test_rounding_names_no_code():
    """Candidates too far under the noise to be named, and a mask whose last bits say which of them it is not."""
    kept, candidates = 0.02, 100
    deviation = (1 - kept**2) ** 0.5
    method = Noised(FirstPixels(), kept, SECRET)
    codes = torch.randn(candidates, 320, generator=torch.Generator().manual_seed(0))
    means, noise = kept * codes, method.noise(codes)
    named = {}
    for where, released in {
        "float32": means + deviation * noise.float(),
        "float64": method.add_noise(codes).float(),
    }.items():
        least = torch.stack([impossible(mask, means, deviation).double() for mask in released])
        named[where] = (least.argmin(1) == torch.arange(candidates)).double().mean().item()
    assert named["float32"] > 0.9  # the attack finds what was planted
    bound = bounds.naming_bound(kept, 320, 1, candidates)
    assert named["float64"] <= bound + 3 * (bound * (1 - bound) / candidates) ** 0.5


def test_bits_are_the_capacity_of_the_noise():
    assert bounds.mask_bits(0, 320) == 0 and bounds.mask_bits(1, 320) == math.inf
    assert bounds.mask_bits(0.6, 2) == pytest.approx(math.log2(1 / 0.64))  # two numbers, half a logarithm each
    # no code of the same length tells more: the sum over the eigenvalues of its covariance
    for variances in ([2.0, 0.0], [1.5, 0.5], [1.0, 1.0], [0.5, 0.1]):
        told = 0.5 * sum(math.log2(1 + 0.36 * variance / 0.64) for variance in variances)
        assert told <= bounds.mask_bits(0.6, 2) + 1e-12


def test_masks_in_noise(run_here, workplace, tmp_path, capsys):
    for name in ("noise", "owner"):
        key.create(tmp_path / f"{name}.key")
    encoder = workplace / "runs" / "aae" / "0" / "encoder.pt"
    arguments = ("--dataset", "digits", "--encoder", encoder, "--limit", 400, "--augment", "shift", "--copies", 2)
    noise = ("--noise", 0.05, "--noise-secret", "noise.key")
    run_here("mask_dataset.py", *arguments, *noise)
    bound = bounds.stated(0.05, 384, 3)
    assert f"masked/digits-noise.pt: {bound}" in capsys.readouterr().out
    data = masked_set.load(tmp_path / "masked" / "digits-noise.pt")
    assert (data.method, data.base_method, data.kept) == ("aae+noise0.05", "aae", 0.05)
    assert data.gaussian.shape == (1300, 384) and data.categorical.shape == (1300, 0)
    assert data.gaussian.std() == pytest.approx(1, abs=0.01)
    content = (tmp_path / "masked" / "digits-noise.pt").read_bytes()
    secret = (tmp_path / "noise.key").read_text().strip()
    assert secret.encode() not in content and bytes.fromhex(secret) not in content

    # the same code, the same noise: finished shards are kept
    for kept in (0, 2):
        run_here("mask_dataset.py", *arguments, *noise, "--shards", 2, "--output", "masked/two.pt")
        assert f"{kept} of 2 were finished" in capsys.readouterr().out
    said = str(inspect.describe(tmp_path / "masked" / "digits-noise.pt"))
    assert bound in said and "bits of its image" in said

    run_here("mask_dataset.py", *arguments, *noise, "--key", "owner.key")
    turned = masked_set.load(tmp_path / "masked" / "digits-noise-key.pt")
    assert (turned.method, turned.kept) == ("aae+noise0.05+key", 0.05)
    run_here("classify.py", "--masked", "masked/digits-noise-key.pt", "--classes", 3, "--repeats", 1, "--epochs", 1)


def test_the_order_of_the_images_says_nothing(run_here, workplace, tmp_path):
    (tmp_path / "noise.key").write_text(SECRET.hex())
    (tmp_path / "noise.key").chmod(0o600)
    arguments = ("--dataset", "digits", "--encoder", workplace / "runs" / "aae" / "0" / "encoder.pt", "--limit", 400)
    run_here("mask_dataset.py", *arguments)
    plain = masked_set.load(tmp_path / "masked" / "digits.pt")
    codes = plain.gaussian * (384**0.5 / plain.gaussian.norm(dim=1, keepdim=True)).clamp(max=1)
    copies = ("--augment", "shift", "--copies", 1)
    orders = []
    for kept, flags in ((1, ()), (1, ("--shards", 3)), (0.9, ())):  # so little noise that one sees who is who
        run_here("mask_dataset.py", *arguments, *copies, "--noise", kept, "--noise-secret", "noise.key", *flags)
        data = masked_set.load(tmp_path / "masked" / "digits-noise.pt")
        (tmp_path / "masked" / "digits-noise.pt").unlink(missing_ok=True)
        order = torch.cdist(data.features(torch.arange(500)), kept * codes).argmin(1)
        for part, rows in ((order[:400], torch.arange(400)), (order[400:], torch.arange(400, 500))):
            assert torch.equal(part.sort().values, rows) and (part == rows).sum() < 10
        assert torch.equal(data.labels, plain.labels[torch.cat((order, order[:400]))])
        assert torch.equal(data.split, plain.split[torch.cat((order, order[:400]))])
        assert torch.equal(data.source, torch.cat((torch.arange(500), torch.arange(400))))
        orders.append(order)
    for path in (tmp_path / "masked").glob("digits-noise-*"):
        path.unlink()
    assert torch.equal(orders[0], orders[1])  # whatever the shards
    assert (orders[0] == orders[2]).sum() < 10  # another release has another order, and tells nothing of this one
    assert not torch.equal(secret_order(SECRET, "a", 400), secret_order(SECRET, "b", 400))
    assert not torch.equal(secret_order(SECRET, "a", 400), secret_order(bytes(32), "a", 400))


def test_the_noise_has_a_secret_of_its_own(complaint, tmp_path):
    for name in ("owner.key", "copy.key"):
        (tmp_path / name).write_text(SECRET.hex())
        (tmp_path / name).chmod(0o600)
    flags = ("--dataset", "digits", "--method", "identity", "--noise", 0.5)
    assert "copy.key: is the --key, too" in complaint(
        "mask_dataset.py", *flags, "--key", "owner.key", "--noise-secret", "copy.key"
    )


@pytest.mark.parametrize(
    ("flags", "naming"),
    [
        (("--noise", 1.5), "--noise: 1.5 is not within 0 and 1"),
        (("--noise", "much"), "--noise: 'much' is not a number"),
        (("--noise", "nan"), "--noise: nan is not within 0 and 1"),
        (("--noise", 0.1234567), "six decimals"),
        (("--noise", 0.5), "needs --noise-secret FILE; make one with: python -m maskbench.key"),
        (("--noise-secret", "noise.key"), "without --noise"),
        (("--noise", 0.5, "--noise-secret", "missing.key"), "missing.key: no such key"),
        (("--noise", 0.5, "--noise-secret", "hello.pt"), "hello.pt: is not a key"),
    ],
)
def test_noise_that_is_refused(complaint, tmp_path, flags, naming):
    (tmp_path / "hello.pt").write_bytes(b"hello")
    (tmp_path / "hello.pt").chmod(0o600)
    assert naming in complaint("mask_dataset.py", "--dataset", "digits", "--method", "identity", *flags)
    assert not (tmp_path / "masked").exists()


@pytest.mark.parametrize("method", ["aae+noise", "aae+noise2", "aae+noise0.1234567", "aae+key+noise0.5", "aae+noise-1"])
def test_noise_that_nobody_knows_is_refused(workplace, tmp_path, method):
    content = pt.load(workplace / "masked" / "digits.pt", masked_set.FORMAT) | {"method": method}
    with pytest.raises(InputError, match="method is not the name"):
        masked_set.parse(content, tmp_path / "x.pt")
