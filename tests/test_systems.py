"""Other systems than the one that maskbench was written on, and programs that are started in unusual ways."""

import collections
import dataclasses
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import joblib
import matplotlib
import pytest
import torch
from conftest import ROOT, TRAINING, Forked, pictures

from maskbench import system
from maskbench.classification import figures
from maskbench.data import datasets, folders, masked_set, torchvision_sets
from maskbench.errors import InputError
from maskbench.masking import key
from maskbench.runtime import command_line, plotting, torchrun, workers
from maskbench.storage import atomic

POOR = """
import os, signal, sys
sys.modules.pop("fcntl", None)
class NoFcntl:
    def find_spec(self, name, path=None, target=None):
        if name == "fcntl":
            raise ModuleNotFoundError("No module named 'fcntl'", name=name)
sys.meta_path.insert(0, NoFcntl())
del os.posix_fallocate, os.fchmod, signal.pthread_sigmask
"""


def test_what_a_system_lacks_changes_no_mask(workplace, tmp_path):
    """From the interpreter's first import on; nor do streams that are closed: a process for each would take long."""
    (tmp_path / "sitecustomize.py").write_text(POOR)
    encoder = workplace / "runs" / "aae" / "0" / "encoder.pt"
    arguments = f"--dataset digits --encoder {encoder} --output poor.pt"
    command = f"{sys.executable} {ROOT / 'mask_dataset.py'} {arguments} >&- 2>&-"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment).returncode == 0
    there, here = masked_set.load(tmp_path / "poor.pt"), masked_set.load(workplace / "masked" / "digits.pt")
    assert torch.equal(there.gaussian, here.gaussian) and torch.equal(there.categorical, here.categorical)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_other_scripts_start_there_too():
    others = ["train_aae.py", "classify.py", "crosspair.py"]
    code = (
        f"{POOR}\nimport contextlib, runpy\nfor script in {others}:\n    sys.argv = [script, '--help']\n"
        "    with contextlib.suppress(SystemExit):\n        runpy.run_path(script, run_name='__main__')"
    )
    done = Forked("-c", code, cwd=ROOT).finish()
    assert all(f"usage: {script}" in done.stdout for script in others) and done.stdout.count("  --seed ") == 3


def test_without_room_that_can_be_reserved_masks_wait_in_memory(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    assert atomic.scratch(3, 2, tmp_path).shape == (3, 2) and not list(tmp_path.iterdir())

    def refuse(*_arguments: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    assert atomic.scratch(3, 2, tmp_path).shape == (3, 2) and not list(tmp_path.iterdir())


def test_a_folder_is_held_once_and_left_clean(tmp_path):
    with system.held(tmp_path):
        with pytest.raises(BlockingIOError), system.held(tmp_path):
            raise AssertionError
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir())


def test_who_waits_for_a_folder_says_so(tmp_path, capsys):
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with system.held(tmp_path):
            entered.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(10)
    threading.Timer(0.2, leave.set).start()
    with system.held(tmp_path, waiting="waiting for it"):
        assert leave.is_set() and capsys.readouterr().out == "waiting for it\n"
    holder.join()
    with system.held(tmp_path, waiting="waiting for it"):
        assert capsys.readouterr().out == ""


DRAWN = """
import sys
sys.stdout.reconfigure(encoding="ascii", errors="strict")  # as PYTHONIOENCODING=ascii has it
from maskbench.runtime import command_line, plotting
from pathlib import Path
def main():
    plotting.picture(lambda path: plotting.write(plotting.subplots()[0], path))(Path("drawn.png"))
    print("0.9 \u00b1 0.1")
command_line.run(main)
"""


@pytest.mark.parametrize("styles", [b"text.usetex: True\nfont.family: No Such Font\n", b"font.family: caf\xe9\n"])
def test_pictures_of_a_notebook_with_latex_and_another_encoding(tmp_path, styles):
    (tmp_path / "matplotlibrc").write_bytes(styles)
    settings = {"MPLBACKEND": "module://no.such.backend", "MPLCONFIGDIR": str(tmp_path)}
    done = Forked("-c", DRAWN, cwd=tmp_path, **settings).finish()
    assert done.returncode == 0 and done.stdout == "0.9 ? 0.1\n", done.stderr
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_costs_no_table(workplace, tmp_path, monkeypatch, run_here, capsys):
    def fails(*_arguments: object) -> None:
        raise RuntimeError("no font\nmore of it")

    monkeypatch.setattr(figures, "write", fails)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "digits.png").write_bytes(b"an earlier run's")
    masked = workplace / "masked" / "digits.pt"
    arguments = ("--classes", 2, "--repeats", 1, "--methods", "forest", "--estimators", 5, "--output-dir", "out")
    run_here("classify.py", "--masked", masked, *arguments)
    printed = capsys.readouterr()
    assert "digits.png: cannot be drawn, and is left out (no font)" in printed.err
    assert printed.out.rstrip().endswith("pictures:") and (tmp_path / "out" / "digits.csv").exists()
    assert not (tmp_path / "out" / "digits.png").exists()


