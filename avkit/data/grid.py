"""The GRID audiovisual sentence corpus as two-talker mixtures: 34 talkers, 1000 sentences of six words each, 3 s, 25 fps.

Cooke, Barker, Cunningham and Shao 2006, An audio-visual corpus for speech perception and automatic speech recognition; Zenodo
record 3625687, CC BY 4.0. Its clips lie in one folder a talker, `s1/bbaf2n.mpg` or deeper (`s1/video/mpg_6000/bbaf2n.mpg`);
the six characters are the first letters of command, colour, preposition, letter, digit and adverb. An utterance's id here is
`s1_bbaf2n`. None of the two papers uses GRID: figures on it stand beside nobody's.
"""

from __future__ import annotations

import re
from pathlib import Path

from avkit.data.clips import Clip, Part, videos_below
from avkit.errors import DataError

# The test talkers are those that LipNet (Assael et al. 2016) kept from its training: two women, two men.
TEST = ("s1", "s2", "s20", "s22")
VALIDATION = ("s3", "s4", "s5", "s7")
PART = Part(0.52, 2.0)  # of the 3 s; the clips begin and end with a rest
_TALKER, _SENTENCE = re.compile(r"s\d{1,2}"), re.compile(r"[blps][bgrw][abiw][a-z][0-9z][anps]")


def split_of(talker: str) -> str:
    """The split of a talker, once for all: s1, s2, s20, s22 test, s3, s4, s5, s7 validate, the other numbers train.

    A clip outside any talker's folder has no known talker: it is named after itself, and tests.
    """
    if talker in TEST or not _TALKER.fullmatch(talker):
        return "tt"
    return "cv" if talker in VALIDATION else "tr"


def find_clips(root: Path) -> tuple[list[Clip], list[str]]:
    """All clips of the corpus below a folder, and notes on what was passed over.

    Where no clip lies in a talker's folder, loose ones are taken, each for a talker of its own (`bbaf2n_bbaf2n`): some
    sample clips make a test set. Loose ones beside talkers' folders are passed over, because their talkers may be among them.

    Raises DataError when there is no clip in GRID's naming.
    """
    clips: dict[str, Path] = {}
    loose: dict[str, Path] = {}
    passed: list[Path] = []
    for path in videos_below(root):
        sentence = path.stem.lower()
        folders = [root.name, *path.relative_to(root).parts[:-1]]
        talkers = [name for name in folders if _TALKER.fullmatch(name)]
        if not _SENTENCE.fullmatch(sentence):
            passed.append(path)
            continue
        kind, utterance = (clips, f"{talkers[-1]}_{sentence}") if talkers else (loose, f"{sentence}_{sentence}")
        if utterance in kind:
            raise DataError(f"{kind[utterance]} and {path} both are the utterance {utterance}: keep one of them.")
        kind[utterance] = path
    if not clips and not loose:
        raise DataError(
            f"{root} holds no clip of GRID. Wanted the folder above s1, s2, … s34, each with clips like bbaf2n.mpg: the videos "
            "of Zenodo's record 3625687, unpacked."
        )
    notes = []
    if passed:
        notes.append(f"{len(passed)} videos without a name of GRID's form were passed over, the first being {passed[0]}.")
    if clips and loose:
        notes.append(f"{len(loose)} clips outside talkers' folders were passed over: whose they are is unknown.")
    if not clips:
        notes.append(f"None of the {len(loose)} clips lies in a talker's folder s1 … s34, so each is taken for a talker of its own, "
                     "and all of them test.")  # fmt: skip
        clips = loose
    return [Clip(utterance, clips[utterance]) for utterance in sorted(clips)], notes

