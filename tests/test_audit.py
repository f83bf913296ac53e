"""`crosspair.py --audit`, run whole on tiny toys, and what its page says of given figures."""

import csv
import functools
import math
import runpy
import stat

import pytest
import torch
from conftest import ROOT

from maskbench.leakage import audit, report
from maskbench.leakage.attacks import gradient_inversion

COLUMNS = ["mask", "images", "threat", "attack", "pairs", "measure", "mean", "low", "high"]
ATTACKS = {
    *("mismatched-decoder", "ridge", "procrustes", "latent-ridge", "unpaired", "inverse-decoder"),
    *("gradient-inversion", "re-identification", "membership", "mean-image", "matched-decoder"),
}


def test_the_whole_audit(run_here, tmp_path, monkeypatch, capsys):
    def script(name, *arguments):  # in this process: importing torch for each takes minutes
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", [name, *map(str, arguments)])
            runpy.run_path(str(ROOT / name), run_name="__main__")

    monkeypatch.setattr(audit, "_script", script)
    monkeypatch.setattr(audit, "MASKS", ("aae", "aae+key", "identity"))
    monkeypatch.setattr(audit, "DRAWS", 1)
    monkeypatch.setattr(audit, "INVERTED", 8)
    monkeypatch.setattr(audit.attacks, "gradient_inversion", functools.partial(gradient_inversion, steps=20))
    small = ("--preset", "paper", "--gaussian-dim", 64, "--epochs", 2, "--instances", 2)
    run_here("train_aae.py", "--dataset", "photos", "--limit", 256, *small)
    arguments = ("--audit", "--dataset", "photos", "--limit", 256)
    run_here("crosspair.py", *arguments, "--private", "digits", "--output-dir", "audit")
    folder = tmp_path / "audit"
    with open(folder / "audit.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS and {row["attack"] for row in rows} == ATTACKS
    assert {row["mask"] for row in rows} == {"aae", "aae+key", "identity"}
    assert {row["images"] for row in rows} == {"photos", "digits"}
    assert {row["threat"] for row in rows} == set(report.THREATS)
    assert {row["pairs"] for row in rows} >= {"0", "10", "30"}
    assert {row["measure"] for row in rows} == {
        *audit.IMAGE_MEASURES,
        "reid_at_1",
        "mean_rank",
        "median_rank",
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

    with open(folder / "frontier.csv") as file:
        frontier = list(csv.DictReader(file))
    assert [row["method"] for row in frontier if row["mask"] == "aae+key"] == ["mlp", "forest", "adaboost"]
    for name in ("attacks", "leakage", "frontier"):
        assert (folder / "figures" / f"audit-{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"(figures/audit-{name}.png)" in (folder / "audit.md").read_text()
    assert stat.S_IMODE((folder / "audit.key").stat().st_mode) == 0o600
    secret = (folder / "audit.key").read_text().strip()
    assert not any(
        secret.encode() in path.read_bytes() for path in folder.rglob("*") if path.name[-4:] in (".csv", ".md")
    )

    # given again, it keeps everything and writes the same
    before = (folder / "audit.csv").read_bytes()
    capsys.readouterr()
    monkeypatch.setattr(audit.Auditor, "attack", lambda *_: pytest.fail("made again"))
    run_here("crosspair.py", *arguments, "--private", "digits", "--output-dir", "audit")
    assert "were finished before and kept" in capsys.readouterr().out
    assert (folder / "audit.csv").read_bytes() == before


def given(best: dict[tuple[str, str, int], float]) -> report.Table:
    """A table in which one attack has an SSIM for each mask, threat and number of pairs."""
    rows = [
        ("aae", "masks-only", "mean-image", "ssim", 0, 0.2),
        ("aae", "masks-only", "matched-decoder", "ssim", 0, 0.9),
    ]
    for (mask, threat, pairs), value in best.items():
        rows += [
            (mask, threat, "ridge", "ssim", pairs, value),
            (mask, threat, "re-identification", "reid_at_1", pairs, 0.5),
        ]
    return report.Table(
        [
            dict(zip(COLUMNS, (mask, "cifar10", threat, attack, str(pairs), measure, *[str(value)] * 3), strict=True))
            for mask, threat, attack, measure, pairs, value in rows
        ]
    )


def test_the_verdict_follows_the_figures():
    figures = {("aae", "masks-only", 0): 0.2, ("aae", "known-pairs", 100): 0.6, ("aae", "known-pairs", 1000): 0.89}
    figures |= {("aae", "stolen-encoder", 0): 0.9}
    keyed = {("aae+key", *key[1:]): value for key, value in figures.items()}
    said = report.verdict(given(figures | keyed), [], 1000)
    assert "with masks alone recovers nothing beyond the mean image (SSIM 0.20)" in said
    assert "with 100 known pairs most of what the matching decoder shows (SSIM 0.60)" in said
    assert "with 1000 as much as the matching decoder shows (SSIM 0.89)" in said
    assert "it makes no difference to any number of known pairs" in said
    assert "accuracy" not in said and "trained the autoencoder" not in said  # what was not measured is not told
    weaker = keyed | {("aae+key", "known-pairs", 100): 0.3, ("aae+key", "stolen-encoder", 0): 0.2}
    said = report.verdict(given(figures | weaker), [], 1000)
    assert "from 1,000 known pairs on it no longer helps" in said


def test_the_bootstrap_covers():
    ranks = torch.cat((torch.ones(300), torch.full((700,), 10.0)))
    (first, low, high), (mean, *_), (median, *_) = audit.intervals("re-identification", ranks)
    assert first == 0.3 and 0.26 < low < 0.3 < high < 0.34 and mean == pytest.approx(7.3) and median == 10
    quality = torch.stack((torch.linspace(0, 1, 101), *[torch.linspace(0, 10, 101)] * 2), 1)
    found = dict(zip(audit.IMAGE_MEASURES, (row[0] for row in audit.intervals("ridge", quality)), strict=True))
    assert found["mse"] == pytest.approx(0.5) and found["mse_best1"] == pytest.approx(0.01)
    assert found["ssim_median"] == pytest.approx(5) and found["ssim_best1"] == pytest.approx(9.9)
