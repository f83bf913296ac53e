"""`crosspair.py --audit`, run whole on tiny toys, and what its page says of given figures."""

import csv
import functools
import math
import re
import stat
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import pictures

import classify
from maskbench import system
from maskbench.errors import InputError
from maskbench.leakage import audit, figures, frontier, plan, release, report, scores, threats
from maskbench.leakage.attacks import decoders
from maskbench.leakage.controls import CONTROLS
from maskbench.leakage.settings import Release
from maskbench.leakage.table import COLUMNS, Table
from maskbench.models import Decoder, Encoder, checkpoints
from maskbench.storage.ledger import Ledger

ATTACKS = {
    *("mismatched-decoder", "ridge", "procrustes", "latent-ridge", "unpaired", "inverse-decoder"),
    *("scratch-decoder", "gradient-inversion", "membership", "ssim-guessed-pairs"),
    *("re-identification", "re-identification-by-transport", "re-identification-by-alignment"),
    *("linkage", "linkage-by-transport", "linkage-by-alignment", "linkage-among-all"),
    *("two-releases", "two-releases-by-transport", "retrieval", "perceptual-decoder", "ssim-decoder"),
    *("ssim-scratch-decoder", "key-by-categories", "ssim-key-by-categories", "ssim-procrustes"),
    *plan.ANCHORS,
    *(control.name for kind, control in CONTROLS.items() if kind is not scores.ATTRIBUTE),  # CIFAR-100 alone
}
ATTACKERS = "masks alone", "1,000 known pairs", "the encoder"  # of the picture of the best rebuilt


pytestmark = pytest.mark.usefixtures("few_steps", "undrawn")


