"""Who is named by codes: where everything tells, where nothing does, and by what neither rotation nor map hides."""

import math

import pytest
import torch
import torch.nn.functional as F
from attacks_common import natural, ranks, rotation, sources

from maskbench.leakage.attacks import gromov_wasserstein, reidentification
from maskbench.leakage.attacks.gromov_wasserstein import SURE, matched_by_transport
from maskbench.leakage.attacks.reidentification import (
    accepted,
    distances,
    mahalanobis,
    matched_in_turns,
    named_once,
    ranks_of,
    turned_by_profiles,
)
from maskbench.leakage.knowledge import Instance, Knowledge


def named(found: torch.Tensor, places: torch.Tensor) -> float:
    return (ranks_of(found, places) == 1).double().mean().item()


def test_reidentification_is_sure_of_pixels_and_chance_on_noise(generator):
    pixels = natural(1000, generator).flatten(1)
    assert (ranks(pixels, pixels) == 1).all()
    noise = ranks(torch.randn(1000, 30, generator=generator), torch.randn(1000, 30, generator=generator))
    assert (noise == 1).float().mean() < 0.006  # 1 of 1,000 is expected, more than 5 once in 1,500 times
    assert abs(noise.mean() - 500.5) < 4 * 1000 / 12**0.5 / 1000**0.5
    assert (ranks(torch.zeros(9, 2), torch.zeros(9, 2)) == 5).all()  # all alike: the middle


def test_mahalanobis_distances_leave_out_what_is_not_told(generator):
    def noise(count: int) -> torch.Tensor:
        return 3 * torch.randn(count, 10, generator=generator) @ mixture

    mixture = torch.randn(10, 30, generator=generator)
    codes = torch.randn(500, 30, generator=generator)
    told = codes + noise(500)
    assert (ranks(told, codes) == 1).double().mean() < 0.1
    for count, least in ((1000, 0.9), (100, 0.5)):  # of few errors, less is known
        weigh = mahalanobis(noise(count) + 0.1 * torch.randn(count, 30, generator=generator))
        assert (ranks(weigh(told), weigh(codes)) == 1).double().mean() > least
    nothing = mahalanobis(torch.zeros(5, 30))
    assert (ranks(nothing(codes), nothing(codes)) == 1).all()


def test_the_right_way_to_compare_names_every_candidate(generator):
    codes = torch.randn(500, 30, generator=generator)
    assert named_once(distances(codes + 0.1, codes)) == 1
    assert named_once(distances(torch.randn(500, 30, generator=generator), codes)) < 0.7


def test_a_rotation_hides_no_identity_among_candidates(generator):
    candidates = 3 * sources(300, 24, generator)
    order = torch.randperm(300, generator=generator)
    codes = candidates @ rotation(24, generator) + 0.05 * torch.randn(300, 24, generator=generator)
    turned = turned_by_profiles(codes[order], candidates)  # knows no order
    back = torch.empty_like(turned)
    back[order] = turned
    assert (ranks(back, candidates) == 1).double().mean() > 0.95
    noise = turned_by_profiles(torch.randn(300, 24, generator=generator), candidates)
    assert (ranks(noise, candidates) == 1).double().mean() < 0.05


def test_a_rotation_that_only_confirms_its_own_pairs_is_not_taken_for_right(generator):
    """Of codes as long as the audit's: fitted to wrong pairs, a rotation brought each code nearest to its partner."""
    codes = torch.randn(600, 320, generator=generator)
    order = torch.randperm(600, generator=generator)
    first, second = (0.5 * codes + 0.75**0.5 * torch.randn(600, 320, generator=generator) for _ in range(2))
    knowledge = Knowledge({"set": first[order]}, first, None, None, {}, second={"set": second})
    assert named(reidentification.from_releases(knowledge)["set"], order) > 0.7
    assert named_once(distances(turned_by_profiles(first[order], second), second)) < 0.7


