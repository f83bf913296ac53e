"""What the audit holds, what each attacker is given of it, and what is judged."""

import ast
import csv
import dataclasses
import functools
import shutil

import pytest
import torch
from conftest import ROOT

from maskbench.data import image_quality
from maskbench.data.image_set import to_float
from maskbench.errors import InputError
from maskbench.leakage import audit, perceptual, plan, report, scores, threats
from maskbench.leakage import world as world_module
from maskbench.leakage.attacks.reidentification import named_once
from maskbench.leakage.controls import CONTROLS
from maskbench.leakage.knowledge import Knowledge, Oracle, OracleRefused
from maskbench.leakage.world import Images, Victim, World
from maskbench.masking import Autoencoder
from maskbench.masking.key import Keyed, KeyedTransform
from maskbench.models import Decoder, Encoder, checkpoints
from maskbench.storage import pt
from maskbench.storage.ledger import Ledger

pytestmark = pytest.mark.usefixtures("few_steps")


def autoencoder(seed: int, **sizes: int) -> Autoencoder:
    """One that nothing has trained, for images of 16 pixels a side."""
    torch.manual_seed(seed)
    sizes = {"image_size": 16, "width": 8, "gaussian_dim": 16, "categories": 4} | sizes
    encoder, decoder = Encoder(**sizes).eval(), Decoder(**sizes).eval()
    return Autoencoder(encoder, pt.fingerprint(encoder.state_dict()), decoder)


SECRET = bytes(range(32))


def untouched() -> World:
    def some(count: int) -> torch.Tensor:
        return torch.randint(256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)

    generator = torch.Generator().manual_seed(0)
    validation, private = some(40), some(20)
    labels = torch.arange(60) % 3
    images = Images(
        judged={"photos": validation[:20], "private": private},
        label_means={name: torch.rand(20, 3, 16, 16, generator=generator) for name in ("photos", "private")},
        validation=validation,
        known={"photos": some(40), "private": some(30)},
        public=some(120),
        labelled=(some(40), labels[:40], labels[40:]),
    )
    return World(images, autoencoder(0), autoencoder(2), autoencoder(1), SECRET, 0)


@pytest.fixture(scope="module")
def shared() -> World:
    """What it makes of its images when it is asked, and its methods, are made once for all tests."""
    return untouched()


@pytest.fixture
def world(shared):
    with torch.no_grad():
        yield shared


OPTIONAL = ("candidates", "pairs", "oracle", "stolen", "labelled", "membership", "second")
ALLOWED = [  # mask, threat, pairs or queries, what the attacker has beside masks and public images
    ("aae", "masks-only", 0, set()),
    ("aae+key", "masks-only", 0, set()),
    ("aae", "known-pairs", 10, {"pairs", "labelled"}),
    ("aae+key", "known-pairs", 10, {"pairs", "labelled"}),
    ("aae", "oracle", 10, {"oracle"}),
    ("aae+key", "oracle", 10, {"oracle"}),
    ("aae", "two-releases", 0, {"second"}),
    ("aae+key", "two-releases", 0, {"second"}),
    ("aae+noise0.5", "known-pairs", 10, {"pairs", "labelled"}),
    ("aae+noise0.5", "two-releases", 0, {"second"}),
    ("aae+noise0.5", "stolen-encoder", 0, {"stolen"}),
    ("aae+noise0.5+key", "stolen-encoder", 10, {"stolen", "pairs"}),
    ("aae", "stolen-encoder", 0, {"stolen", "membership"}),
    ("untrained", "stolen-encoder", 0, {"stolen"}),
    ("random-projection", "stolen-encoder", 40, {"stolen", "labelled"}),
    ("pca", "stolen-encoder", 0, {"stolen", "membership"}),
    ("aae+key", "stolen-encoder", 0, {"stolen"}),
    ("aae+key", "stolen-encoder", 10, {"stolen", "pairs"}),
]


def reachable(root: object):
    """Everything that attributes, items and closures lead to; an oracle is a black box, which may hold the key."""
    found, left = {}, [root]
    while left:
        item = left.pop()
        if id(item) in found or isinstance(item, type):
            continue
        found[id(item)] = item
        if isinstance(item, dict):
            left += item.values()
        elif isinstance(item, (list, tuple, set)):
            left += item
        elif isinstance(item, torch.Tensor):
            left += [item._base] if item._base is not None else []
        elif isinstance(item, functools.partial):
            left += [item.func, item.args, item.keywords]
        elif not isinstance(item, Oracle):
            left += [cell.cell_contents for cell in getattr(item, "__closure__", None) or ()]
            left += [item.__self__] if hasattr(item, "__self__") else []
            left += vars(item).values() if hasattr(item, "__dict__") else []
    return list(found.values())


