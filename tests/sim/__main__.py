"""`python -m tests.sim SEED [COUNT]`: replay one seed, or run COUNT seeds from SEED on."""

from __future__ import annotations

import sys

from tests.sim.market import simulate


def main(arguments: list[str]) -> int:
    """How many seeds broke something."""
    if not arguments or not all(text.isdecimal() for text in arguments[:2]):
        print("usage: python -m tests.sim SEED [COUNT]")
        return 2
    first, count = int(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 1
    broken = 0
    for seed in range(first, first + count):
        report = simulate(seed)
        broken += bool(report.violations)
        if count == 1 or report.violations:
            print(report)
            print("\n".join(report.violations))
    print(f"{broken} of {count} seeds broke something")
    return min(broken, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
