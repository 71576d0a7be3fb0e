"""How often a progress bar is drawn anew."""

import sys


def interval() -> float:
    """Seconds between two drawings: many a second on a terminal; in a log file, where each stays, one in ten seconds."""
    return 0.1 if sys.stderr.isatty() else 10.0