def test_a_linear_map_hides_no_identity_among_candidates(generator):
    candidates = 3 * sources(300, 24, generator)
    order = torch.randperm(300, generator=generator)
    bent = torch.diag(torch.linspace(0.3, 1, 24)) @ rotation(24, generator)
    found = matched_in_turns((candidates @ bent)[order], candidates)
    assert named(found, order) > 0.95
    noise = matched_in_turns(torch.randn(300, 24, generator=generator), candidates)
    assert named(noise, order) < 0.05


def alike(generator: torch.Generator, own: float, width: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of 300 images by two encoders, ``[300, 2 width]``: half is shared, ``own`` scales the rest, all turned."""
    shared = torch.randn(300, width, generator=generator)
    one, two = (
        torch.cat((shared, own * torch.randn(300, width, generator=generator)), 1) @ rotation(2 * width, generator)
        for _ in range(2)
    )
    return one, two


def test_encoders_that_share_no_direction_hide_no_identity_among_candidates(generator):
    """A third of the variance of each is its own, and both are turned."""
    codes, candidates = alike(generator, 0.6, width=100)
    order = torch.randperm(300, generator=generator)
    codes = codes[order]
    assert named(matched_by_transport(codes, candidates), order) > 0.95
    assert named(matched_in_turns(codes, candidates), order) < 0.3
    noise = torch.randn(300, 100, generator=generator)
    assert named(matched_by_transport(noise, candidates), order) < 0.05


def in_noise(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """300 codes in noise, shuffled candidates that share most of their variance, in no direction; and their order."""
    codes, candidates = alike(generator, 0.3)
    codes = 0.9 * codes + 0.436 * torch.randn(codes.shape, generator=generator)
    order = torch.randperm(300, generator=generator)
    return codes, candidates[order], order.argsort()


def test_transport_finds_masks_in_noise(generator):
    codes, candidates, places = in_noise(generator)
    assert named(matched_by_transport(codes, candidates), places) > 0.9


@pytest.mark.parametrize("densest", [0.65, 0.3, 1.0])
def test_a_plan_of_the_densest_codes_finds_the_others(generator, monkeypatch, densest):
    monkeypatch.setattr(gromov_wasserstein, "TRIES", (densest,))
    codes, candidates = alike(generator, 0.6)
    order = torch.randperm(300, generator=generator)
    assert named(matched_by_transport(codes[order], candidates), order) > 0.95


def test_the_mean_of_several_plans_is_right_where_each_is_wrong(monkeypatch):
    def found(seed: int) -> bool:
        codes, candidates = alike(torch.Generator().manual_seed(seed), 0.7)
        (ours, our_order), (theirs, their_order) = map(gromov_wasserstein._densest_first, (codes, candidates))
        plan = next(gromov_wasserstein._plans(ours, theirs))
        return (their_order[plan.argmax(1)] == our_order).double().mean() > 0.95

    monkeypatch.setattr(gromov_wasserstein, "TRIES", (1.0,))
    together = sum(map(found, (0, 4, 5)))
    monkeypatch.setattr(gromov_wasserstein, "AVERAGED", 1)
    assert together == 3 and sum(map(found, (0, 4, 5))) < 2


def test_the_densest_codes_are_those_of_a_crowd(generator):
    codes = torch.randn(300, 60, generator=generator)
    crowd = torch.randperm(300, generator=generator)[:40]
    codes[crowd] += 2 * torch.randn(60, generator=generator)
    cosines, order = gromov_wasserstein._densest_first(codes @ rotation(60, generator))
    assert set(order[:40].tolist()) == set(crowd.tolist())
    directions = F.normalize((codes - codes.mean(0))[order])
    torch.testing.assert_close(cosines, (directions @ directions.T).fill_diagonal_(0), atol=1e-5, rtol=0)


def test_a_plan_that_ends_in_doubt_begins_again(generator, monkeypatch):
    codes, candidates, places = in_noise(generator)
    ours, theirs = (gromov_wasserstein._densest_first(each)[1] for each in (codes, candidates))
    good = (places[ours][:, None] == theirs).float().clamp_min(1e-9).log()
    even = torch.full_like(good, -math.log(len(good)))  # each candidate as likely as the others
    for plans, sure, share, left in (
        ((even,), SURE, 0, 0),
        ((even, good), SURE, 1, 0),
        ((good, even), SURE, 1, 1),
        ((good, even), 2, 1, 0),  # never sure, so that the best must be chosen
    ):
        plans = iter(plans)
        monkeypatch.setattr(gromov_wasserstein, "_plans", lambda *_, plans=plans: plans)
        monkeypatch.setattr(gromov_wasserstein, "SURE", sure)
        assert abs(named(matched_by_transport(codes, candidates), places) - share) < 0.05
        assert len(list(plans)) == left


def test_of_few_codes_the_plan_that_fits_best_is_taken_not_the_first_sharp_one(generator, monkeypatch):
    codes = torch.randn(30, 60, generator=generator)
    places = torch.randperm(30, generator=generator)
    real = gromov_wasserstein._plans
    monkeypatch.setattr(gromov_wasserstein, "TRIES", (0.45, 1.0))
    wrong = torch.eye(30)[torch.randperm(30, generator=generator)].clamp_min(1e-9).log()
    monkeypatch.setattr(gromov_wasserstein, "_plans", lambda *cosines: iter((wrong, *real(*cosines))))
    candidates = (codes + 0.3 * torch.randn(30, 60, generator=generator))[places] @ rotation(60, generator)
    assert named(matched_by_transport(codes, candidates), places.argsort()) == 1
    monkeypatch.setattr(gromov_wasserstein, "FEW", 0)
    assert named(matched_by_transport(codes, candidates), places.argsort()) < 0.5


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_transport_of_few_codes_and_of_equal_ones_is_finite(generator, monkeypatch, count):
    monkeypatch.setattr(gromov_wasserstein, "TRIES", (0.45, 1.0))
    codes = torch.randn(count, 5, generator=generator)
    assert torch.isfinite(matched_by_transport(codes, codes.flip(0))).all()
    equal = matched_by_transport(torch.ones(count, 5), torch.ones(count, 5))
    torch.testing.assert_close(ranks_of(equal, torch.arange(count)), torch.full((count,), (count + 1) / 2).double())


def test_in_noise_who_assigns_all_masks_at_once_names_more(generator):
    codes = torch.randn(300, 20, generator=generator)
    order = torch.randperm(300, generator=generator)
    masks = (0.7 * codes + 0.51**0.5 * torch.randn(300, 20, generator=generator))[order]
    stolen = Instance(lambda images: 0.7 * images, None)
    knowledge = Knowledge({"set": masks}, masks, None, None, {"set": codes}, stolen=stolen)
    nearest, assigned = (
        named(attack(knowledge)["set"], order)
        for attack in (reidentification.from_stolen, reidentification.from_stolen_by_assignment)
    )
    assert 0.6 < nearest < assigned - 0.03


def test_true_positives_at_a_rate_of_false_ones(generator):
    places = torch.randperm(200, generator=generator)
    noise = torch.rand(200, 200, generator=generator, dtype=torch.float64)
    assert accepted(noise, places, 0.25).mean() == pytest.approx(0.25, abs=0.1)  # nothing is known: as many true ones
    told = noise.scatter(1, places[:, None], 2.0)  # beyond all wrong ones
    assert accepted(told, places, 0.25).sum() == 0
    told[:80] = told[:80].scatter(1, places[:80, None], 0.5)  # the first 80 in the middle of the wrong ones
    assert accepted(told, places, 0.45).sum() == 0 and accepted(told, places, 0.55).sum() == 80
    # well beyond the wrong ones: whose means, which nobody knows apart from the true one, differ by chance
    told[:80] = told[:80].scatter(1, places[:80, None], -0.5)
    distant = 100 * torch.rand(200, 1, generator=generator, dtype=torch.float64)  # of a mask's own noise
    assert torch.equal(accepted(told + distant, places, 1e-3), accepted(told, places, 1e-3))
    assert torch.equal(accepted(told, places, 1e-3), (torch.arange(200) < 80).double())
