"""The command `retina`; `python -m retina` is the same."""

import sys

from retina.system import shadowing


def main(*first: str) -> int:
    """Run the command line with the process's own arguments behind `first`; returns its exit code."""
    shadowing.exit_if_shadowed()
    import signal  # noqa: PLC0415  # after the check

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends it without a traceback
    from retina.cli import main as run  # noqa: PLC0415

    return run([*first, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
