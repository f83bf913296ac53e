"""The leakage audit behind ``crosspair.py --audit``: every attack on every mask, then tables, pictures and verdict."""

import contextlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from maskbench import system
from maskbench.data import cifar100, datasets
from maskbench.data.image_set import TEST, ImageSet, to_float
from maskbench.data.masked_set import KEYED, NOISY, parts_of
from maskbench.data.pixels import AS_IT_IS, Reading
from maskbench.errors import InputError
from maskbench.leakage import frontier, plan, release, report, scores, threats
from maskbench.leakage.controls import CONTROLS
from maskbench.leakage.figures import Pictures
from maskbench.leakage.knowledge import MOST_PAIRS, Knowledge, limited_oracle
from maskbench.leakage.settings import NOTHING_SAID, Accuracy, Release, Settings
from maskbench.leakage.table import COLUMNS
from maskbench.leakage.world import Images, Victim, World
from maskbench.masking import METHODS, Autoencoder, key
from maskbench.masking.noise import written
from maskbench.models import checkpoints
from maskbench.runtime.child_processes import in_forks
from maskbench.storage import atomic, pt, tables
from maskbench.storage.ledger import Ledger, code_fingerprint

EVALUATED = 1000  # images of each set
EXAMPLES = 6  # kept for the picture
WORST = 10  # images that an attack rebuilds best, kept for the report: of 1,000 the worst 1%
PICTURES = ("examples", "worst", "worst_examples")  # of a step's result
# masks that are audited beside the autoencoder's own
BESIDE = ("aae" + KEYED, *(name for name in METHODS if name != "aae"))

Finished = list[tuple[dict, dict[str, Tensor] | None]]  # what determines each step, and its result where it is made


def audit(
    victim: Path | str,
    attacker: Path | str,
    output_dir: Path | str,
    dataset: str = "cifar10",
    private: str | None = None,
    accuracy: Accuracy | None = None,
    limit: int | None = None,
    seed: int = 0,
    more_models: Sequence[Path] = (),
    data_dir: Path | str = "data",
    workers: int = 0,
    skip_corrupt: bool = False,
    reading: Reading = AS_IT_IS,
    masks: Sequence[str] = BESIDE,
    terms: Release = NOTHING_SAID,
    jobs: int = 1,
) -> None:
    """Measure what the masks of trained autoencoders leak; ``audit.md`` in ``output_dir`` says it.

    A stopped audit resumes.

    Args:
        victim: the folder of a trained instance, as ``train_aae.py`` leaves it.
        attacker: that of the attacker's own instance: of the same kind and sizes, another seed; with preset
            ``invariant``, with its ``checkpoint.pt``.
        output_dir: is made where it is missing.
        dataset: what the autoencoders were trained on.
        private: a labelled set that is judged, too.
        accuracy: classifies masks of the private set, such as ``classify.mean_accuracies``; without it,
            ``frontier.csv`` is left out.
        limit, seed, more_models, data_dir, workers, skip_corrupt, reading, masks, terms, jobs: see
            :class:`maskbench.leakage.settings.Settings`.

    Raises:
        InputError: no trained instances or not of one kind, too few images, a mask that there is not, a release of
            other masks, several jobs where processes cannot be forked, or another audit is writing there.
    """
    if jobs > 1 and not system.FORKS:
        raise InputError(f"--jobs {jobs}: several steps at once need Linux; leave it out")
    settings = Settings(
        dataset=dataset,
        private=private,
        limit=limit,
        seed=seed,
        output_dir=Path(output_dir),
        more_models=more_models,
        data_dir=Path(data_dir),
        workers=workers,
        skip_corrupt=skip_corrupt,
        reading=reading,
        masks=[mask_name(mask) for mask in masks],
        terms=terms,
        jobs=jobs,
    )
    instances = load_instances(Path(victim), Path(attacker))
    classifiers = [inspect.getfile(getattr(accuracy, "func", accuracy))] if accuracy else []
    with atomic.output_folder(settings.output_dir):
        ledger = Ledger(settings.output_dir / "audit-runs.pt", code_fingerprint(*classifiers))
        run(settings, *instances, ledger, accuracy)