@pytest.mark.pixels
@pytest.mark.usefixtures("hasty_attackers")
def test_the_whole_audit(run_here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(frontier, "DRAWS", 1)
    monkeypatch.setattr(classify, "Settings", functools.partial(classify.Settings, epochs=5, estimators=10))
    monkeypatch.setattr(threats, "PAIRS", (10, 16))
    monkeypatch.setattr(decoders, "FEWEST", 16)
    small = ("--image-size", 16, "--preset", "paper", "--gaussian-dim", 64, "--epochs", 2, "--instances", 2)
    photos = ("--dataset", "photos", "--limit", 128)
    run_here("train_aae.py", *photos, *small)
    other = ("--image-size", 16, "--preset", "invariant", "--batch-size", 16, "--gaussian-dim", 32)
    other += ("--epochs", 1, "--instances", 2)
    run_here("train_aae.py", *photos, *other, "--output-dir", "other")
    arguments = ("--audit", *photos, "--private", "digits", "--more-models", "other", "--output-dir", "audit")
    arguments += ("--jobs", 2, "--masks", "aae+key", "identity", "--most-ssim", 0.001, "--recipient", "Lab B")
    folder, kept, add = tmp_path / "audit", [], Ledger.add

    def stops(*run: object) -> None:
        add(*run)
        kept.append(run)
        if len(kept) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
        patch.setattr(Ledger, "add", stops)
        run_here("crosspair.py", *arguments)
    assert not (folder / "audit.csv").exists() and not (folder / "release.html").exists()
    run_here("crosspair.py", *arguments)  # resumes; the first of what was kept are the thresholds
    assert re.search(r"\n3 of \d+ steps were finished before and kept", capsys.readouterr().out)
    with open(folder / "audit.csv") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and {row["attack"] for row in rows} == ATTACKS
    assert {row["mask"] for row in rows} == {"aae", "aae+key", "identity"}
    assert {row["images"] for row in rows} == {"photos", "digits"}
    assert {row["threat"] for row in rows} == set(threats.THREATS)
    assert {row["pairs"] for row in rows} >= {"0", "10", "16"}
    assert {row["measure"] for row in rows} == {
        *scores.RECONSTRUCTION.measures,
        *scores.REIDENTIFICATION.measures,
        *scores.LINKAGE.measures,
        *scores.RELEASES.measures,
        "accuracy",
    }
    cells = {tuple(row[name] for name in COLUMNS[:6]): row for row in rows}
    assert len(cells) == len(rows)
    for row in rows:
        low, mean, high = (float(row[name]) for name in ("low", "mean", "high"))
        assert all(map(math.isfinite, (low, mean, high))) and low <= mean + 1e-9 and mean <= high + 1e-9, row
    # raw pixels are known; a key hides no identity from whoever has the encoder
    assert float(cells["identity", "photos", "stolen-encoder", "re-identification", "0", "reid_at_1"]["mean"]) == 1
    assert float(cells["identity", "photos", "masks-only", "matched-decoder", "0", "ssim"]["mean"]) > 0.999
    assert float(cells["aae+key", "photos", "stolen-encoder", "re-identification", "0", "reid_at_1"]["mean"]) > 0.9
    anchors = [
        float(cells["aae", "photos", "masks-only", name, "0", "mse"]["mean"])
        for name in ("mean-image", "mismatched-decoder", "matched-decoder")
    ]
    assert anchors[2] < anchors[0] and anchors[2] < anchors[1]
    # a decoder from scratch has so many pairs or more, and with the encoder all public images
    assert {key[3:5] for key in cells if key[0] == "aae" and key[3] == "scratch-decoder"} == {
        ("scratch-decoder", "16"),
        ("scratch-decoder", "128"),
    }

    with open(folder / "frontier.csv") as file:
        accuracies = list(csv.DictReader(file))
    assert [row["method"] for row in accuracies if row["mask"] == "aae+key"] == ["mlp", "forest", "adaboost"]
    points = list(dict.fromkeys((row["mask"], row["gaussian_dim"]) for row in accuracies))
    assert points == [("aae", "64"), ("aae+key", "64"), ("identity", "64"), ("aae-invariant", "32")]
    for row in accuracies:
        assert 0 <= float(row["named_without_pairs"]) <= 1 and 0 <= float(row["named_with_pairs"]) <= 1
    linked = (folder / "audit.md").read_text().split("## Links")[1].split("\n## ")[0]
    assert "| aae-invariant | 32 |" in linked and linked.count("\n| ") == 2 + len(points)
    for name in ("attacks", "worst", "leakage", "frontier"):
        assert (folder / "figures" / f"audit-{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"(figures/audit-{name}.png)" in (folder / "audit.md").read_text()
    assert stat.S_IMODE((folder / "audit.key").stat().st_mode) == 0o600
    secret = (folder / "audit.key").read_text().strip()
    assert not any(
        secret.encode() in path.read_bytes() for path in folder.rglob("*") if path.name[-4:] in (".csv", ".md")
    )

    signed = (folder / "release.html").read_text()
    assert "Lab B" in signed and signed.count("fail (at most 0.001)") == 2 and "0 of 2 lines pass" in signed
    assert release.BEFORE in signed

    # given again, it keeps everything and writes the same; another threshold is told to come late
    before = (folder / "audit.csv").read_bytes()
    capsys.readouterr()
    monkeypatch.setattr(audit, "attack", lambda *_: pytest.fail("made again"))
    monkeypatch.setattr(figures, "write", lambda *_: None)  # what was drawn stays
    (folder / "audit.key").chmod(0o644)  # as a file system without modes has it
    run_here("crosspair.py", *arguments, "--most-named", 0.5)
    assert "were finished before and kept" in capsys.readouterr().out
    assert (folder / "audit.csv").read_bytes() == before
    assert release.AFTER in (folder / "release.html").read_text()


def test_thresholds_stay_what_they_were_when_the_first_attack_ran(tmp_path):
    found, inputs = [({}, None)], {"images": "b", "networks": ["a"]}
    ledger = Ledger(tmp_path / "audit-runs.pt", "code")

    def before(*masks: str, **terms: object) -> set[str]:
        return audit.said_before(Release(**terms), masks or ["aae"], found, ledger, inputs, tmp_path)

    assert before(most_ssim=0.2) == {"aae"} == before(most_ssim=0.3, recipient="Lab A")  # nothing has run yet
    found.append(({}, {"values": 1}))
    ledger = Ledger(tmp_path / "audit-runs.pt", "code")
    assert not before(most_ssim=0.2)  # given up before the first attack
    assert not before(most_ssim=0.25) and not before(most_ssim=0.3, pairs=10) and not before()
    assert before(most_ssim=0.3, recipient="Lab B") == {"aae"}
    # the mask that passes, chosen when figures were there; that of the other page was named before
    assert before("aae", "aae+noise0.5", most_ssim=0.3) == {"aae"}
    inputs["networks"] = ["c"]
    assert not before(most_ssim=0.3)
    found.pop()
    (tmp_path / "audit.csv").touch()  # of an audit with other inputs: its figures were seen
    assert not before(most_ssim=0.3)


def test_several_steps_at_once_need_forks(monkeypatch, tmp_path):
    monkeypatch.setattr(system, "FORKS", False)
    with pytest.raises(InputError, match="--jobs 2: several steps at once need Linux"):
        audit.audit(tmp_path, tmp_path, tmp_path / "out", jobs=2)
    assert not (tmp_path / "out").exists()


def test_other_models_have_two_instances_of_one_kind(complaint, tmp_path):
    for folder, sizes in (("a/0", 16), ("a/1", 16), ("b/0", 16), ("b/1", 24), ("c/0", 16), ("d/0", 24), ("d/1", 24)):
        (tmp_path / folder).mkdir(parents=True)
        config = {"image_size": 16, "gaussian_dim": 16} | {"image_size" if folder[0] == "d" else "gaussian_dim": sizes}
        fingerprint = checkpoints.save_encoder(Encoder(**config), tmp_path / folder / "encoder.pt")
        checkpoints.save_decoder(Decoder(**config), fingerprint, tmp_path / folder / "decoder.pt")
    for folder, message in (
        ("b", "are not those of b/0"),
        ("c", "c/1/encoder.pt"),
        ("d", "d: masks images of 24 pixels a side, not 16"),
        ("a", "--more-models a: has the preset and the --gaussian-dim of the audited one"),
    ):
        assert message in complaint(
            "crosspair.py", "--audit", "--models", "a", "--dataset", "photos", "--more-models", folder
        )
    again = ("--dataset", "digits", "--private", "digits")  # the known images of one would be judged as the other's
    assert "holds the images of --dataset digits" in complaint("crosspair.py", "--audit", "--models", "a", *again)
    images, labels = torch.randint(256, (400, 16, 16), dtype=torch.uint8).numpy(), torch.arange(400).numpy() % 4
    for name, order in (("one", torch.arange(400)), ("other", torch.randperm(400))):
        np.savez(tmp_path / f"{name}.npz", images=images[order], labels=labels[order])
    again = ("--dataset", "npz:one.npz", "--private", "npz:other.npz")
    assert "holds the images of --dataset npz:one.npz" in complaint("crosspair.py", "--audit", "--models", "a", *again)
    audit = ("crosspair.py", "--audit", "--models", "a", "--dataset", "photos")
    pictures(tmp_path / "few", 15, classes=3)
    assert "--private folder:few: leaves too few images" in complaint(*audit, "--private", "folder:few")
    assert "--masks pca+key: there is no such mask; choose among" in complaint(*audit, "--masks", "pca+key")
    assert "none.pt: no such file" in complaint(*audit, "--release", "none.pt")
    assert "--most-ssim: 'high' is not a number" in complaint(*audit, "--most-ssim", "high")
    assert "--most-named: is of the audit; add --audit" in complaint("crosspair.py", "--most-named", 0.2)
    assert not (tmp_path / "runs" / "audit" / "release.html").exists()


def test_draws_of_classes_follow_from_the_seed(run_here, tmp_path, monkeypatch):
    for number in "01":
        (tmp_path / "a" / number).mkdir(parents=True)
        (tmp_path / "a" / number / "encoder.pt").touch()
    told = {}
    monkeypatch.setattr(audit, "audit", lambda **arguments: told.update(arguments))
    run_here("crosspair.py", "--audit", "--models", "a", "--seed", 3)
    assert told["seed"] == told["accuracy"].keywords["seed"] == 3


def given(best: dict[tuple[str, str, int], float]) -> report.Table:
    """A table in which one attack has an SSIM for each mask, threat and number of pairs."""
    kinds = scores.RECONSTRUCTION, scores.REIDENTIFICATION
    anchors = zip(plan.ANCHORS, (0.2, 0.25, 0.3, 0.9), strict=True)
    rows = [("aae", "masks-only", name, 0, "ssim", value) for name, value in anchors]
    for (mask, threat, pairs), value in best.items():
        for attack, kind, result in (("ridge", kinds[0], value), ("re-identification", kinds[1], 0.5)):
            rows += [(mask, threat, attack, pairs, measure, result) for measure in kind.measures]
    return table_of(rows)


def table_of(rows: list[tuple[str, str, str, int, str, float]]) -> Table:
    """A table of mask, threat, attack, pairs, measure and value."""
    return Table(
        [
            dict(zip(COLUMNS, (mask, "cifar10", threat, attack, str(pairs), measure, *[str(value)] * 3), strict=True))
            for mask, threat, attack, pairs, measure, value in rows
        ]
    )


def test_the_verdict_follows_the_figures():
    figures = {("aae", "masks-only", 0): 0.2, ("aae", "known-pairs", 100): 0.6, ("aae", "known-pairs", 1000): 0.89}
    figures |= {("aae", "stolen-encoder", 0): 0.9}
    keyed = {("aae+key", *key[1:]): value for key, value in figures.items()}
    said = report.verdict(given(figures | keyed), [], 1000)
    assert "with masks alone recovers nothing beyond the mean image (SSIM 0.20)" in said
    assert "with 100 known pairs most of what the matching decoder shows (SSIM 0.60)" in said
    assert "with 1,000 known pairs as much as the matching decoder shows (SSIM 0.89)" in said
    assert "it makes no difference to any number of known pairs" in said
    assert "recovers as much as the matching decoder shows (SSIM 0.90): the key does not help. Who" in said
    assert "accuracy" not in said and "trained the autoencoder" not in said  # what was not measured is not told
    few = {key: value for key, value in figures.items() if key[2] < 1000}
    assert report.verdict(given(few), [], 1000).count("(SSIM 0.60)") == 1  # of few images there is one number
    weaker = keyed | {("aae+key", "known-pairs", 100): 0.3, ("aae+key", "stolen-encoder", 0): 0.2}
    said = report.verdict(given(figures | weaker), [], 1000)
    assert "from 1,000 known pairs on it no longer helps" in said and "does not help" not in said
    noise = {("aae+noise0.5", *key[1:]): value / 2 for key, value in figures.items()}
    assert report.verdict(given(figures | noise), [], 1000).endswith(
        "\n- From aae+noise0.5, somebody with 1,000 known pairs recovers a little of what the matching decoder shows "
        "(SSIM 0.45); with the encoder a little of what the matching decoder shows (SSIM 0.45). "
        "Of the candidates are named: 50.0% of cifar10 without a pair; 50.0% of cifar10 with 1,000."
    )


def test_what_each_attacker_rebuilds_best_is_shown():
    pixels = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(20, 3, 4, 4)
    images = SimpleNamespace(judged={"cifar10": pixels}, label_means={"cifar10": torch.linspace(0, 1, 20)})
    found = {("masks-only", 0): 0.2, ("known-pairs", 100): 0.6, ("known-pairs", 1000): 0.5, ("stolen-encoder", 0): 0.9}
    made = {
        ("aae", threat, "ridge", pairs): figures.Pictures(
            pixels[:6], torch.tensor([number, 9]), pixels[10 + number :][:2]
        )
        for number, (threat, pairs) in enumerate(found)
    }
    strips = report.best_rebuilt(given({("aae", *key): value for key, value in found.items()}), images, made)
    assert [text for text, _ in strips[::3]] == [f"images,\n{who}" for who in ATTACKERS]
    for place, number in enumerate((0, 1, 3)):  # with 1,000 pairs the attack by 100 is the best
        true, rebuilt, label = (strip for _, strip in strips[3 * place :][:3])
        assert (true[:, 0, 0, 0] * 255).tolist() == pytest.approx([number, 9])
        assert (rebuilt[:, 0, 0, 0] * 255).tolist() == pytest.approx([10 + number, 11 + number])
        assert label.tolist() == pytest.approx([number / 19, 9 / 19])


def test_links_stand_with_guesses_and_what_is_told_at_a_rate():
    values = zip(scores.LINKAGE.measures, (0.9, 3.1, 1.0, 0.4, 0.9), strict=True)
    rows = [("aae", "masks-only", "linkage-by-transport", 0, measure, value) for measure, value in values]
    control = CONTROLS[scores.LINKAGE].name
    values = zip(scores.LINKAGE.figures, (0.01, 420.0, 400.0, 0.02), strict=True)
    rows += [("aae", "masks-only", control, 0, measure, value) for measure, value in values]
    shown = report.guess_table(table_of(rows), "cifar10", scores.LINKAGE)
    assert "told at a false-positive rate of 0.001 |" in shown
    assert "| no mask, the label alone |  | 0.010 (400; 0.020) |" in shown
    assert "| aae | masks-only | 0.900 (1; 0.400) |" in shown


def test_pictures_by_a_learned_distance_are_those_of_the_nearest_attack():
    rows = [("aae", "masks-only", name, 0, "perceptual", 1.2 - n / 10) for n, name in enumerate(plan.ANCHORS)]
    rows += [
        ("aae", "known-pairs", attack, 1000, "perceptual", x) for attack, x in (("ridge", 1.1), ("retrieval", 0.7))
    ]
    rows += [("aae", "masks-only", "unpaired", 0, "perceptual", 1.3)]
    rows += [("aae", "stolen-encoder", "ridge", 4000, "perceptual", 0.6)]
    line = report.picture_table(table_of(rows), "perceptual").splitlines()[2]
    assert line == "| aae | 1.200 | 1.100 | 1.000 | 1.300 | 0.700 | 0.600 | 0.900 |"


def test_links_of_masks_in_noise_stand_beside_their_bound():
    columns = ("mask", "gaussian_dim", "named_without_pairs", "named_with_pairs")
    points = [("aae", "320", "0.9", "1"), ("aae+noise0.1+key", "320", "0.01", "0.05"), ("aae-paper", "384", "1", "1")]
    rows = [dict(zip(columns, point, strict=True)) for point in points]
    table = given({("aae", "known-pairs", 1000): 0.2})
    counts = ("masks-only", 0), ("known-pairs", 1000)
    noisy = given({(mask, *count): 0.2 for mask in ("aae", "aae+noise0.1", "pca") for count in counts})
    lines = report.link_table(noisy, [], 1000, 320).splitlines()  # without accuracy
    assert lines[3:5] == ["| aae+noise0.1 | 320 | 0.500 | 0.500 | 0.098 |", "| pca |  | 0.500 | 0.500 |  |"]
    lines = report.link_table(table, rows, 1000, 320).splitlines()
    assert lines[0].endswith("| by one mask alone, with the encoder, at most (proven) |")
    assert lines[2] == "| aae | 320 | 0.900 | 1.000 |  |"
    assert lines[3] == "| aae+noise0.1+key | 320 | 0.010 | 0.050 | 0.098 |"  # as docs/leakage.md has it
    assert "proven" not in report.link_table(table, rows[:1], 1000, 320)


@pytest.mark.parametrize("masks", [["aae"], ["aae", "aae+key", "pca", "aae+noise0.1", "aae+noise0.85+key"]])
def test_accuracy_against_leakage_is_drawn_of_any_number_of_masks(tmp_path, capsys, masks):
    columns = {"gaussian_dim": "320", "accuracy": "0.8", "std": "0.1", "draws": "5", "ssim": "0.2", "low": "0.1"}
    columns |= {"high": "0.3"}
    rows = [{"mask": mask, "method": name, **columns} for mask in masks for name in ("mlp", "forest")]
    rows.append({"mask": "aae", "method": "adaboost", **columns})
    figures.frontier(rows, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG") and not capsys.readouterr().err


def test_the_bootstrap_covers():
    ranks = torch.cat((torch.ones(300), torch.full((700,), 10.0)))
    (first, low, high), (mean, *_), (median, *_) = scores._figures(scores.REIDENTIFICATION, ranks)
    assert first == 0.3 and mean == pytest.approx(7.3) and median == 10
    assert (low, high) == pytest.approx((0.2724, 0.3291), abs=1e-4)  # Wilson's
    views = torch.stack((ranks, (torch.arange(1000) < 250).float()), 1)
    assert [row[0] for row in scores._figures(scores.LINKAGE, views)] == pytest.approx([0.3, 7.3, 10, 0.25])
    quality = torch.stack((torch.linspace(0, 1, 101), *[torch.linspace(0, 10, 101)] * 3), 1)
    found = dict(
        zip(scores.IMAGE_MEASURES, (row[0] for row in scores._figures(scores.RECONSTRUCTION, quality)), strict=True)
    )
    assert found["mse"] == pytest.approx(0.5) and found["mse_best1"] == pytest.approx(0.01)
    assert found["ssim_median"] == pytest.approx(5) and found["ssim_best1"] == pytest.approx(9.9)
    assert found["perceptual_best1"] == pytest.approx(0.1)


def test_nothing_found_is_not_certain():
    share, low, high = scores.wilson(torch.zeros(750).bool().numpy())
    assert share == low == 0 and high == pytest.approx(1.96**2 / (750 + 1.96**2), rel=1e-3)
    share, low, high = scores.wilson(torch.ones(20).bool().numpy())
    assert share == high == 1 and low == pytest.approx(20 / (20 + 1.96**2), rel=1e-3)


def test_an_attack_is_chosen_on_other_images_than_it_is_judged_on():
    choice = scores.chooses(1000)
    assert choice.sum() == 250
    ranks = torch.where(choice, 1.0, 500.0)  # right for the images that choose, and for no other
    at_first, *_, chosen = scores.intervals(scores.REIDENTIFICATION, ranks)
    assert at_first[0] == 0 and at_first[2] < 0.006 and chosen[0] == 1 and chosen[1] > 0.98
    quality = torch.stack((*torch.zeros(2, 1000), torch.where(choice, 0.7, 0.2), torch.zeros(1000)), 1)
    found = dict(zip(scores.RECONSTRUCTION.measures, scores.intervals(scores.RECONSTRUCTION, quality), strict=True))
    assert found["ssim"][0] == pytest.approx(0.2) and found["choice"][0] == pytest.approx(0.7)
    rows = [
        ("aae", "known-pairs", attack, pairs, measure, value)
        for attack, pairs, ssim, choice in (
            ("ridge", 10, 0.5, 0.1),
            ("procrustes", 100, 0.3, 0.4),
            ("ridge", 300, 1, 1),
        )
        for measure, value in {**dict.fromkeys(scores.IMAGE_MEASURES, ssim), "choice": choice}.items()
    ]
    table = table_of([("aae", "masks-only", "unpaired", 0, "choice", 0.0), *rows])
    assert table.best("aae", 100) == 0.3  # the better by choice, though worse by result
    assert table.chosen(scores.RECONSTRUCTION, "aae", 100)["ssim"]["attack"] == "procrustes"
    assert table.chosen(scores.LINKAGE, "aae", 100) == {}


def test_of_attacks_that_are_chosen_alike_the_one_with_most_pairs_counts():
    values = {10: (0.989, 1.0), 100: (1.0, 1.0), 1000: (0.5, 0.9)}
    rows = [
        ("pca", "known-pairs", "re-identification", pairs, measure, choice if measure == "choice" else value)
        for pairs, (value, choice) in values.items()
        for measure in scores.REIDENTIFICATION.measures
    ]
    table = table_of([("aae", "masks-only", name, 0, "ssim", 0.2) for name in plan.ANCHORS] + rows)
    assert [table.best_reid("pca", pairs) for pairs in (10, 1000)] == [0.989, 1.0]