def test_a_broken_matplotlib_costs_no_table(workplace, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('libfreetype.so: not found')")
    masked = workplace / "masked" / "digits.pt"
    arguments = ("--classes", 2, "--repeats", 1, "--methods", "forest", "--estimators", 5, "--output-dir", "out")
    done = Forked("classify.py", "--masked", masked, *arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path)).finish()
    assert done.returncode == 0, done.stderr
    assert "digits.png: cannot be drawn, and is left out (libfreetype.so: not found)" in done.stderr
    assert (tmp_path / "out" / "digits.csv").exists() and not (tmp_path / "out" / "digits.png").exists()


def test_a_file_that_cannot_be_written_is_still_an_error(tmp_path):
    figure, _ = plotting.subplots()
    with pytest.raises(InputError, match="cannot be written"):
        plotting.picture(lambda path: plotting.write(figure, path))(tmp_path / "nowhere" / "a.png")


def test_pictures_leave_the_callers_style_alone(tmp_path):
    with matplotlib.rc_context({"font.size": 3}):
        plotting.picture(lambda path: plotting.write(plotting.subplots()[0], path))(tmp_path / "a.png")
        assert matplotlib.rcParams["font.size"] == 3


CLOSED = """
import os, runpy, sys
os.close(1), os.close(2)
sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None  # as the interpreter has them then
sys.path.insert(0, os.path.dirname(sys.argv[1]))
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def test_closed_streams_stop_nothing(workplace, tmp_path):
    masked = workplace / "masked" / "digits.pt"
    arguments = ("--classes", 2, "--repeats", 1, "--methods", "forest", "--estimators", 5, "--output-dir", "out")
    done = Forked("-c", CLOSED, ROOT / "classify.py", "--masked", masked, *arguments, cwd=tmp_path).finish()
    assert done.returncode == 0
    assert (tmp_path / "out" / "digits.csv").exists() and (tmp_path / "out" / "digits.png").exists()


def test_nowhere_takes_names_that_are_no_text(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    command_line._open_streams()
    print("kaputt\udce9.png", flush=True)
    monkeypatch.setattr(torchrun, "started", lambda: True)
    monkeypatch.setattr(torchrun, "rank", lambda: 1)
    for name in ("init_process_group", "all_reduce", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *_, **__: None)
    with torchrun.processes(torch.device("cpu")):
        print("kaputt\udce9.png", flush=True)


def test_a_reader_that_goes_away_stops_nothing(run_here, workplace, tmp_path, monkeypatch):
    for name in ("stdout", "stderr"):
        reader, writer = os.pipe()
        os.close(reader)
        monkeypatch.setattr(sys, name, open(writer, "w", buffering=1))  # noqa: SIM115  closed with the process
    flags = ("--classes", 2, "--repeats", 1, "--methods", "forest", "--estimators", 5, "--output-dir", "out")
    run_here("classify.py", "--masked", workplace / "masked" / "digits.pt", *flags)
    print("still open", flush=True)
    assert (tmp_path / "out" / "digits.csv").exists()


def test_a_terminal_that_is_gone_stops_nothing():
    terminal, ours = os.openpty()
    with open(ours, "w", buffering=1) as stream:
        os.close(terminal)
        unbroken = command_line._Unbroken(stream)
        for _ in range(2):  # EIO; then it goes nowhere
            print("said", file=unbroken, flush=True)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, and torchrun did not start this process: it works alone\n"),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "", "LOCAL_WORLD_SIZE": "0"}, "unrecognized arguments: --learning-rate"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "unrecognized arguments: --learning-rate"),
        ({"RANK": "", "WORLD_SIZE": "", "LOCAL_WORLD_SIZE": "many"}, "unrecognized arguments: --learning-rate"),
        ({"LOKY_MAX_CPU_COUNT": "x"}, "LOKY_MAX_CPU_COUNT in the environment: 'x' is not a whole number"),
        ({"SKLEARN_WORKING_MEMORY": ""}, "SKLEARN_WORKING_MEMORY in the environment: '' is not a whole number"),
        ({"MASKBENCH_BACKEND": "cpu"}, "MASKBENCH_BACKEND in the environment: 'cpu' is not reference"),
    ],
)
def test_odd_variables(tmp_path, variables, said):
    result = Forked("train_aae.py", "--learning-rate", 0.1, cwd=tmp_path, **variables).finish()
    assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr


def test_home_folders_are_found_without_a_shell(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command_line.path("~/runs") == tmp_path / "runs"
    with pytest.raises(Exception, match="in no user's home folder"):
        command_line.path("~nobody-of-this-name/runs")


def test_without_an_encoder_the_next_step_is_said(complaint):
    said = complaint("mask_dataset.py", "--dataset", "digits")
    assert "runs/aae/0/encoder.pt: no such file; train one with python train_aae.py" in said
    assert "results/weights/encoder.pt" in said


@pytest.mark.usefixtures("undrawn")
def test_a_training_goes_on_where_its_folder_has_moved(run_here, complaint, tmp_path):
    pictures(tmp_path / "a", 21)
    arguments = ("--image-size", 16, "--batch-size", 4, "--epochs", 1, "--preset", "paper", "--resume")
    for folder in ("a", "a/", tmp_path / "a"):
        run_here("train_aae.py", "--dataset", f"folder:{folder}", *arguments)
    (tmp_path / "a").rename(tmp_path / "b")
    run_here("train_aae.py", "--dataset", "folder:b", *arguments)
    pictures(tmp_path / "c", 22)
    assert "its images are not those" in complaint("train_aae.py", "--dataset", "folder:c", *arguments)
    assert "made with --dataset folder:a, not photos" in complaint("train_aae.py", *TRAINING[:2], *arguments)


def test_a_rare_class_is_named_with_the_remedy(complaint, run_here, tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    sizes = {"common": 40, "other": 40, "rare": 6}
    labels = torch.tensor([*[0, 1] * 40, *[2] * 6])
    split = ((torch.arange(len(labels)) % 10 > 7) & (labels < 2)).to(torch.uint8)
    columns = {"labels": labels, "split": split, "source": torch.arange(len(labels)), "view": torch.zeros_like(split)}
    head = {"method": "aae", "encoder": "0" * 64, "dataset": "folder", "classes": list(sizes)}
    parts = {name: torch.randn(len(labels), 4, generator=generator) for name in ("gaussian", "categorical")}
    masked_set.save(masked_set.MaskedSet(**head, **parts, **columns), tmp_path / "a.pt")
    said = complaint("classify.py", "--masked", "a.pt", "--classes", 3)
    assert "rare (6 images, none for" in said and "test/" in said
    arguments = ("--classes", 2, "--repeats", 1, "--methods", "forest", "--estimators", 5)
    run_here("classify.py", "--masked", "a.pt", *arguments)
    assert "never drawn: rare (6 images, none for" in capsys.readouterr().out


def test_a_silent_download_ends_and_says_what_was_fetched(complaint, monkeypatch, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as hole:  # takes the connection and never answers
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{hole.getsockname()[1]}")
        monkeypatch.setattr(torchvision_sets, "PATIENCE", 0.3)
        with pytest.raises(InputError, match="cannot be downloaded"):
            torchvision_sets.torchvision_set("cifar10", tmp_path / "data", 32)
    assert "CIFAR10: downloading from https://www.cs.toronto.edu" in capsys.readouterr().out
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_download_into_a_full_disk_says_so(monkeypatch, tmp_path, code):
    def refuse(_: str, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", refuse)
    said = rf"--data-dir .*: CIFAR10 .* cannot be written \({os.strerror(code)}\); make room, or choose another"
    with pytest.raises(InputError, match=said):
        torchvision_sets.torchvision_set("cifar10", tmp_path / "data", 32)
    assert not list((tmp_path / "data").rglob("*.gz"))


def test_an_address_of_no_cluster_names_its_variable(monkeypatch):
    pytest.importorskip("distributed")
    import dask

    wanted = pytest.raises(InputError, match="DASK_SCHEDULER_ADDRESS head:8786x: no cluster answers there")
    with dask.config.set({"scheduler-address": "head:8786x"}), wanted, workers.workers("dask", 1):
        raise AssertionError


def test_a_cluster_without_workers_names_its_variable_and_an_empty_address_is_none(monkeypatch):
    distributed = pytest.importorskip("distributed")
    import dask

    addresses, client = [], mock.MagicMock()

    def connected(**_: object) -> mock.MagicMock:
        addresses.append(dask.config.get("scheduler-address", None))
        return client

    client.__exit__.return_value = None
    monkeypatch.setattr(distributed, "Client", connected)
    wanted = pytest.raises(InputError, match=r"DASK_SCHEDULER_ADDRESS tcp://head:8786: .*no worker after 10 seconds")
    with dask.config.set({"scheduler-address": "tcp://head:8786"}), wanted, workers.workers("dask", 1):
        raise TimeoutError("DaskDistributedBackend has no worker after 10 seconds.\nand more")  # joblib's
    with dask.config.set({"scheduler-address": ""}), workers.workers("dask", 1):
        pass
    assert addresses == ["tcp://head:8786", None]


@pytest.mark.parametrize("script", ["train_aae.py", "mask_dataset.py", "classify.py", "crosspair.py"])
@pytest.mark.parametrize(
    ("name", "value", "library"),
    [("TQDM_NCOLS", "", "tqdm"), ("TQDM_MININTERVAL", "fast", "tqdm"), ("LOKY_MAX_DEPTH", "x", "joblib")],
)
def test_what_libraries_do_not_take_as_they_are_imported_is_named(tmp_path, script, name, value, library):
    command, environment = [sys.executable, ROOT / script, "--help"], {**os.environ, name: value}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said = f"{script}: error: {name}={value!r} in the environment: {library} takes no such value ("
    assert done.returncode == 2 and done.stderr.startswith(said) and done.stderr.count("\n") == 1


@pytest.mark.parametrize("rank", [None, "0"])
def test_half_of_torchruns_variables_are_one_line(monkeypatch, rank):
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": rank, "WORLD_SIZE": "2"}.items():
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    wanted = pytest.raises(InputError, match=r"cannot be reached .*environment variable (RANK|MASTER_ADDR)")
    with wanted, torchrun.processes(torch.device("cpu")):
        raise AssertionError


def test_masks_wait_in_memory_where_torch_opens_no_file(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    assert atomic.scratch(3, 2, folder).shape == (3, 2)


def test_an_installed_package_says_how_kernels_are_built(tmp_path):
    shutil.copytree(ROOT / "maskbench", tmp_path / "maskbench", ignore=shutil.ignore_patterns("*.so"))
    done = Forked("-c", "import maskbench.ops", cwd=tmp_path).finish()
    assert done.returncode == 0 and "is not built" in done.stderr and "pip install --no-build-isolation" in done.stderr


@pytest.mark.parametrize(
    ("compiler", "named"), [(None, "No working C++ compiler"), ("ccache g++", "CXX in the enviro")]
)
def test_compiling_without_a_compiler_is_one_line(capsys, monkeypatch, compiler, named):
    import torch._inductor.exc

    monkeypatch.delenv("CXX", raising=False)
    if compiler:
        monkeypatch.setenv("CXX", compiler)

    def main() -> None:
        raise torch._inductor.exc.InvalidCxxCompiler

    with pytest.raises(SystemExit) as stop:
        command_line._run(main)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and f"--compile: this machine cannot compile ({named}" in said


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def read_pictures_with_a_worker_that_dies(root: Path) -> None:
    pictures(root, 4)
    folders.decode = die
    datasets.load(f"folder:{root}", workers=1)


def compute_in_workers_that_die(_: Path) -> None:
    with workers.workers("loky", 2):  # which import nothing for this
        joblib.Parallel()(joblib.delayed(signal.raise_signal)(signal.SIGKILL) for _ in range(2))


@pytest.mark.parametrize(
    ("work", "flag"), [(read_pictures_with_a_worker_that_dies, "--workers"), (compute_in_workers_that_die, "--jobs")]
)
def test_a_worker_that_the_system_kills_is_one_line(work, flag, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folders, "decode", folders.decode)  # is put back
    with pytest.raises(SystemExit) as stop:
        command_line._run(lambda: work(tmp_path / "mine"))
    said = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert said.endswith(f"error: a worker was killed, often for want of memory; use fewer {flag}")


def test_a_launcher_before_the_compiler():
    compilers = {"ccache g++": "g++", "sccache ccache clang++ -m64": "clang++", "c++": "c++"}
    code = (
        f"import os, runpy, sys\nsys.argv = ['setup.py', '--name']\nfor compiler in {list(compilers)}:\n"
        "    os.environ['CXX'] = compiler; runpy.run_path('setup.py'); print('chosen', os.environ['CXX'])"
    )
    done = Forked("-c", code, cwd=ROOT, MASKBENCH_CUDA="0").finish()
    chosen = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("chosen ")]
    assert chosen == list(compilers.values()) and done.returncode == 0, done.stderr
    refused = Forked("setup.py", "--name", cwd=ROOT, MASKBENCH_CUDA="0", CXX="g++ 'half").finish()
    assert refused.returncode == 1 and refused.stderr.startswith("CXX in the environment")
    assert refused.stderr.count("\n") == 1


def test_an_sdist_is_a_checkout(tmp_path):
    for name in ("csrc", "maskbench", "tests", "docs", "benchmarks", "results"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("_C*", "__pycache__"))
    for path in (*ROOT.glob("*.py"), ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "requirements.txt"):
        shutil.copy(path, tmp_path)
    done = Forked(tmp_path / "setup.py", "-q", "sdist", cwd=tmp_path).finish()
    assert done.returncode == 0, done.stderr
    (archive,) = (tmp_path / "dist").iterdir()
    shutil.unpack_archive(archive, tmp_path / "unpacked", filter="data")
    (folder,) = (tmp_path / "unpacked").iterdir()
    for pattern in ("*.py", "csrc/**/*.*", "maskbench/**/*.py", "tests/*.py", "benchmarks/*.*", "results/**/*.*"):
        wanted = {path.relative_to(tmp_path) for path in tmp_path.glob(pattern)}
        assert wanted and wanted == {path.relative_to(folder) for path in folder.glob(pattern)}


def test_the_package_says_where_its_scripts_are(tmp_path):
    here = Forked("-m", "maskbench", cwd=ROOT).finish()
    assert here.returncode == 0 and f"python {ROOT / 'train_aae.py'} --help" in here.stdout, here.stderr
    shutil.copytree(ROOT / "maskbench", tmp_path / "maskbench", ignore=shutil.ignore_patterns("__pycache__"))
    alone = Forked("-m", "maskbench", cwd=tmp_path).finish()
    assert alone.returncode == 2 and "use them from a checkout of maskbench" in alone.stderr


def test_a_key_survives_editors_and_comes_by_a_pipe(tmp_path):
    path = tmp_path / "owner.key"
    key.create(path)
    digits = path.read_text().strip()
    secret = bytes.fromhex(digits)
    windows, blanks = digits.upper() + "\r\n", f"\n  {digits}\t\n\n"
    for content in (windows.encode(), b"\xef\xbb\xbf" + windows.encode(), windows.encode("utf-16"), blanks.encode()):
        path.write_bytes(content)
        assert key.load(path) == secret
    wrapped, quoted = f"{digits[:32]}\n{digits[32:]}\n", f"'{digits}'\x1a"
    for content in (digits.encode("utf-16-le"), digits.encode("utf-32"), wrapped.encode(), quoted.encode()):
        path.write_bytes(content)
        assert key.load(path) == secret
    for wrong in (digits[:-1], digits + "0", "", "g" + digits[1:], 1000 * "0"):
        path.write_text(wrong)
        with pytest.raises(InputError, match=r"is not a key .* restore it from a copy"):
            key.load(path)
    path.write_text(digits)
    path.chmod(0o644)
    with pytest.raises(InputError, match=r"mode 0644.* pass it by a pipe: cat .* --key /dev/stdin"):
        key.load(path)
    code = (
        f"import os, runpy\nreader, writer = os.pipe()\nos.write(writer, {digits.encode()!r}); os.close(writer)\n"
        f"os.dup2(reader, 0)\nrunpy.run_path({str(ROOT / 'mask_dataset.py')!r}, run_name='__main__')"
    )
    arguments = "--method untrained --dataset digits --limit 8 --key /dev/stdin --output piped.pt"
    done = Forked("-c", code, *arguments.split(), cwd=tmp_path).finish()
    assert done.returncode == 0, done.stderr
    assert masked_set.load(tmp_path / "piped.pt").method == "untrained+key"
    reader, writer = os.pipe()
    os.close(writer)
    with pytest.raises(InputError, match="brings nothing; a pipe brings one key to one process"):
        key.load(Path(f"/dev/fd/{reader}"))
    os.close(reader)


def test_edited_masked_files(workplace, tmp_path):
    path = tmp_path / "edited.pt"
    content = torch.load(workplace / "masked" / "digits.pt", weights_only=True)
    rows = torch.arange(len(content["labels"])) % 3 > 0

    def saved(**changes: object) -> masked_set.MaskedSet:
        torch.save(content | changes, path)
        return masked_set.load(path)

    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    chosen = saved(**{name: value[rows] for name, value in tensors.items()})
    assert torch.equal(chosen.gaussian, content["gaussian"][rows])
    other = {"labels": content["labels"].int(), "split": content["split"].bool(), "view": content["view"].short()}
    found = saved(source=content["source"].int(), **other)
    for name in ("labels", "split", "view", "source"):
        assert torch.equal(getattr(found, name), content[name]) and getattr(found, name).dtype == content[name].dtype
    masked_set.save(found, path)  # as is what a program changed
    masked_set.save(dataclasses.replace(found, labels=found.labels.int()), path)
    assert torch.equal(masked_set.load(path).labels, content["labels"])

    one_hot = content["categorical"]
    assert torch.equal(saved(categorical=one_hot.bool()).categorical, one_hot)
    masked_set.save(content | {"categorical": one_hot.int()}, path)  # what torch.load gives is a set, too
    assert torch.equal(masked_set.load(path).categorical, one_hot)

    with pytest.raises(InputError, match=r"a slice of a tensor, and behind it the rows.*\.clone\(\)"):
        saved(**{name: value[:-1] for name, value in tensors.items()})
    with pytest.raises(InputError, match=r"an expanded tensor.*\.contiguous\(\)"):
        saved(labels=torch.zeros(1, dtype=torch.int64).expand(len(rows)))
    with pytest.raises(InputError, match=r"one tensor under two names; \.clone\(\) it"):
        saved(source=content["labels"])
    with pytest.raises(InputError, match=r"such as torch\.uint16; \.to\(torch\.int64\) it"):
        saved(labels=content["labels"].to(torch.uint16))
    with pytest.raises(InputError, match=r"holds a Parameter; \.detach\(\)\.clone\(\)"):
        saved(gaussian=torch.nn.Parameter(content["gaussian"]))
    with pytest.raises(InputError, match=r"labels is not a plain tensor, but a list; torch\.as_tensor"):
        saved(labels=content["labels"].tolist())
    with pytest.raises(InputError, match=r"NumPy array.*torch\.from_numpy"):
        saved(labels=content["labels"].numpy())
    with pytest.raises(
        InputError, match=r"gaussian is torch\.float16, not torch\.float32; \.to\(torch\.float32\) makes it that"
    ):
        saved(gaussian=content["gaussian"].half())
    with pytest.raises(InputError, match=r"turned or wants gradients; \.detach\(\)\.contiguous\(\)"):
        saved(gaussian=content["gaussian"].T.contiguous().T)
    with pytest.raises(InputError, match=r"gaussian has shape .*choose the same rows of every tensor"):
        saved(gaussian=content["gaussian"][rows])
    with pytest.raises(InputError, match=r"view holds numbers beyond torch\.uint8"):
        saved(view=content["view"].int() - 1)
    with pytest.raises(InputError, match=r"labels has shape .* 1 dimension.*\.flatten\(0\) it"):
        saved(labels=content["labels"][:, None])
    with pytest.raises(InputError, match=r"lacks its version; restore it.*maskbench\.save"):
        saved(version=None)
    with pytest.raises(InputError, match=r"dictionary of another kind; dict\(\) it"):
        torch.save(collections.defaultdict(list, content), path)
        masked_set.load(path)
    with pytest.raises(InputError, match="protocol 4; leave pickle_protocol out"):
        torch.save(content, path, pickle_protocol=4)
        masked_set.load(path)
    with pytest.raises(InputError, match=r"holds a masked set as an object; give maskbench.save the set"):
        torch.save(chosen, path)
        masked_set.load(path)


def test_a_file_may_be_written_over_by_who_reads_it(workplace, tmp_path):
    path = tmp_path / "digits.pt"
    shutil.copy(workplace / "masked" / "digits.pt", path)
    wanted = masked_set.load(workplace / "masked" / "digits.pt").gaussian.clone()
    found = masked_set.load(path)
    torch.save({"format": "maskbench.masked", "version": 1, **vars(found)}, path)  # as a program would that edits it
    assert torch.equal(found.gaussian, wanted) and torch.equal(masked_set.load(path).gaussian, wanted)


def test_what_others_draw_is_drawn_as_they_asked():
    code = "from maskbench.runtime import matplotlib_import\nfrom matplotlib import pyplot\nprint(pyplot.get_backend())"
    done = Forked("-c", code, cwd=ROOT, MPLBACKEND="svg").finish()
    assert done.stdout == "svg\n", done.stderr