@pytest.mark.parametrize(("mask", "threat", "count", "allowed"), ALLOWED)
def test_an_attacker_has_what_the_threat_allows_and_nothing_else(world, mask, threat, count, allowed):
    knowledge = threats.THREATS[threat].knowledge(world, world.victim(mask), count)
    assert {name for name in OPTIONAL if getattr(knowledge, name) is not None} == allowed
    assert set(vars(knowledge)) == {*OPTIONAL, *("masks", "collection", "public", "own")}
    assert knowledge.pairs is None or len(knowledge.pairs.codes) == len(knowledge.pairs.images) == 2 * count
    assert knowledge.oracle is None or knowledge.oracle.queries == count

    assert (knowledge.own is None) == (threat == "two-releases")
    assert knowledge.mean is not None and (knowledge.own is None or knowledge.own.codes is not None)  # looked at, too
    images = world.images
    secrets = [*images.judged.values(), images.validation, *images.known.values()]
    secrets = [form for pixels in secrets for form in (pixels.flatten(), pixels.flatten() / 255)]
    for item in reachable(knowledge):
        assert not isinstance(item, (World, Victim, Images, Keyed, KeyedTransform))
        assert item is not world.owner.decoder
        assert not isinstance(item, bytes) or item != SECRET
        if isinstance(item, torch.Tensor):
            same = [secret for secret in secrets if secret.numel() == item.numel() and secret.dtype == item.dtype]
            assert not any(torch.allclose(item.flatten(), secret) for secret in same)


def test_known_pairs_are_as_many_of_each_sets_kind(world):
    victim, images = world.victim("aae"), world.images
    pairs = victim.pairs(10)
    wanted = to_float(torch.cat([pixels[:10] for pixels in images.known.values()]))
    places = (pairs.images[:, None] == wanted).flatten(2).all(2).nonzero()[:, 1]
    assert places.sort().values.tolist() == list(range(20))
    assert 2 <= (places[:10] < 10).sum() <= 8  # mixed: some attacks hold the last out
    torch.testing.assert_close(pairs.codes, victim.encode(pairs.images))
    assert images.most_pairs == 30


def test_a_second_release_is_of_another_encoder_than_the_attackers(world):
    masks, again = world.victim("aae"), world.victim("aae").second_release()["photos"]
    images = world.candidates["photos"]
    assert threats.masks_only(world, masks).own is masks.alike is not masks.own
    assert threats.known_pairs(world, masks, 10).own is threats.stolen_encoder(world, masks, 0).own is masks.own
    own = masks.own.encode(images), masks.alike.encode(images)
    for codes, method in zip((again, *own), (world.another, world.attacker, world.another), strict=True):
        gaussian, categorical = method.encode(images)
        inverse = (method if codes is own[1] else world.attacker).encoder.contrast.inverse
        torch.testing.assert_close(codes, torch.cat((inverse(gaussian), categorical), 1))


def test_the_attackers_encoder_forgot_nothing(tmp_path):
    sizes = {"preset": "invariant", "image_size": 16, "gaussian_dim": 16, "categories": 4}
    folders = tmp_path / "0", tmp_path / "1"
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        folder.mkdir()
        fingerprint = checkpoints.save_encoder(Encoder(**sizes), folder / "encoder.pt")
        checkpoints.save_decoder(Decoder(**sizes), fingerprint, folder / "decoder.pt")
    with pytest.raises(InputError, match=r"1/checkpoint\.pt: no such file"):
        audit.load_instances(*folders)
    trained = {"encoder": Encoder(**sizes), "decoder": Decoder(**sizes)}
    content = {"settings": sizes, "environment": {}, "images": "", "threads": 1, "seconds": 0.0}
    content |= {"history": [[1, 0.0]], "losses": torch.empty(0, 5)}
    content["states"] = {name: part.state_dict() for name, part in trained.items()}
    pair = dict(zip(("encoder", "decoder"), checkpoints.load_pair(folders[1])[:2], strict=True))
    content["pair"] = {name: part.state_dict() for name, part in pair.items()}

    def saved(**changes: object) -> tuple[Autoencoder, ...]:
        checkpoints.save_checkpoint(content | changes, folders[1] / "checkpoint.pt")
        return audit.load_instances(*folders)

    owner, another, attacker = saved()
    assert attacker.fingerprint == pt.fingerprint(trained["encoder"].state_dict())
    for found, wanted in ((another, folders[1]), (owner, folders[0])):
        assert found.fingerprint == checkpoints.load_pair(wanted)[2]
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        rebuilt = attacker.rebuild(*attacker.encode(images))
        torch.testing.assert_close(rebuilt, trained["decoder"].eval()(torch.cat(trained["encoder"].eval()(images), 1)))
    for changes, reason in (
        ({"settings": sizes | {"image_size": 32}}, "do not fit together"),
        ({"losses": torch.zeros(2, 5)}, "within an epoch"),
        ({"pair": content["states"]}, "not of the training of encoder.pt"),
        ({"pair": {}}, "damaged"),
    ):
        with pytest.raises(InputError, match=rf"1/checkpoint\.pt.*{reason}"):
            saved(**changes)


