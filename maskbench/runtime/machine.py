"""What this machine is, and which commit runs on it."""

import platform
import subprocess
from pathlib import Path


def commit() -> str:
    """The commit that is checked out, with a + where the program differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        # a collation changes results and README.md, which no step depends on
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!README.md")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """The processor's name."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
