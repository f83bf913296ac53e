"""Which pictures of the scripts go into ``results/figures``, and what they show."""

from pathlib import Path

from maskbench.models import PRESETS
from maskbench.reproduce.plan import digits_folder, digits_step_name

_PATTERNS = ("checkers", "rings", "cross")
_IMAGES = range(3)


def copied_pictures(runs: Path) -> list[tuple[str, str, Path, str]]:
    """Pictures that the scripts drew: (step, name in ``figures``, source, what it shows)."""
    pictures = []

    def add(step: str, name: str, source: Path, caption: str) -> None:
        pictures.append((step, f"{name}.png", source, caption))

    for preset in PRESETS:
        folder = runs / preset
        aae, curves = folder / "aae" / "0", "the MLP's training curves"
        add(
            f"train {preset}",
            f"fig1-reconstructions-{preset}",
            aae / "reconstructions.png",
            "images, their masks and reconstructions",
        )
        add(f"train {preset}", f"fig5-7-losses-{preset}", aae / "losses.png", "the losses of training")
        # preset paper stands for the paper's figures, the other one's follow under s1, s2, s3
        pattern, image = ("fig8", "fig9") if preset == "paper" else ("s1", "s2")
        for name in _PATTERNS:
            source = folder / "crosspair" / f"grid-pattern-{name}.png"
            caption = f"test pattern {name} through every pair"
            add(f"crosspair {preset}", f"{pattern}-pattern-{name}-{preset}", source, caption)
        for number in _IMAGES:
            source = folder / "crosspair" / f"grid-image-{number}.png"
            caption = f"validation image {number} through every pair"
            add(f"crosspair {preset}", f"{image}-image-{number}-{preset}", source, caption)
        name = "fig10-11" if preset == "paper" else "s3"
        source = folder / "classify-cifar100" / "cifar100-curves.png"
        add(f"classify {preset} cifar100", f"{name}-curves-{preset}", source, f"{curves}, CIFAR-100")
        source = digits_folder(runs, preset, 0) / "classify-mnist" / "mnist-curves.png"
        add(digits_step_name(preset, 0), f"s4-curves-mnist-{preset}", source, f"{curves}, MNIST")
        source = folder / "prior" / "prior-fit.png"
        add(f"prior {preset}", f"prior-fit-{preset}", source, "validation images' codes beside the prior")
        source = folder / "prior" / "prior-samples.png"
        add(f"prior {preset}", f"prior-samples-{preset}", source, "images decoded from draws of the prior")
    audit = {
        "attacks": "what attacks make of masks",
        "worst": "images that each attacker rebuilds best",
        "leakage": "SSIM and re-identification against known pairs",
        "frontier": "accuracy against leakage",
    }
    for name, caption in audit.items():
        add("audit", f"audit-{name}", runs / "audit" / "figures" / f"audit-{name}.png", caption)
    return pictures
