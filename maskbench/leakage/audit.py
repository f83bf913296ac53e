"""The leakage audit behind ``crosspair.py --audit``: which attack runs when, and the tables, pictures and verdict.

The victim is instance 0 of the trained autoencoders; the attacker runs the same program on public images of the same
kind and has instance 1. He reads masks as anybody can who knows the method: with the radius and the softmax undone
(:meth:`maskbench.models.decoder.Decoder.unmask`, with the contrast of his own decoder).

================ =====================================================================================================
threat           what the attacker has
================ =====================================================================================================
masks-only       masked vectors, and public images of the same kind
known-pairs      k masked vectors beside their images, and all of the above
oracle           n images of his choice, masked for him, and all of the first
stolen-encoder   the encoder's weights; where a key turned the masks, without the key
================ =====================================================================================================

Which images: attacks are judged on the first 1,000 validation images of the autoencoders, which nobody trained on, and
on test images of the private set. Known pairs are of the test part of ``--dataset`` (of ``photos``, whose test part is
the validation part, of its second half). Public images are those the autoencoders trained on. A masked set of all
validation images is what the attacker takes statistics of.
"""

import argparse
import functools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from tqdm import tqdm

from maskbench.data import cifar100, datasets, image_quality
from maskbench.data.image_set import TEST, to_float
from maskbench.data.masked_set import KEYED
from maskbench.errors import InputError
from maskbench.leakage import attacks, report
from maskbench.masking import key
from maskbench.models import PRESETS, Decoder, Encoder, checkpoints
from maskbench.storage import atomic, pt, tables
from maskbench.storage.ledger import Ledger, code_fingerprint

ROOT = Path(__file__).resolve().parent.parent.parent
PAIRS = (0, 10, 30, 100, 300, 1000, 3000, 10_000)
UNLIMITED = PAIRS[-1]  # pairs that whoever has the encoder makes of public images
FRONTIER_PAIRS = 1000
CHOSEN_QUERIES = 1000  # beyond that photographs, of which a mask that is not quite linear tells more
EVALUATED = 1000  # images of each set
INVERTED = 100  # of them by gradient inversion, which takes seconds an image
EXAMPLES = 6  # kept for the picture
RESAMPLES = 500  # of the bootstrap
DRAWS = 5  # of three classes, for the accuracy
MASKS = ("aae", "aae" + KEYED, "pca", "random-projection", "untrained", "identity")
IMAGE_MEASURES = tuple(f"{name}{kind}" for name in ("mse", "psnr", "ssim") for kind in ("", "_median", "_best1"))
MEASURES = {
    "re-identification": ("reid_at_1", "mean_rank", "median_rank"),
    "attribute": ("accuracy",),
    "membership": ("accuracy",),
}
COLUMNS = ("mask", "images", "threat", "attack", "pairs", "measure", "mean", "low", "high")
FRONTIER_COLUMNS = ("mask", "gaussian_dim", "method", "accuracy", "std", "draws", "ssim", "low", "high")


Comparison = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # codes and candidates, made comparable


@dataclass
class Mask:
    """A way of masking, as its attacker sees it.

    Attributes:
        name: as in the masked format.
        encode: the owner's: float32 images ``[N, 3, S, S]`` -> codes ``[N, D]``, as the attacker reads them.
        rebuild: what the owner can make of the masks of images, ``[N, 3, S, S]`` twice: the matched decoder.
        own: the attacker's own instance of the method, images -> codes.
        own_decode: and its decoder.
        stolen: what the encoder's weights alone compute, ``encode`` but for a key.
    """

    name: str
    encode: Callable[[Tensor], Tensor]
    rebuild: Callable[[Tensor], Tensor]
    own: Callable[[Tensor], Tensor]
    own_decode: Callable[[Tensor], Tensor]
    stolen: Callable[[Tensor], Tensor]


