"""A small corpus of synthetic talkers, made once for all tests that need one."""

from pathlib import Path

import pytest

from avkit.data.corpus import Plan, make_corpus

PROBE = Plan(seed=11, tr=110, cv=0, tt=45, reuse=1)


@pytest.fixture(scope="session")
def probe_corpus(tmp_path_factory) -> Path:
    """155 mixtures of 310 utterances, each used once: enough to train a small reader of lips on."""
    root = tmp_path_factory.mktemp("talkers") / "probe"
    make_corpus(root, PROBE, workers=2, quiet=True)
    return root