def mask_name(name: str) -> str:
    """The name of a mask that can be audited, as a masked file has it: the autoencoder's, ``BESIDE``, or one in noise.

    Raises:
        InputError: there is no such mask.
    """
    with contextlib.suppress(ValueError):
        base, kept, keyed = parts_of(name)
        if base == "aae" and kept is not None:
            return f"aae{NOISY}{written(kept)}" + (KEYED if keyed else "")
    if name not in ("aae", *BESIDE):
        raise InputError(f"--masks {name}: there is no such mask; choose among {', '.join(BESIDE)}, aae{NOISY}0.5")
    return name


def load_instances(victim: Path, attacker: Path) -> tuple[Autoencoder, Autoencoder, Autoencoder]:
    """The owner's autoencoder, another one of another seed, and this one in training, which forgot nothing.

    The last two are the attacker's: codes that forgot are more like the owner's, codes that did not tell more.

    Raises:
        InputError: one is missing, they are not of one kind, or files are not of one training.
    """
    pairs = [checkpoints.load_pair(folder) for folder in (victim, attacker)]
    owner, another = (Autoencoder(encoder, fingerprint, decoder) for encoder, decoder, fingerprint in pairs)
    if owner.encoder.config != another.encoder.config:
        raise InputError(f"{attacker}: its sizes {another.encoder.config} are not those of {victim}")
    if owner.encoder.config["preset"] == "paper":  # where nothing is forgotten
        return owner, another, another
    path = attacker / "checkpoint.pt"
    encoder, decoder, belongs_to = checkpoints.load_in_training(path)
    if belongs_to != another.fingerprint:
        raise InputError(
            f"{path}: is not of the training of encoder.pt beside it; resume that, or bring its files back"
        )
    return owner, another, Autoencoder(encoder, pt.fingerprint(encoder.state_dict()), decoder)


def run(
    settings: Settings,
    owner: Autoencoder,
    another: Autoencoder,
    attacker: Autoencoder,
    ledger: Ledger,
    accuracy: Accuracy | None,
) -> None:
    """The whole audit, into ``settings.output_dir``.

    Args:
        owner, another, attacker: see :func:`load_instances`.
        ledger: keeps finished steps.
        accuracy: classifies the masked private set; None leaves accuracy against leakage out.
    """
    releases = release.all_released(settings.terms, owner)
    others = [load_instances(folder / "0", folder / "1") for folder in settings.more_models]
    taken: dict[tuple, Path | str] = {frontier.kind_of(owner): "the audited one"}
    for folder, (other, *_) in zip(settings.more_models, others, strict=True):
        if other.image_size != owner.image_size:
            raise InputError(f"{folder}: masks images of {other.image_size} pixels a side, not {owner.image_size}")
        if (kind := frontier.kind_of(other)) in taken:
            raise InputError(
                f"--more-models {folder}: has the preset and the --gaussian-dim of {taken[kind]}; leave one out"
            )
        taken[kind] = folder
    images, private = load_images(settings, owner.image_size, sum(owner.widths))
    key_file = settings.output_dir / "audit.key"
    if not key_file.exists():
        key.create(key_file)
    everything = {**images.judged, "validation": images.validation, "public": images.public}
    everything |= {f"known {name}": pixels for name, pixels in images.known.items()}
    everything |= {f"label means of {name}": means for name, means in images.label_means.items()}
    inputs = {"images": pt.fingerprint(everything), "seed": settings.seed}
    inputs |= {"key": atomic.digest(key_file), "torch": torch.__version__}
    secret = key.load(key_file, private=False)  # made above for trials, where a file system may know no modes
    world = World(images, owner, another, attacker, secret, settings.seed)

    masks = dict.fromkeys(("aae", *settings.masks, *(each.mask for each in releases)))
    steps = [step for mask in masks for step in plan.steps(mask, images)]
    # an earlier run's would not belong to what follows
    pages = settings.output_dir.glob("release-*.html")
    for path in (*pages, settings.output_dir / release.NAME, settings.output_dir / "frontier.csv"):
        path.unlink(missing_ok=True)
    found = finished(world, steps, ledger, inputs)
    of_run = inputs | {"networks": world.networks}
    before = said_before(settings.terms, [each.mask for each in releases], found, ledger, of_run, settings.output_dir)
    table, pictures = attack_all(world, steps, found, ledger, settings)
    tables.write_csv(settings.output_dir / "audit.csv", COLUMNS, table)
    if private is None:
        print("no --private set is given: no accuracy, no attributes")
    elif accuracy is not None:
        points = [frontier.audited(world, mask, table, inputs) for mask in masks]
        for instances in others:
            other, few = World(images, *instances, secret, settings.seed), frontier.steps(images)
            rows, _ = attack_all(other, few, finished(other, few, ledger, inputs), ledger, settings)
            points.append(frontier.beside(other, owner, rows, inputs))
        rows = frontier.trade_off(points, settings, private, ledger, accuracy)
        tables.write_csv(settings.output_dir / "frontier.csv", frontier.COLUMNS, rows)
    print(f"\n{report.write(settings.output_dir, images, pictures, owner.widths[0])}\n")
    of_last = images.judged[world.last], images.label_means[world.last]
    for each in releases:
        release.write(settings.output_dir, settings.terms, each.mask in before, each, pictures, *of_last)
    print(
        f"tables: {settings.output_dir}/audit.csv, audit.md; for the person who signs a release: "
        f"{', '.join(each.page for each in releases)}; "
        f"pictures: {settings.output_dir}/figures"
    )


