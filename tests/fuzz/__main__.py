"""`python -m tests.fuzz NAME [seconds]`: look for input that breaks one target, with atheris.

atheris is no dependency of the project (`pip install atheris`). What it finds on its way is kept
below .fuzz/, apart from the corpus; an input that breaks the target belongs into the corpus.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

try:
    import atheris  # type: ignore[import-untyped]
except ImportError:
    atheris = None

# atheris watches the branches of what is imported here; all that is loaded would take a minute
with atheris.instrument_imports(include=["nostrllm"]) if atheris else contextlib.nullcontext():
    from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def main(arguments: list[str]) -> int:
    """Fuzz the target that `arguments` name; 2 when that cannot be."""
    if not arguments or arguments[0] not in TARGETS:
        print(f"usage: python -m tests.fuzz NAME [seconds]; NAME is one of: {' '.join(TARGETS)}")
        return 2
    if atheris is None:
        print("atheris is not installed: pip install atheris")
        return 2
    name, seconds = arguments[0], int(arguments[1]) if arguments[1:] else 60
    found = Path(".fuzz") / name
    found.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", "-max_len=20000", f"-artifact_prefix={found}/"]
    atheris.Setup([name, *options, str(found), *map(str, CORPUS.glob(name))], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