def test_noise_is_on_what_is_released_and_on_what_is_learned_from(world):
    """a z + sqrt(1 - a^2) e of clipped codes: without it, who has the encoder would name every image."""
    kept, clean = 0.5, world.victim("aae")
    victim = world.victim("aae+noise0.5")
    gaussian = world.owner.encode(world.judged["photos"])[0]
    expected = kept * gaussian * (4 / gaussian.norm(dim=1, keepdim=True)).clamp(max=1)
    stolen = threats.stolen_encoder(world, victim, 0).stolen
    torch.testing.assert_close(stolen.encode(world.judged["photos"]), expected)
    noises = [
        victim.masks["photos"] - expected,
        victim.second_release()["photos"][world.answers()["photos"]] - expected,
        stolen.codes - stolen.encode(world.public.some),
        victim.own.codes - victim.own.expected,
    ]
    for noise in noises:
        assert abs(noise.std() - 0.75**0.5) < 0.08 and abs(noise.mean()) < 0.15
    for pair in (noises[:2], noises[2:]):
        assert abs(torch.corrcoef(torch.stack([noise.flatten() for noise in pair]))[0, 1]) < 0.2
    assert clean.stolen.deviation == 0
    for name in ("aae", "aae+noise0.5", "aae+noise1+key", "pca"):
        assert audit.mask_name(name) == name
    assert audit.mask_name("aae+noise0.50+key") == "aae+noise0.5+key"
    for name in ("pca+noise0.5", "pca+key", "aae+noise2", "AAE", "nothing"):
        with pytest.raises(InputError, match="no such mask"):
            audit.mask_name(name)


@pytest.mark.parametrize("mask", ["aae+noise0.5", "aae+noise0.5+key", "aae+noise0"])
@pytest.mark.usefixtures("hasty_attackers")
def test_masks_in_noise_are_attacked_in_every_way(world, monkeypatch, mask):
    monkeypatch.setattr(threats, "PAIRS", (10,))
    steps = list(plan.steps(mask, world.images))
    assert {step.threat for step in steps} == set(threats.THREATS)
    for step in steps:
        assert audit.attack(world, step)["values"].isfinite().all()


def test_candidates_are_for_re_identification_and_every_attack_has_an_oracle_of_its_own(world):
    victim = world.victim("aae")
    for threat, count in (("masks-only", 0), ("oracle", 10)):
        shared = threats.THREATS[threat].knowledge(world, victim, count)
        for attack in (attack for attack in plan.ATTACKS if attack.threat == threat):
            knowledge = audit.given(shared, attack, world, victim)
            of_images = {scores.REIDENTIFICATION: world.candidates, scores.LINKAGE: world.other_photographs}
            of_images[scores.CROWD] = world.crowd
            assert knowledge.candidates is of_images.get(attack.kind)
            if threat == "oracle":
                assert len(knowledge.oracle.ask(knowledge.public.some[:10])) == 10  # none is spent before


def test_the_crowd_stands_behind_the_candidates_of_the_first_set(world):
    victim, (attack, *_) = world.victim("aae"), (a for a in plan.ATTACKS if a.kind is scores.CROWD)
    knowledge = audit.given(threats.known_pairs(world, victim, 10), attack, world, victim)
    candidates = knowledge.candidates["photos"]
    assert list(knowledge.candidates) == list(knowledge.masks) == ["photos"] and len(candidates) == 40
    assert torch.equal(candidates[:20], world.other_photographs["photos"])
    known = torch.cat((world.candidates["photos"], to_float(world.images.validation[20:])))
    assert named_once(torch.cdist(known.flatten(1), candidates.flatten(1))) == 1  # each is of its image
    truth = torch.ones(20, 40, dtype=torch.float64).scatter(1, world.answers()["photos"][:, None], 0.0)
    assert (scores.judged(scores.CROWD, {"photos": truth}, world)["photos"] == 1).all()
    assert (scores.judged(scores.CROWD, {"photos": -truth}, world)["photos"] == torch.tensor([40.0, 0.0])).all()


