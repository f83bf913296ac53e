"""The paper's tables and figures, ours beside them, on the real data: hours on two cores.

    make reproduce                              # all of it; started again, it resumes
    python -m maskbench.reproduce --draws 3     # fewer draws of classes
    python -m maskbench.reproduce --collate     # run nothing, write results/ from what is finished

Every step is commands that anybody can type, of the four scripts and of ``maskbench.reproduce.measure``. Several steps
run side by side; what they print is in ``runs/reproduce/logs``. Finished steps are kept in
``runs/reproduce/steps.csv`` and skipped, unless their command or a step before that they depend on has changed. Paths
are relative to the root of the repository.
"""

import argparse
import os
import platform
from pathlib import Path

import torch

from maskbench import system
from maskbench.errors import InputError
from maskbench.reproduce import readme, results_folder
from maskbench.reproduce.plan import make_plan
from maskbench.reproduce.runner import finished, read_log, run_steps, threads_of
from maskbench.runtime import command_line
from maskbench.runtime.machine import processor
from maskbench.storage import atomic

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    args = parse_arguments()
    os.chdir(ROOT)
    if not Path("train_aae.py").exists():
        raise InputError(f"{ROOT} is not maskbench's repository; clone it and install maskbench with --editable")
    steps = make_plan(args.runs, args.data_dir, args.draws, args.instances)

    def collate_into(results: Path) -> None:
        log = read_log(args.runs)
        done = finished(steps, log)
        results_folder.write_results(args.runs, results, done, [log[step.name] for step in steps if step.name in done])
        if results.resolve() == ROOT / "results":
            readme.rewrite_section(ROOT / "README.md", readme.readme_section(results))

    if args.collate:
        if not finished(steps, read_log(args.runs)):
            raise InputError(f"--runs {args.runs}: holds no finished step; run make reproduce first")
    else:
        with atomic.output_folder(args.runs, "--runs"):
            atomic.write_text(args.runs / "machine.txt", machine(args.jobs))
            print(f"what the steps print goes to {args.runs / 'logs'}, what is finished to {args.runs / 'results'}")
            # not to --results: a part of a run would take the place of a whole one
            run_steps(steps, args.runs, args.jobs, lambda: collate_into(args.runs / "results"))
    collate_into(args.results)
    print(f"results: {args.results}/README.md")


def machine(jobs: int) -> str:
    """Processor, cores, memory and the versions that results depend on, in one line."""
    import sklearn

    memory = system.memory() / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory{gpu}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, "
        f"{jobs} steps at once, OMP_NUM_THREADS={threads_of(jobs)}\n"
    )


def parse_arguments() -> argparse.Namespace:
    parser = command_line.ArgumentParser(__doc__)
    add = parser.add_argument
    add("--runs", type=command_line.path, default=Path("runs/reproduce"), help="where the steps leave their outputs")
    add(
        "--results",
        type=command_line.path,
        default=Path("results"),
        help="where tables and pictures go when all is done",
    )
    add("--data-dir", type=command_line.path, default=Path("data"), help="where datasets are kept or downloaded to")
    add("--draws", type=command_line.integer(1), default=30, help="random draws of the classes in Table 1")
    add("--instances", type=command_line.integer(2), default=4, help="autoencoders of preset paper, paired in all ways")
    jobs = "steps at once, by default one a core; fewer share the cores and take less memory"
    add("--jobs", type=command_line.integer(1), default=os.cpu_count(), help=jobs)
    add("--collate", action="store_true", help="run nothing; write what is finished; give the flags of that run")
    return parser.parse_args()


if __name__ == "__main__":
    command_line.run(main)
