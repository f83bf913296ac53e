"""Build the compiled kernels, ``maskbench._C``; everything that is not code is in pyproject.toml.

The C++ kernels are built wherever there is a compiler; without one the package installs and runs its plain PyTorch
reference. The CUDA kernels are built when torch has CUDA, nvcc is found and a GPU is visible; ``MASKBENCH_CUDA=1``
demands them, also on a machine without a GPU, ``MASKBENCH_CUDA=0`` leaves them out.
"""

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.sdist import sdist

# the kernels promise bits: no contraction of a * b + c, on either compiler, that the source does not spell out
CXX_FLAGS = ["-O3", "-fopenmp", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
CXX_FLAGS += ["-g1"]  # line numbers; all that Python's own -g tells is 40 MB, and maskbench.ops reads the whole file
CXX_FLAGS += ["-fschedule-insns"]  # the polynomials are long chains: interleaved, normals come a fifth faster
LINK_FLAGS = ["-fopenmp"]
if sys.platform == "linux":
    # a compiler that links its own libstdc++ into every library: mixed with torch's, numbers are missing from messages
    LINK_FLAGS += ["-Wl,--exclude-libs,ALL"]
NVCC_FLAGS = ["-O3", "--fmad=false"]
CUDA_ARCHITECTURES = "8.0;9.0+PTX"
# an sdist is a checkout without its history: from it the kernels build, the scripts run, and the tests pass
CHECKOUT = ["*.py", "Makefile", "requirements.txt", "csrc/**/*.*", "tests/*.*", "docs/*.md", "benchmarks/*.*"]
CHECKOUT += ["results/**/*.*", ".clang-format"]
LAUNCHERS = ("ccache", "sccache", "distcc", "icecc")


def warn(message: str) -> None:
    print(f"maskbench: {message}", file=sys.stderr)


def toolkit_folder() -> str | None:
    """The CUDA toolkit's folder as nvcc itself names it: the nvcc on PATH may be a wrapper from elsewhere."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    try:
        dry_run = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True)
    except OSError:  # there, and of no use
        return None
    top = re.search(r"^#\$ TOP=(.+)$", dry_run.stderr, re.MULTILINE)
    return os.path.realpath(top[1].strip()) if top else None


def compiler_words() -> list[str]:
    """CXX as the compiler alone, then its flags: torch takes "ccache g++ -m64" for the name of one program.

    Without the launcher: newer versions of torch look for ccache and sccache themselves.
    """
    try:
        words = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        sys.exit(
            f"CXX in the environment: {os.environ['CXX']!r} is no command ({str(error).lower()}); mend or unset it"
        )
    while len(words) > 1 and os.path.basename(words[0]) in LAUNCHERS:
        words.pop(0)
    return words


if os.name == "posix" and (words := compiler_words()):
    os.environ["CXX"] = words[0]
    CXX_FLAGS = words[1:] + CXX_FLAGS

CHOICE = os.environ.get("MASKBENCH_CUDA", "")
if CHOICE not in ("", "0", "1"):
    sys.exit(f"MASKBENCH_CUDA must be 0 or 1, got {CHOICE!r}")

# torch.utils.cpp_extension reads both of these when it is imported
if CHOICE != "0" and "CUDA_HOME" not in os.environ and (folder := toolkit_folder()):
    os.environ["CUDA_HOME"] = folder
os.environ.setdefault("TORCH_CUDA_ARCH_LIST", CUDA_ARCHITECTURES)

try:
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension
except ImportError:
    torch, BuildExtension = None, object


def plans() -> list[bool]:
    """What to try, in order, until one builds: with the CUDA kernels (True) or without (False)."""
    buildable = torch.version.cuda is not None and CUDA_HOME is not None
    if CHOICE == "1":
        if not buildable:
            missing = "nvcc" if torch.version.cuda else "a torch with CUDA"
            sys.exit(f"MASKBENCH_CUDA=1 needs {missing}, and there is none here")
        return [True]
    return [True, False] if CHOICE == "" and buildable and torch.cuda.is_available() else [False]


def extension(with_cuda: bool) -> Extension:
    defines = [f'-DMASKBENCH_TORCH_VERSION="{torch.__version__}"']
    sources = [*glob.glob("csrc/*.cpp"), *glob.glob("csrc/cpu/**/*.cpp", recursive=True)]
    kind = CppExtension
    if with_cuda:
        defines += ["-DWITH_CUDA", f'-DMASKBENCH_CUDA_ARCHITECTURES="{os.environ["TORCH_CUDA_ARCH_LIST"]}"']
        sources += glob.glob("csrc/cuda/*.cu")
        kind = CUDAExtension
    return kind(
        "maskbench._C",
        sorted(sources),
        depends=glob.glob("csrc/**/*.h", recursive=True),
        extra_compile_args={"cxx": CXX_FLAGS + defines, "nvcc": NVCC_FLAGS},
        extra_link_args=LINK_FLAGS,
    )


class BuildKernels(BuildExtension):
    def build_extensions(self) -> None:
        attempts = plans()
        for with_cuda in attempts:
            vars(self.extensions[0]).update(vars(extension(with_cuda)))
            try:
                return super().build_extensions()
            except Exception as error:
                if attempts == [True]:
                    raise
                warn(f"the {'CUDA' if with_cuda else 'C++'} kernels were not built: {error}")
        warn("installed without compiled kernels: the plain PyTorch reference will run")
        for stale in glob.glob("maskbench/_C.*"):  # of an earlier build in place: not what these sources say
            os.unlink(stale)
        self.extensions.clear()


class Checkout(sdist):
    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        more = {path for pattern in CHECKOUT for path in glob.glob(pattern, recursive=True) if path[-4:] != ".key"}
        super().make_release_tree(base_dir, sorted({*files, *more}))


COMMANDS = {"sdist": Checkout}
if torch is None:
    if CHOICE == "1":
        sys.exit("MASKBENCH_CUDA=1 needs torch to build with; install it first, then use --no-build-isolation")
    warn("no torch to build the kernels with; install it first, then maskbench with --no-build-isolation")
    setup(cmdclass=COMMANDS)
else:
    setup(ext_modules=[extension(with_cuda=False)], cmdclass={"build_ext": BuildKernels, **COMMANDS})
