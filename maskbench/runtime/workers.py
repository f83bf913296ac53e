"""What joblib runs tasks in: threads, processes of this machine, or a cluster of dask or ray."""

import contextlib
import functools
import logging
import os
import signal
import warnings
from collections.abc import Iterator

import joblib

from maskbench.errors import InputError
from maskbench.system import children_deaf_to_ctrl_c, die_with_parent

NAMES = ("threading", "loky", "dask", "ray")


@contextlib.contextmanager
def workers(name: str, jobs: int | None) -> Iterator[int]:
    """Within, ``joblib.Parallel`` runs its tasks in a back end, and may return generators; at the end it is closed.

    Args:
        name: one of ``NAMES``.
        jobs: tasks at once; None for one a core. A dask cluster that runs already has its own number.

    Yields:
        Cores that tasks share: this machine's; of a cluster 1, the core of one worker.

    Raises:
        InputError: the back end is not installed.
    """
    cores = jobs or joblib.cpu_count()
    cluster = {"dask": _dask, "ray": _ray}.get(name)
    processes = {"initializer": die_with_parent} if name == "loky" else {}
    with (
        cluster(cores) if cluster else contextlib.nullcontext(processes) as options,
        joblib.parallel_config(name, n_jobs=jobs or -1, **options),
        warnings.catch_warnings(),
    ):
        # of tasks that were given up, as they are when a script is stopped or fails
        warnings.filterwarnings("ignore", ".*tasks.*", module="joblib")
        yield 1 if cluster else cores


@contextlib.contextmanager
def _reached(variable: str, address: str | None, *errors: type[Exception]) -> Iterator[None]:
    """Within, these errors mean that no cluster answers at the address that a variable names, if it names one."""
    try:
        yield
    except errors as error:
        if not address:
            raise
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise InputError(
            f"{variable} {address}: no cluster answers there ({reason}); start it, mend the address, or unset the "
            "variable to use this machine"
        ) from None


@contextlib.contextmanager
def _dask(cores: int) -> Iterator[dict]:
    """The cluster of DASK_SCHEDULER_ADDRESS, or processes of this machine with one thread each; options of joblib's."""
    try:
        import dask
        import distributed
    except ImportError:
        raise InputError("--backend dask: not installed; run pip install 'dask[distributed]'") from None
    local = {"n_workers": cores, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": logging.CRITICAL}
    address = dask.config.get("scheduler-address", None) or None  # an empty one is none
    if address:
        local = {}
    # a task brings its rows along, and none is used twice
    options = {"scheduler-address": address, "distributed.admin.large-graph-warning-threshold": "1 TiB"}
    with dask.config.set(options):
        reached = functools.partial(_reached, "DASK_SCHEDULER_ADDRESS", address)
        # Ctrl-C is for the script, which closes them; the errors are of an address that is none or does not answer
        with children_deaf_to_ctrl_c(), reached(OSError, ValueError, TypeError):
            client = distributed.Client(**local)
        with client, reached(TimeoutError):  # joblib's, of a cluster without workers
            yield {"client": client}


@contextlib.contextmanager
def _ray(cores: int) -> Iterator[dict]:
    """The cluster of RAY_ADDRESS, or processes of this machine; options of joblib's."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report home
    try:
        import ray
        from ray.util.joblib.ray_backend import RayBackend
    except ImportError:
        raise InputError("--backend ray: not installed; run pip install ray") from None

    class Backend(RayBackend):
        supports_return_generator = True  # it does; joblib denies it of all that derive from multiprocessing's

    joblib.register_parallel_backend("ray", Backend)
    address = os.environ.get("RAY_ADDRESS")
    local = {} if address else {"num_cpus": cores, "include_dashboard": False}
    terminate = signal.getsignal(signal.SIGTERM)
    with _reached("RAY_ADDRESS", address, OSError, RuntimeError, ValueError):
        ray.init(**local, log_to_driver=False, logging_level="ERROR")
    signal.signal(signal.SIGTERM, terminate)  # ray has put its own in the place of the script's
    try:
        yield {}
    finally:
        ray.shutdown()
