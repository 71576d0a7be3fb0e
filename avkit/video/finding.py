"""`avkit faces`: who is in a video and when, with mouth crops that `avkit separate` and `avkit evaluate` read."""

from __future__ import annotations

import argparse
import os
import zipfile
from pathlib import Path

import numpy as np

import avkit
from avkit.checkpoints import write_atomically
from avkit.errors import DataError, InputError
from avkit.signal import FRAME_RATE
from avkit.video import results
from avkit.video.people import find_faces
from avkit.video.reading import probe
from avkit.video.work import Work, add_place, disk


def find_people_in_video(
    path: str | os.PathLike,
    out: str | os.PathLike,
    shortest: float = 1.0,
    fresh: bool = False,
    quiet: bool = True,
) -> dict:
    """Faces of a video, followed, with mouth crops, without touching its sound.

    Args:
        path: any video that FFmpeg reads.
        out: folder for `faces.json`, `overview.png` and `mouths/person-1_0.00.npz`, …: for each stretch of time in which a person
            is to be seen the crops (F, 96, 96) uint8 under the key `data`, the start in seconds in the name.
        shortest: seconds that a person must be in the picture.

    Returns:
        What `faces.json` holds.

    Raises:
        InputError, DataError: no face, no video, no room; the message says which.
    """
    video = probe(path)
    work = Work(Path(out), video, fresh, "faces", quiet)
    work.plan("faces", "mouths", "files")
    with disk(work.out):
        try:
            faces = find_faces(video, work.folder, shortest, work.watch)
            report = _write(video, faces, work)
        except (InputError, DataError):
            work.leave()
            raise
    work.leave(done=True)
    return report


def _write(video, faces, work: Work) -> dict:
    folder = work.out / "mouths"
    folder.mkdir(exist_ok=True)
    people = []
    for person in faces.people:
        rows = faces.rows(person)
        for stretch, row in zip(person.stretches, rows, strict=True):
            row["mouths"] = f"mouths/{person.name}_{row['start']:.2f}.npz"
            crops = faces.crops(person, stretch)
            write_atomically(work.out / row["mouths"], lambda name, crops=crops: _write_crops(name, crops))
        people.append({"name": person.name, "confidence": round(person.confidence, 3), "on_screen": rows})
    report = {
        "video": str(video.path),
        "avkit": avkit.__version__,
        "seconds": faces.frames / FRAME_RATE,
        "width": video.width,
        "height": video.height,
        "cuts": [cut / FRAME_RATE for cut in faces.cuts],
        "people": people,
    }
    pictures = results.write_videos(video, faces, {}, work.out, "", work.watch("files", faces.frames))
    results.overview(
        work.out / "overview.png", faces, pictures, report, {}, [f"{video.path.name}, faces found by avkit."]
    )
    results.write_report(work.out / "faces.json", report)
    return report


def _write_crops(name: str, crops: np.ndarray) -> None:
    """As `numpy.savez_compressed(name, data=crops)`, a piece at a time."""
    archive = zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED, allowZip64=True)
    with archive, archive.open("data.npy", "w", force_zip64=True) as file:
        head = {"descr": "|u1", "fortran_order": False, "shape": crops.shape}
        np.lib.format.write_array_header_1_0(file, head)
        for first in range(0, len(crops), 250):
            file.write(np.ascontiguousarray(crops[first : first + 250]).tobytes())


def main(argv: list[str]) -> int:
    """`avkit faces`."""
    parser = argparse.ArgumentParser(
        prog="avkit faces",
        description="Find and follow everyone in a video and cut their mouths: JSON with times and boxes, crops as .npz, an overview.",
        epilog="example: avkit faces debate.mp4 faces && avkit separate debate.wav faces/mouths/person-1_0.00.npz --out voices",
    )
    parser.add_argument("video", metavar="IN", help="any video that FFmpeg reads")
    add_place(parser, "OUT")
    parser.add_argument(
        "--shortest",
        type=float,
        default=1.0,
        help="seconds that a person must be in the picture (%(default)s)",
    )
    parser.add_argument("--fresh", action="store_true", help="begin anew instead of going on")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    args = parser.parse_args(argv)
    out = args.out or args.place
    report = find_people_in_video(args.video, out, args.shortest, args.fresh, args.quiet)
    for person in report["people"]:
        times = ", ".join(f"{s['start']:.1f} to {s['stop']:.1f} s" for s in person["on_screen"])
        print(f"{person['name']}: {times}")
    print(f"{out / 'faces.json'}, {out / 'overview.png'}")
    return 0