@dataclass
class Images:
    """All images of an audit, uint8 ``[N, 3, S, S]``; see the module's docstring for which is which.

    Attributes:
        judged: by the name of their set.
        labelled: training images of CIFAR-100 and their superclasses, then those of the judged images; or None.
    """

    judged: dict[str, Tensor]
    validation: Tensor
    known: Tensor
    public: Tensor
    labelled: tuple[Tensor, Tensor, Tensor] | None


def run(args: argparse.Namespace, encoders: list[Encoder], decoders: list[Decoder], image_size: int) -> None:
    """The whole audit, into ``args.output_dir``."""
    images = load_images(args, image_size)
    key_file = args.output_dir / "audit.key"
    if not key_file.exists():
        key.create(key_file)
    ledger = Ledger(args.output_dir / "audit-runs.pt", code_fingerprint(str(ROOT / "crosspair.py")))
    networks = [pt.fingerprint(network.state_dict()) for network in (*encoders[:2], *decoders[:2])]
    inputs = {"networks": networks, "seed": args.seed, "torch": torch.__version__, "key": atomic.digest(key_file)}
    everything = {**images.judged, "validation": images.validation, "known": images.known, "public": images.public}
    inputs["images"] = pt.fingerprint(everything)

    table, examples, kept = [], {}, 0
    steps = [(mask, *step) for mask in MASKS for step in plan(mask, len(images.known), images.labelled is not None)]
    with torch.no_grad():
        auditor = Auditor(images, encoders, decoders, key.load(key_file), args.seed)
        with tqdm(total=len(steps), unit="step") as progress:
            for mask, threat, pairs, names in steps:
                progress.set_description(f"{mask}, {threat}, {pairs} pairs")
                step = inputs | {"mask": mask, "threat": threat, "pairs": pairs}
                labels = [label for name in names for label in row_labels(name, images)]
                like = {"values": torch.empty(len(labels), 3, dtype=torch.float64)}
                like["examples"] = torch.empty(
                    sum(name not in MEASURES for name in names), EXAMPLES, 3, image_size, image_size, dtype=torch.uint8
                )
                result = ledger.get(step, like)
                kept += result is not None
                if result is None:
                    result = measure(auditor.attack(mask, threat, pairs, names), names, images)
                    ledger.add(step, result)
                for (name, attack, figure), values in zip(labels, result["values"].tolist(), strict=True):
                    table.append([mask, name, threat, attack, pairs, figure, *values])
                pictures = (name for name in names if name not in MEASURES)
                examples |= {
                    (mask, threat, name, pairs): pixels
                    for name, pixels in zip(pictures, result["examples"], strict=True)
                }
                progress.update()
    if kept:
        print(f"{kept} of {len(steps)} steps were finished before and kept ({args.output_dir}/audit-runs.pt)")
    tables.write_csv(args.output_dir / "audit.csv", COLUMNS, table)

    frontier = []
    if args.private is None:
        print(f"--dataset {args.dataset} has no labels and no --private set is given: no accuracy, no attributes")
    else:
        frontier = trade_off(args, table, images, encoders, decoders, key_file, ledger, inputs)
        tables.write_csv(args.output_dir / "frontier.csv", FRONTIER_COLUMNS, frontier)
    judged = next(iter(images.judged.values()))
    print(f"\n{report.write(args.output_dir, judged[:EXAMPLES], examples, len(judged))}\n")
    print(f"tables: {args.output_dir}/audit.csv, audit.md; pictures: {args.output_dir}/figures")


