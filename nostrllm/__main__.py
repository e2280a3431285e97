"""The `nostrllm` command, which `python -m nostrllm` is too.

Ctrl-C ends it at once while it still loads: an interrupt that is raised inside an import prints a
traceback, or is lost. The command itself, once loaded, hears it as KeyboardInterrupt.
"""

import signal


def run() -> None:
    """Run the command that the command line names."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nostrllm.cli import main

    main(prog_name="nostrllm")


if __name__ == "__main__":
    run()
