"""Print what was built, and what runs on this machine: ``python -m maskbench.ops``."""

from maskbench import ops


def main() -> None:
    if ops._COMPILED:
        for name, value in ops._C.build_info().items():
            print(f"{name:20}{', '.join(value) if isinstance(value, list) else value}")
    for device in ("cpu", "cuda"):
        reason = "" if device in ops._COMPILED else f" ({ops._REASON})"
        print(f"{'runs on ' + device:20}{ops.backend(device)}{reason}")


if __name__ == "__main__":
    main()