def test_the_walk_finds_what_is_hidden(world):
    images = world.images.judged["photos"]
    for hidden in ((lambda: images), functools.partial(print, images), {"a": [images]}, world.victim("aae").encode):
        wanted = world.attacker if callable(hidden) and hidden is world.victim("aae").encode else images
        assert any(item is wanted for item in reachable(hidden))


def test_attacks_import_neither_truth_nor_methods():
    allowed = ("maskbench.leakage.knowledge", "maskbench.leakage.attacks", "maskbench.leakage.perceptual")
    # of networks, pixels and numbers in general
    allowed += (
        "maskbench.models.sizes",
        "maskbench.data.image_set",
        "maskbench.data.image_quality",
        "maskbench.classification.features",
    )
    for path in (ROOT / "maskbench" / "leakage" / "attacks").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert all(name.startswith(allowed) for name in names if name.startswith("maskbench")), path


def test_what_is_found_without_masks_is_judged_as_attacks_are(world, monkeypatch):
    def judged(kind: scores.Kind) -> dict[str, torch.Tensor]:
        return scores.judged(kind, CONTROLS[kind].run(world), world)

    def all_of(*kinds: scores.Kind) -> list[torch.Tensor]:
        return [ranks for kind in kinds for ranks in judged(kind).values()]

    named = scores.REIDENTIFICATION, scores.RELEASES
    for name, images in world.judged.items():  # where every image is of a label of its own
        monkeypatch.setitem(world.images.label_means, name, images)
    assert all((ranks == 1).all() for ranks in all_of(*named))
    for kind in CONTROLS:
        assert list(judged(kind)) == kind.sets(list(world.judged))
    for name, images in world.judged.items():  # where all are of one, it names one image
        monkeypatch.setitem(world.images.label_means, name, images.mean(0).expand_as(images))
    for ranks in all_of(scores.REIDENTIFICATION):
        assert torch.equal(ranks.sort().values, torch.arange(1, len(ranks) + 1).double())
    for ranks in all_of(scores.RELEASES):  # and of two releases any
        assert 7 < ranks.mean() < 14 and len(ranks.unique()) > 6
    for name, images in world.judged.items():  # where four are of one, the true one is among the first four
        monkeypatch.setitem(world.images.label_means, name, images[:5].repeat(4, 1, 1, 1))
    for ranks in all_of(scores.RELEASES):
        assert ranks.max() <= 4 and 1 < ranks.mean() < 4

    labels = world.images.labelled[2]
    told = judged(scores.ATTRIBUTE)["private"]
    assert (told.sum() == (labels == 0).sum()) and told[labels == 0].all()  # 0 is the most frequent of those known
    assert judged(scores.MEMBERSHIP)["photos"].double().mean() == 0.5


def test_the_order_of_candidates_says_nothing(world):
    for name, candidates in world.candidates.items():
        assert (candidates == world.judged[name]).flatten(1).all(1).float().mean() < 0.3
        assert torch.equal(candidates[world.answers()[name]], world.judged[name])
    sure = {name: torch.cdist(world.judged[name].flatten(1), x.flatten(1)) for name, x in world.candidates.items()}
    assert all((ranks == 1).all() for ranks in scores.judged(scores.REIDENTIFICATION, sure, world).values())
    linked = scores.judged(scores.LINKAGE, sure, world)
    assert all((told == 1).all() and told.shape == (20, 2) for told in linked.values())  # first, and accepted
    never = scores.judged(scores.LINKAGE, {name: -apart for name, apart in sure.items()}, world)
    assert all((told == torch.tensor([20.0, 0.0])).all() for told in never.values())  # last, and not accepted
    truth, order = world.asked_members()
    assert scores.judged(scores.MEMBERSHIP, {"photos": truth[order]}, world)["photos"].all()