def load_images(args: argparse.Namespace, image_size: int) -> Images:
    """The images of an audit, divided so that no attacker is judged on what he knows."""
    full = datasets.load(args.dataset, args.data_dir, image_size, args.workers, args.skip_corrupt)
    public, validation = datasets.autoencoder_split(full, args.limit)
    count = min(EVALUATED, len(validation) // 2)
    known = validation[len(validation) // 2 :] if full.name == "photos" else full.rows(TEST)[: args.limit]
    if count < 2 * EXAMPLES or len(known) < PAIRS[1]:
        raise InputError(f"--dataset {args.dataset}: leaves too few images for an audit; use more, or a larger --limit")
    judged, labelled = {args.dataset.split(":")[0]: full.images[validation[:count]]}, None
    if args.private is not None:
        private = datasets.load(args.private, args.data_dir, image_size, args.workers, args.skip_corrupt, "--private")
        rows = private.rows(TEST)[:count]
        name = args.private.split(":")[0]
        judged[f"private {name}" if name in judged else name] = private.images[rows]
        if args.private == "cifar100":
            train, _ = datasets.labelled_split(private, args.limit)
            coarse = cifar100.coarse_labels(private)
            labelled = private.images[train[:UNLIMITED]], coarse[train[:UNLIMITED]], coarse[rows]
    return Images(judged, full.images[validation], full.images[known], full.images[public], labelled)


def plan(mask: str, known: int, labelled: bool) -> list[tuple[str, int, list[str]]]:
    """What is done to a mask: ``(threat, pairs, attacks)``; ``known`` is the number of pairs there are at most."""
    pairs = [count for count in PAIRS if count <= known]
    attribute = ["attribute"] if labelled else []
    trained = ["membership"] if mask in ("aae", "pca") else []
    steps = [
        ("masks-only", 0, ["mean-image", "matched-decoder", "mismatched-decoder", "unpaired", "re-identification"])
    ]
    if mask == "identity":
        steps[0][2].remove("unpaired")
    attack_all = ["ridge", "procrustes", "latent-ridge", "inverse-decoder", "re-identification", *attribute]
    steps += [("known-pairs", count, attack_all) for count in pairs[1:]]
    steps += [("oracle", count, ["ridge", "re-identification"]) for count in pairs[1:]]
    if mask.endswith(KEYED):
        steps.append(("stolen-encoder", 0, ["unpaired", "re-identification"]))
        return steps + [("stolen-encoder", count, ["procrustes", "re-identification"]) for count in pairs[1:]]
    steps.append(("stolen-encoder", 0, ["gradient-inversion", "re-identification", *trained]))
    if mask == "identity":
        steps[-1][2].remove("gradient-inversion")
    return [*steps, ("stolen-encoder", UNLIMITED, ["ridge", "inverse-decoder", *attribute])]


def row_labels(attack: str, images: Images) -> list[tuple[str, str, str]]:
    """``(images, attack, measure)`` of every row that an attack gives."""
    sets = list(images.judged)
    sets = {"attribute": sets[-1:], "membership": sets[:1]}.get(attack, sets)
    return [(name, attack, measure) for name in sets for measure in MEASURES.get(attack, IMAGE_MEASURES)]


class Auditor:
    """All masks of one audit, and what is computed once for several attacks on them."""

    def __init__(self, images: Images, encoders: list[Encoder], decoders: list[Decoder], secret: bytes, seed: int):
        self.images, self.seed = images, seed
        self.encoders, self.decoders = encoders, decoders
        # masks of another length than his own cannot be read by his decoder; their contrast is nearly the same
        alike = encoders[0].config["gaussian_dim"] == encoders[1].config["gaussian_dim"]
        self.read = decoders[1 if alike else 0].unmask
        self.own_aae = lambda pixels: decoders[1].unmask(torch.cat(encoders[1](pixels), 1))
        self.own_decoder = _Rebuild(decoders[1])
        self.transform = key.KeyedTransform(secret, *(encoders[0].config[n] for n in ("gaussian_dim", "categories")))
        self.judged = {name: to_float(pixels) for name, pixels in images.judged.items()}
        self.known = to_float(images.known[:UNLIMITED])
        self.public = to_float(images.public[:UNLIMITED])
        self.mean_image = self.public.mean(0)
        self.mask, self.codes = functools.cache(self._mask), functools.cache(self._codes)
        self.unpaired, self.principal = functools.cache(self._unpaired), functools.cache(self._principal)
        self.stolen_decoder = functools.cache(self._stolen_decoder)

    def attack(self, mask: str, threat: str, pairs: int, names: list[str]) -> dict[str, dict[str, Tensor]]:
        """What each attack makes of the judged images of each set: images, ranks, or whether it was right."""
        run = {
            "masks-only": self._masks_only,
            "known-pairs": self._known_pairs,
            "oracle": self._oracle,
            "stolen-encoder": self._stolen_keyed if mask.endswith(KEYED) else self._stolen,
        }
        results = run[threat](self.mask(mask), pairs)
        if "attribute" in names:
            results["attribute"] = self._attribute(self.mask(mask), pairs)
        return results

    def _masks_only(self, mask: Mask, _pairs: int) -> dict:
        results = {
            "mean-image": self._each(lambda pixels: self.mean_image.expand_as(pixels)),
            "matched-decoder": self._each(mask.rebuild),
            "mismatched-decoder": self._each(lambda pixels: self._decoded(mask.own_decode, mask.encode(pixels))),
        }
        ways = [lambda codes, candidates: (codes, candidates), *INVARIANT]
        if mask.name != "identity":
            align = self.unpaired(mask.name, "own")
            results["unpaired"] = self._each(lambda pixels: self._decoded(mask.own_decode, align(mask.encode(pixels))))
            ways.append(lambda codes, candidates: (align(codes), candidates))
        results["re-identification"] = self._each(lambda pixels: self._named(mask, mask.own, ways, pixels))
        return results

    def _known_pairs(self, mask: Mask, pairs: int) -> dict:
        return self._from_pairs(mask, self.known[:pairs], self.codes(mask.name, "encode", "known")[:pairs])

    def _from_pairs(self, mask: Mask, pixels: Tensor, codes: Tensor) -> dict:
        """Every attack on k pairs."""
        own = self.codes("aae", "own", "known")[: len(pixels)]
        own_mean = self.codes("aae", "own", "public").mean(0)
        mean = self.codes(mask.name, "encode", "validation").mean(0)
        ridge = attacks.Ridge(codes, mean)
        to_own = ridge.fit(own, own_mean)
        inverse = attacks.inverse_decoder(codes, pixels, self.own_decoder, to_own)
        maps = {
            "ridge": self._to_images(ridge.fit(pixels.flatten(1), self.mean_image.flatten())),
            "procrustes": self._through_own(attacks.procrustes(codes, own, mean, own_mean)),
            "latent-ridge": self._through_own(to_own),
            "inverse-decoder": inverse,
        }
        results = {name: self._each(lambda x, f=f: self._decoded(f, mask.encode(x))) for name, f in maps.items()}
        return results | {"re-identification": self._reidentified(mask, own, codes)}

    def _oracle(self, mask: Mask, queries: int) -> dict:
        """The attacker chooses the images; more than he can choose well are public ones as they are."""
        masked = self.codes(mask.name, "encode", "validation")
        mean, components = self.principal(0, 1, CHOSEN_QUERIES)
        if queries <= len(components):
            flat = attacks.chosen_images(mean, components[:queries])
            pictures = flat.view(-1, *self.mean_image.shape)
            codes = _batched(mask.encode, pictures)
            back, forward = attacks.wiener(flat, codes, mean, components, masked)
            rebuild = self._to_images(back)
            results = {"re-identification": self._each(lambda x: attacks.ranks(mask.encode(x), forward(x.flatten(1))))}
        else:
            pictures, codes = self.public[:queries], self.codes(mask.name, "encode", "public")[:queries]
            ridge = attacks.Ridge(codes, masked.mean(0))
            rebuild = self._to_images(ridge.fit(pictures.flatten(1), self.mean_image.flatten()))
            own = self.codes("aae", "own", "public")[:queries]
            results = {"re-identification": self._reidentified(mask, own, codes)}
        return results | {"ridge": self._each(lambda x: self._decoded(rebuild, mask.encode(x)))}

    def _stolen(self, mask: Mask, pairs: int) -> dict:
        if pairs:
            found = self._from_pairs_of_public(mask)
            return {name: self._each(lambda x, f=f: self._decoded(f, mask.encode(x))) for name, f in found.items()}
        results = {"re-identification": self._each(lambda x: attacks.ranks(mask.encode(x), mask.stolen(x)))}
        if mask.name != "identity":
            results["gradient-inversion"] = self._each(
                lambda x: attacks.gradient_inversion(mask.stolen, mask.encode(x[:INVERTED]), self.mean_image)
            )
        if mask.name in ("aae", "pca"):
            count = len(next(iter(self.judged.values())))
            members = to_float(self.images.public[:count])
            others = to_float(self.images.validation[:count])
            scores = (
                torch.stack(
                    (
                        image_quality.image_mse(_batched(mask.rebuild, x), x),
                        _batched(mask.encode, x).double().norm(dim=1),
                    ),
                    1,
                )
                for x in (members, others)
            )
            results["membership"] = {next(iter(self.judged)): attacks.membership(*scores)}
        return results

    def _from_pairs_of_public(self, mask: Mask) -> dict[str, attacks.Map]:
        codes = self.codes(mask.name, "encode", "public")
        ridge = attacks.Ridge(codes, codes.mean(0))
        own = self.codes("aae", "own", "public")
        inverse = attacks.inverse_decoder(codes, self.public, self.own_decoder, ridge.fit(own, own.mean(0)))
        pixels = ridge.fit(self.public.flatten(1), self.mean_image.flatten())
        return {"ridge": self._to_images(pixels), "inverse-decoder": inverse}

    def _stolen_decoder(self) -> attacks.Map:
        return self._from_pairs_of_public(self.mask("aae"))["inverse-decoder"]

    def _stolen_keyed(self, mask: Mask, pairs: int) -> dict:
        """The encoder without the key: what is left to find is the key."""
        if pairs == 0:
            align = self.unpaired(mask.name, "stolen")
            return {
                "unpaired": self._each(lambda x: self._decoded(self.stolen_decoder(), align(mask.encode(x)))),
                "re-identification": self._each(lambda x: self._named(mask, mask.stolen, INVARIANT, x)),
            }
        codes = self.codes(mask.name, "encode", "known")[:pairs]
        stolen = self.codes(mask.name, "stolen", "known")[:pairs]
        mean, stolen_mean = (self.codes(mask.name, name, "validation").mean(0) for name in ("encode", "stolen"))
        align = attacks.procrustes(codes, stolen, mean, stolen_mean)
        turned = lambda codes, candidates: (align(codes), candidates)  # noqa: E731
        return {
            "procrustes": self._each(lambda x: self._decoded(self.stolen_decoder(), align(mask.encode(x)))),
            "re-identification": self._each(lambda x: self._named(mask, mask.stolen, [*INVARIANT, turned], x)),
        }

    def _named(self, mask: Mask, own: attacks.Map, ways: Sequence[Comparison], pixels: Tensor) -> Tensor:
        """Ranks under one of several ways to compare, the one that looks best to somebody who knows no answer."""
        codes, candidates = mask.encode(pixels), own(pixels)
        compared = [way(codes, candidates) for way in ways]
        return attacks.ranks(*max(compared, key=lambda both: attacks.named_once(*both)))

    def _reidentified(self, mask: Mask, own: Tensor, codes: Tensor) -> dict[str, Tensor]:
        """Candidates are encoded by the attacker and turned into what the owner's encoder would say."""
        own_mean = self.codes("aae", "own", "public").mean(0)
        turn = attacks.Ridge(own, own_mean).fit(codes, self.codes(mask.name, "encode", "validation").mean(0))
        return self._each(lambda x: attacks.ranks(mask.encode(x), turn(self.own_aae(x))))

    def _attribute(self, mask: Mask, pairs: int) -> dict[str, Tensor]:
        pixels, labels, truth = self.images.labelled
        codes = _batched(mask.encode, to_float(pixels[:pairs]))
        name = list(self.judged)[-1]
        found = attacks.attribute(codes, labels[:pairs], _batched(mask.encode, self.judged[name]))
        return {name: found == truth}

    def _each(self, function: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        return {name: function(pixels) for name, pixels in self.judged.items()}

    def _decoded(self, decode: attacks.Map, codes: Tensor) -> Tensor:
        return _batched(decode, codes).clamp(0, 1)

    def _to_images(self, linear: attacks.Map) -> attacks.Map:
        return lambda codes: linear(codes).view(-1, *self.mean_image.shape)

    def _through_own(self, align: attacks.Map) -> attacks.Map:
        return lambda codes: self.own_decoder(align(codes))

    def _codes(self, mask: str, of: str, part: str) -> Tensor:
        pixels = {"known": self.known, "public": self.public}.get(part)
        pixels = to_float(self.images.validation) if pixels is None else pixels
        return _batched(getattr(self.mask(mask), of), pixels)

    def _unpaired(self, mask: str, of: str) -> attacks.Map:
        candidates = _batched(getattr(self.mask(mask), of), to_float(self.images.public))
        return attacks.unpaired(self.codes(mask, "encode", "validation"), candidates)

    def _principal(self, start: int, step: int, most: int) -> tuple[Tensor, Tensor]:
        """Mean ``[3 S S]`` and principal components, as long as their deviations, of every ``step``-th public image."""
        pixels = to_float(self.images.public[start::step]).flatten(1)
        solver = "covariance_eigh" if len(pixels) > pixels.shape[1] else "full"  # whichever matrix is smaller
        model = PCA(min(most, *pixels.shape), svd_solver=solver).fit(pixels.numpy())
        scaled = model.components_ * np.sqrt(model.explained_variance_)[:, None]
        return torch.from_numpy(model.mean_).float(), torch.from_numpy(scaled).float()

    def _mask(self, name: str) -> Mask:
        encoder, decoder = self.encoders[0], self.decoders[0]
        if name == "aae":
            encode = lambda pixels: self.read(torch.cat(encoder(pixels), 1))  # noqa: E731
            rebuild = lambda pixels: _batched(lambda x: decoder(torch.cat(encoder(x), 1)), pixels)  # noqa: E731
            return Mask(name, encode, rebuild, self.own_aae, self.own_decoder, encode)
        if name == "aae" + KEYED:
            encode = lambda pixels: self.read(torch.cat(self.transform.apply(*encoder(pixels)), 1))  # noqa: E731
            plain = self.mask("aae")
            return Mask(name, encode, plain.rebuild, plain.own, plain.own_decode, plain.encode)
        if name == "identity":
            encode = lambda pixels: pixels.flatten(1)  # noqa: E731
            return Mask(name, encode, lambda pixels: pixels, encode, self._to_images(lambda codes: codes), encode)
        encode, own = (self._yardstick(name, number) for number in (0, 1))
        decode, own_decode = (self._linear_decoder(mask) for mask in (encode, own))
        return Mask(name, encode, lambda pixels: decode(encode(pixels)).clamp(0, 1), own, own_decode, encode)

    def _yardstick(self, name: str, number: int) -> Callable[[Tensor], Tensor]:
        """The owner's (0) or the attacker's own (1) instance: other images, or other random numbers."""
        config = self.encoders[0].config
        torch.manual_seed(self.seed + 1000 + number)
        if name == "untrained":
            sizes = {size: config[size] for size in ("image_size", "gaussian_dim", "categories")}
            untrained = Encoder(**sizes, **PRESETS["paper"]).eval()
            return lambda pixels: self.read(torch.cat(untrained(pixels), 1))
        numbers = sum(config[name] for name in ("gaussian_dim", "categories"))
        mean, matrix = self.principal(number, 2, numbers)  # of half of the public images
        if name == "pca":
            matrix = matrix / matrix.norm(dim=1, keepdim=True).clamp_min(1e-12)
        else:
            matrix = torch.randn(matrix.shape) / len(matrix) ** 0.5
        return lambda pixels: (pixels.flatten(1) - mean) @ matrix.T

    def _linear_decoder(self, encode: Callable[[Tensor], Tensor]) -> attacks.Map:
        """What PCA, projections and untrained encoders lack: the best linear decoder, fitted to public images."""
        codes = _batched(encode, self.public)
        return self._to_images(
            attacks.Ridge(codes, codes.mean(0)).fit(self.public.flatten(1), self.mean_image.flatten())
        )


class _Rebuild(nn.Module):
    """A decoder of codes as the attacker reads them."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, codes: Tensor) -> Tensor:
        return self.decoder.rebuild(codes)


# what no rotation changes: the vectors' lengths, their distances to one another, and what these tell of the rotation
INVARIANT: tuple[Comparison, ...] = (
    lambda codes, candidates: (_length(codes), _length(candidates)),
    lambda codes, candidates: (attacks.distance_profiles(codes), attacks.distance_profiles(candidates)),
    lambda codes, candidates: (attacks.turned_by_profiles(codes, candidates), candidates),
)


def _length(codes: Tensor) -> Tensor:
    """``[N, D]`` -> ``[N, 1]``."""
    return codes.double().norm(dim=1, keepdim=True)


def _batched(function: attacks.Map, rows: Tensor, size: int = 500) -> Tensor:
    return torch.cat([function(some) for some in rows.split(size)])


def measure(results: dict[str, dict[str, Tensor]], names: list[str], images: Images) -> dict[str, Tensor]:
    """A step's figures, a row each in the order of :func:`row_labels`, and pictures of the first judged images.

    Returns:
        ``values`` float64 ``[rows, 3]``: the figure and its 95% bootstrap interval over images; ``examples`` uint8
        ``[attacks, EXAMPLES, 3, S, S]``.
    """
    values, examples = [], []
    for name in names:
        for of_set, result in results[name].items():
            if name in MEASURES:
                values += intervals(name, result)
            else:
                original = to_float(images.judged[of_set][: len(result)])
                values += intervals(name, image_quality.image_quality(result, original))
        if name not in MEASURES:
            pictures = results[name][next(iter(images.judged))][:EXAMPLES]
            examples.append(pictures.mul(255).round().to(torch.uint8))
    size = next(iter(images.judged.values())).shape[1:]
    stacked = torch.stack(examples) if examples else torch.empty(0, EXAMPLES, *size, dtype=torch.uint8)
    return {"values": torch.tensor(values, dtype=torch.float64), "examples": stacked}


def intervals(attack: str, results: Tensor) -> list[tuple[float, float, float]]:
    """Each measure of an attack and the 2.5% and 97.5% points of its bootstrap over images.

    Args:
        results: of every image: ``[N, 3]`` MSE, PSNR and SSIM; ``[N]`` ranks, or whether the attack was right.
    """
    results = results.double().numpy()
    drawn = np.random.RandomState(0).randint(len(results), size=(RESAMPLES, len(results)))
    if attack == "re-identification":
        figures = [(results == 1, np.mean), (results, np.mean), (results, np.median)]
    elif attack in MEASURES:
        figures = [(results, np.mean)]
    else:
        figures = []
        for column, best in zip(results.T, (0.01, 0.99, 0.99), strict=True):  # the best 1%: small MSE, high PSNR, SSIM
            at_best = functools.partial(np.quantile, q=best)
            figures += [(column, np.mean), (column, np.median), (column, at_best)]
    return [(float(f(x, axis=0)), *map(float, np.quantile(f(x[drawn], axis=1), (0.025, 0.975)))) for x, f in figures]


def trade_off(
    args: argparse.Namespace,
    table: list[list],
    images: Images,
    encoders: list[Encoder],
    decoders: list[Decoder],
    key_file: Path,
    ledger: Ledger,
    inputs: dict,
) -> list[list]:
    """Rows of ``frontier.csv``: accuracy on the private set beside what k = 1000 known pairs give away.

    The accuracies are those of ``mask_dataset.py`` and ``classify.py``, run as anybody would; of the key, all three
    classifiers', elsewhere without the slow AdaBoost.
    """
    rows = []
    public = next(iter(images.judged))
    pairs = max(count for count in PAIRS if count <= min(FRONTIER_PAIRS, len(images.known)))
    victims = [(name, args.models / "0" / "encoder.pt") for name in MASKS]
    victims += [("aae", folder / "0" / "encoder.pt") for folder in args.more_models]
    for number, (name, path) in enumerate(tqdm(victims, desc="accuracy", unit="mask")):
        dim = encoders[0].config["gaussian_dim"]
        if number < len(MASKS):
            leaks = [row for row in table if row[:3] == [name, public, "known-pairs"] and row[4] == pairs]
            leak = max((row[6:] for row in leaks if row[5] == "ssim"), key=lambda values: values[0])
        else:
            dim, leak = other_victim(path.parent, pairs, images, encoders, decoders, ledger, inputs)
        methods = ["mlp", "forest", *(["adaboost"] if number < 2 else [])]
        step = inputs | {"accuracy": name, "methods": methods, "private": args.private, "limit": args.limit}
        step |= {"encoder": atomic.digest(path) if path.exists() else str(path)}
        result = ledger.get(step, {"values": [[0.0] * 2] * len(methods)})
        if result is None:
            result = {"values": accuracies(args, name, path, methods, key_file, f"victim-{number}")}
            ledger.add(step, result)
        rows += [[name, dim, m, *v, DRAWS, *leak] for m, v in zip(methods, result["values"], strict=True)]
    return rows


def other_victim(
    folder: Path, pairs: int, images: Images, encoders: list, decoders: list, ledger: Ledger, inputs: dict
) -> tuple[int, list[float]]:
    """Length of the Gaussian part of another victim, and the SSIM (with interval) of the best attack by known pairs."""
    encoder, decoder, fingerprint = checkpoints.load_pair(folder)
    step = inputs | {"other": fingerprint, "pairs": pairs}
    result = ledger.get(step, {"values": [0.0] * 3})
    if result is None:
        with torch.no_grad():
            auditor = Auditor(images, [encoder, encoders[1]], [decoder, decoders[1]], bytes(32), 0)
            found = auditor.attack("aae", "known-pairs", pairs, [])
        public = next(iter(images.judged))
        original = to_float(images.judged[public])
        rows = [
            intervals(name, image_quality.image_quality(of_sets[public], original))[IMAGE_MEASURES.index("ssim")]
            for name, of_sets in found.items()
            if name not in MEASURES
        ]
        result = {"values": list(max(rows))}
        ledger.add(step, result)
    return encoder.config["gaussian_dim"], result["values"]


def accuracies(
    args: argparse.Namespace, name: str, encoder: Path, methods: list[str], key_file: Path, stem: str
) -> list[list[float]]:
    """Mean and deviation of each classifier's accuracy on the masked private set."""
    folder = args.output_dir / "accuracy"
    atomic.make_folder(folder)
    masked = folder / f"{stem}.pt"
    method = name.removesuffix(KEYED)
    flags = ["--dataset", args.private, "--method", method, "--output", masked, "--data-dir", args.data_dir]
    flags += ["--encoder", encoder] if method == "aae" else ["--fit-on", args.dataset]
    flags += ["--key", key_file] if name.endswith(KEYED) else []
    flags += ["--limit", args.limit] if args.limit else []
    _script("mask_dataset.py", *flags)
    flags = ["--masked", masked, "--classes", 3, "--repeats", DRAWS, "--methods", *methods, "--output-dir", folder]
    _script("classify.py", *flags)
    masked.unlink()
    rows = {row["method"]: row for row in tables.read(folder / f"{stem}.csv") if row["metric"] == "accuracy"}
    return [[float(rows[method][column]) for column in ("mean", "std")] for method in methods]


def _script(script: str, *arguments: object) -> None:
    """Run one of the scripts quietly; what it complains of is our complaint."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise InputError((done.stderr.strip().splitlines() or [f"{script}: ended with {done.returncode}"])[-1])