def load_images(settings: Settings, image_size: int, numbers: int) -> tuple[Images, ImageSet | None]:
    """The images of an audit, divided so that no attacker is judged on what he knows; and the private set.

    Args:
        numbers: of a mask; baselines need as many public images.
    """

    def load(name: str, flag: str) -> ImageSet:
        files = settings.data_dir, image_size, settings.workers, settings.skip_corrupt
        return datasets.load(name, *files, flag, reading=settings.reading)

    full = load(settings.dataset, "--dataset")
    public, validation = datasets.autoencoder_split(full, settings.limit)
    count = min(EVALUATED, len(validation) // 2)
    rest = validation[len(validation) // 2 :] if full.name == "photos" else full.rows(TEST)[: settings.limit]
    if count < 2 * EXAMPLES or len(rest) < threats.PAIRS[0] or len(public) < numbers:
        raise InputError(
            f"--dataset {settings.dataset}: leaves too few images for an audit; use more, or a larger --limit"
        )
    first = settings.dataset.split(":")[0]
    judged, known = {first: full.images[validation[:count]]}, {first: full.images[rest]}
    labelled, private, learned = None, None, full.images[public]
    means = {first: label_means(full, public, validation[:count])}
    if settings.private is not None:
        private = load(settings.private, "--private")
        if len(private.classes) < frontier.CLASSES:
            raise InputError(
                f"--private {settings.private}: has {len(private.classes)} class(es), and accuracy is of draws of "
                f"{frontier.CLASSES}; choose another set"
            )
        rows = private.rows(TEST)[:count]
        name = settings.private.split(":")[0]
        name = f"private {name}" if name in judged else name
        judged[name] = private.images[rows]
        train = datasets.labelled_split(private, settings.limit)[0][:MOST_PAIRS]
        if len(train) < threats.PAIRS[0] or len(rows) < 2 * EXAMPLES:
            raise InputError(f"--private {settings.private}: leaves too few images for an audit; use more")
        known[name], means[name] = private.images[train], label_means(private, train, rows)
        if mostly_among(judged[name], known[first], learned) or mostly_among(judged[first], known[name]):
            raise InputError(
                f"--private {settings.private}: holds the images of --dataset {settings.dataset}, so that attackers "
                "would know those that they are judged on; choose another set, or leave it out"
            )
        if settings.private == "cifar100":
            coarse = cifar100.coarse_labels(private)
            labelled = private.images[train], coarse[train], coarse[rows]
    return Images(judged, known, means, full.images[validation], learned, labelled), private


def mostly_among(some: Tensor, *others: Tensor) -> bool:
    """Whether more than half of some images are among others, to the pixel: a few may well be in two sets."""
    told = {pt.fingerprint({"": image}) for images in others for image in images}
    return sum(pt.fingerprint({"": image}) in told for image in some) > len(some) // 2


def label_means(images: ImageSet, others: Tensor, rows: Tensor) -> Tensor:
    """Of each of the ``rows`` the mean of the ``others`` with its label, of all where none has it; ``[N, 3, S, S]``."""
    pixels, labels = images.images[others], images.labels[others]
    means = to_float(pixels).mean(0).repeat(len(images.classes), 1, 1, 1)
    for label in labels.unique():
        means[label] = to_float(pixels[labels == label]).mean(0)
    return means[images.labels[rows]]


def said_before(
    terms: Release, masks: Sequence[str], found: Finished, ledger: Ledger, inputs: dict, folder: Path
) -> set[str]:
    """Of the masks to be released those that the owner named, by the same thresholds, before any figure was there.

    What he says last before the first step is kept in the ledger. Where the folder holds a finished audit, be it with
    other inputs or of another version of the program, figures were there.

    Args:
        masks: that are to be released.
        found: what :func:`finished` says.
        inputs: that determine every step.
        folder: where the audit goes.
    """
    run = inputs | {"what": "terms"}
    thresholds = {name: value for name, value in asdict(terms).items() if name not in ("masked", "recipient")}
    said = {"thresholds": thresholds, "masks": list(masks)}
    if not (folder / "audit.csv").exists() and all(result is None for _, result in found):
        ledger.add(run, {"said": json.dumps(said)})
    kept = ledger.get(run, {"said": ""})
    first = json.loads(kept["said"]) if kept else {}
    return set(first["masks"]).intersection(masks) if first.get("thresholds") == thresholds else set()


def finished(world: World, steps: Sequence[plan.Step], ledger: Ledger, inputs: dict) -> Finished:
    """Of each step everything that determines it, and what the ledger keeps of it.

    Args:
        inputs: what determines every step, beside the world's networks.
    """
    found = []
    for step in steps:
        run = inputs | {"networks": world.networks, "mask": step.mask, "threat": step.threat, "pairs": step.count}
        run["attacks"] = [name for name, _ in step.results()]
        rows, drawn, shape = len(step.rows(list(world.judged))), len(step.drawn()), world.images.public.shape[1:]
        template = {
            "values": torch.empty(rows, 3, dtype=torch.float64),
            "examples": torch.empty(drawn, EXAMPLES, *shape, dtype=torch.uint8),
            "worst": torch.empty(drawn, WORST, dtype=torch.int64),
            "worst_examples": torch.empty(drawn, WORST, *shape, dtype=torch.uint8),
        }
        found.append((run, ledger.get(run, template)))
    return found


@torch.no_grad()
def attack_all(
    world: World, steps: Sequence[plan.Step], found: Finished, ledger: Ledger, settings: Settings
) -> tuple[list[list], dict[tuple[str, str, str, int], Pictures]]:
    """Every step, or what the ledger keeps of it.

    Args:
        found: of each step what :func:`finished` says.
        settings: how many steps are made at once, and the folder of the ledger for the message.

    Returns:
        The rows of ``audit.csv``; pictures by mask, threat, attack and count.
    """
    judged = list(world.judged)
    runs, results = map(list, zip(*found, strict=True))
    missing = [number for number, result in enumerate(results) if result is None]
    if settings.jobs > 1 and missing:
        _ = world.directions, world.nearest_public, world.crowd  # before forks would make them each
    with tqdm(total=len(steps), initial=len(steps) - len(missing), unit="step") as progress:

        def make(number: int) -> dict[str, Tensor]:
            step = steps[number]
            if settings.jobs == 1:
                progress.set_description(f"{step.mask}, {step.threat}, {step.count} pairs")
            return attack(world, step)

        order = missing
        if settings.jobs > 1:  # what takes long would run alone if it came last
            order = sorted(missing, key=lambda number: -steps[number].seconds)
        for number, result in in_forks(make, order, settings.jobs, settings.output_dir):
            ledger.add(runs[number], result)
            results[number] = result
            progress.update()
    table, pictures = [], {}
    for step, result in zip(steps, results, strict=True):
        for (of_set, name, measure), values in zip(step.rows(judged), result["values"].tolist(), strict=True):
            table.append([step.mask, of_set, step.threat, name, step.count, measure, *values])
        for name, *of_attack in zip(step.drawn(), *(result[part] for part in PICTURES), strict=True):
            pictures[step.mask, step.threat, name, step.count] = Pictures(*of_attack)
    if kept := len(steps) - len(missing):
        print(f"{kept} of {len(steps)} steps were finished before and kept ({settings.output_dir}/audit-runs.pt)")
    return table, pictures


def given(knowledge: Knowledge, attack: plan.Attack, world: World, victim: Victim) -> Knowledge:
    """What an attack is given of its threat's knowledge: candidates where it is to find them, an oracle of its own."""
    more = {}
    if attack.kind.candidates is not None:
        more["candidates"] = attack.kind.candidates(world)
        more["masks"] = {name: victim.masks[name] for name in more["candidates"]}
    if knowledge.oracle is not None:
        more["oracle"] = limited_oracle(victim.encode, knowledge.oracle.queries, victim.name)
    return replace(knowledge, **more) if more else knowledge


def attack(world: World, step: plan.Step) -> dict[str, Tensor]:
    """A step's figures and pictures; every attack is given the knowledge of its threat, and nothing else.

    Returns:
        ``values`` float64 ``[rows, 3]``: each row of :meth:`plan.Step.rows` with its 95% interval over
        images; ``examples`` uint8 ``[reconstructions, EXAMPLES, 3, S, S]``: pictures of the first judged images;
        ``worst`` int64 ``[reconstructions, WORST]`` and ``worst_examples``: the best rebuilt of the last set.
    """
    victim = world.victim(step.mask)
    knowledge = threats.THREATS[step.threat].knowledge(world, victim, step.count)
    found = [attack.run(given(knowledge, attack, world, victim)) for attack in step.attacks]
    if step.controls:
        controls = [CONTROLS[kind].run(world) for kind in step.controls]
        found = [*(victim.anchors()[name] for name in plan.ANCHORS), *controls, *found]
    values, none = [], torch.empty(0, EXAMPLES, *world.images.public.shape[1:], dtype=torch.uint8)
    pictures = [[none], [torch.empty(0, WORST, dtype=torch.int64)], [none.new_empty(0, WORST, *none.shape[2:])]]
    for (_, kind), result in zip(step.results(), found, strict=True):
        of_sets = scores.judged(kind, result, world)
        for name in kind.sets(list(world.judged)):
            values += scores.intervals(kind, of_sets[name])
        if kind is scores.RECONSTRUCTION:
            first, last = (result[name].mul(255).round().to(torch.uint8) for name in (world.first, world.last))
            worst = of_sets[world.last][:, 2].topk(WORST).indices  # SSIM
            for kept, one in zip(pictures, (first[:EXAMPLES], worst, last[worst]), strict=True):
                kept.append(one[None])
    parts = dict(zip(PICTURES, map(torch.cat, pictures), strict=True))
    return {"values": torch.tensor(values, dtype=torch.float64), **parts}