@pytest.mark.parametrize("count", [20, 12])  # of gradient inversion, the first are judged
@torch.no_grad()
def test_reconstructions_are_judged_by_every_measure(monkeypatch, count):
    monkeypatch.setattr(scores, "CHUNK", 8)
    monkeypatch.setattr(world_module, "CHUNK", 8)
    world = untouched()  # that holds no larger parts yet
    found = {name: images.flip(0)[:count] for name, images in world.judged.items()}
    for name, quality in scores.judged(scores.RECONSTRUCTION, found, world).items():
        originals = world.judged[name][:count]
        torch.testing.assert_close(quality[:, :3], image_quality.image_quality(found[name], originals))
        wanted = perceptual.distance(world.public.features, found[name], originals)
        assert quality.shape == (count, 4) and wanted.std() > 0
        torch.testing.assert_close(quality[:, 3], wanted, rtol=1e-4, atol=1e-6)


def test_an_oracle_masks_no_more_than_it_may(world):
    knowledge = threats.oracle(world, world.victim("aae+key"), 10)
    images = knowledge.public.some
    assert knowledge.oracle.ask(images[:6]).shape == (6, 20)
    with pytest.raises(OracleRefused, match="asked to mask 5 more of 10 images, 4 are left"):
        knowledge.oracle.ask(images[:5])
    knowledge.oracle.ask(images[:4])
    with pytest.raises(OracleRefused, match="0 are left"):
        knowledge.oracle.ask(images[:1])


@pytest.mark.usefixtures("hasty_attackers")
def test_one_line_of_the_table_is_an_attack(world, tmp_path, monkeypatch):
    def grey(knowledge: Knowledge) -> dict[str, torch.Tensor]:
        return {name: torch.full((len(codes), 3, 16, 16), 0.5) for name, codes in knowledge.masks.items()}

    cheap = [a for a in plan.ATTACKS if a.name in ("ridge", "re-identification", "mismatched-decoder", "unpaired")]
    toy = plan.Attack("grey", scores.RECONSTRUCTION, "masks-only", grey, plan.hidden, pairs=plan.none)
    monkeypatch.setattr(plan, "ATTACKS", (*cheap, toy))
    monkeypatch.setattr(report.figures, "leakage", lambda *_arguments: None)  # a picture that cannot be drawn
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "audit-frontier.png").write_bytes(b"an earlier run's")
    settings = audit.Settings(
        dataset="photos",
        private=None,
        limit=128,
        seed=0,
        output_dir=tmp_path,
        more_models=(),
        data_dir=tmp_path,
        workers=0,
        skip_corrupt=False,
        masks=("aae+key", "identity"),
    )
    assert [step.threat for step in plan.steps("aae", world.images) if toy in step.attacks] == ["masks-only"]
    instances = [autoencoder(seed) for seed in (0, 2, 1)]
    audit.run(settings, *instances, Ledger(tmp_path / "audit-runs.pt", "code"), None)
    together = dataclasses.replace(settings, output_dir=tmp_path / "together", jobs=2)
    together.output_dir.mkdir()
    shutil.copy(tmp_path / "audit.key", together.output_dir)
    audit.run(together, *instances, Ledger(together.output_dir / "audit-runs.pt", "code"), None)
    assert (tmp_path / "audit.csv").read_bytes() == (together.output_dir / "audit.csv").read_bytes()
    with open(tmp_path / "audit.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["attack"] == "grey"]
    assert {row["mask"] for row in rows} == {"aae", "aae+key"}
    assert [row["measure"] for row in rows if row["mask"] == "aae"] == list(scores.RECONSTRUCTION.measures)
    page = (tmp_path / "audit.md").read_text()
    assert "| aae | masks-only | grey |" in page
    assert "(figures/audit-attacks.png)" in page and "audit-leakage.png" not in page
    assert "audit-frontier.png" not in page
    assert ("masks-only", "grey") in plan.pictured() and (tmp_path / "figures" / "audit-attacks.png").exists()
    assert not (tmp_path / "frontier.csv").exists()


@pytest.mark.parametrize(("mask", "threat", "count"), [("untrained", "known-pairs", 10), ("pca", "stolen-encoder", 40)])
def test_labels_are_judged_on_the_last_set(world, mask, threat, count):
    attacks = tuple(a for a in plan.ATTACKS if a.kind is scores.ATTRIBUTE and a.threat == threat)
    step = plan.Step(mask, threat, count, attacks)
    assert step.rows(list(world.judged)) == [("private", "attribute", measure) for measure in ("accuracy", "choice")]
    result = audit.attack(world, step)
    assert result["values"].shape == (2, 3) and 0 <= result["values"].min() <= result["values"].max() <= 1
    assert result["examples"].shape == (0, audit.EXAMPLES, 3, 16, 16)
    assert result["worst"].shape == (0, audit.WORST)
