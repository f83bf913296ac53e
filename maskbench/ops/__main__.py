"""Print what was built, and what runs on this machine: ``python -m maskbench.ops``."""

from maskbench.ops.loading import BUILD_INFO, COMPILED, REASON, backend


def main() -> None:
    for name, value in BUILD_INFO.items():
        print(f"{name:20}{', '.join(value) if isinstance(value, list) else value}")
    for device in ("cpu", "cuda"):
        reason = "" if device in COMPILED else f" ({REASON})"
        print(f"{'runs on ' + device:20}{backend(device)}{reason}")


if __name__ == "__main__":
    main()
