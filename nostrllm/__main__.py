"""`python -m nostrllm` is `nostrllm`."""

from nostrllm.cli import main

if __name__ == "__main__":
    main(prog_name="nostrllm")
