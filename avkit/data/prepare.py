"""`avkit prepare`: two-talker mixtures checked and listed, mixed from a list, cut from raw clips, lip features stored."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from pathlib import Path

import torch

from avkit.data import clips, grid
from avkit.data.checking import Findings, Layout, check
from avkit.data.clips import RECORDINGS, Clip, Part
from avkit.data.features import store_features
from avkit.data.manifests import SPLITS, talker_of, write_manifest
from avkit.data.mixture_list import (
    Entry,
    Made,
    draw_list,
    find_recordings,
    make_mixtures,
    read_list,
    split_of,
    which_split,
    write_list,
)
from avkit.data.report import PUBLISHED, TITLES, Report, count_notes
from avkit.errors import DataError, InputError
from avkit.lip_weights import load_lip_encoder
from avkit.lips import CROP_SIZE, FRAME_SIZE

_EXAMPLES = """examples:
  avkit prepare lrs2 /data/LRS2-2Mix lists
      check a corpus in the official layout; write lists/{tr,cv,tt}/{mix,s1,s2}.json and lists/report.json
  avkit prepare vox2 /data/vox2/wav /data/vox2-2mix --mix tr=mix_2_spk_tr.txt cv=mix_2_spk_cv.txt --mouths /data/vox2/mouths
      make the mixtures of two lists from single talkers' recordings, then check and list them
  avkit prepare lrs2 /data/mvlrs_v1 /data/LRS2-2Mix --from-videos --mix tr=mix_2_spk_tr.txt cv=mix_2_spk_cv.txt tt=mix_2_spk_tt.txt
      from the clips as they were downloaded to recordings, mouth crops, the mixtures of these lists, and checked lists
  avkit prepare grid /data/grid /data/GRID-2Mix --draw tr=5000 cv=500 tt=500 --seed 0
      the same from the open GRID corpus, with mixtures drawn at random
  avkit prepare features lists --model rtfs-net-tiny --variants 3
      store a frozen lip encoder's features of a listed corpus, for `avkit train … --data.features rtfs-net-tiny`

exit status: 0 no fault; 1 faults found, what is good is listed; 2 nothing usable"""


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: wanted a whole number of at least 1")
    return int(text)


def _drawn(text: str) -> tuple[str, int]:
    split, _, count = text.partition("=")
    if split not in SPLITS:
        raise argparse.ArgumentTypeError(f"{text!r}: wanted a split and a number of mixtures, as in tr=5000")
    return split, _count(count)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avkit prepare",
        description="Check a corpus of two-talker mixtures, or make one, and write the lists that training reads.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="lrs2|lrs3|vox2|grid|features", help="what to prepare")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--variants", type=_count, default=1, metavar="K", help="crops stored of each utterance (1)")
    shared.add_argument("--name", help="of the stored features (the checkpoint's name)")
    shared.add_argument("--device", default="cpu", help="where the lip encoder runs: cpu (default) or cuda")
    shared.add_argument("--json", action="store_true", help="print the report as JSON instead of a table")
    for corpus, title in TITLES.items():
        one = commands.add_parser(
            corpus,
            parents=[shared],
            help=f"check {title} and write its lists" if corpus != "grid" else f"make {title} from the GRID corpus' clips",
            epilog=f"example: avkit prepare {corpus} /data/{title} lists"
            if corpus != "grid"
            else "example: avkit prepare grid /data/grid /data/GRID-2Mix --draw tr=5000 cv=500 tt=500",
        )
        _corpus_arguments(one, corpus)
    features = commands.add_parser(
        "features",
        parents=[shared],
        help="store the lip features of a listed corpus",
        epilog="example: avkit prepare features lists --model rtfs-net-tiny --variants 3",
    )
    features.add_argument("root", metavar="ROOT", type=Path, help="a corpus with lists, of avkit corpus or avkit prepare")
    features.add_argument("--model", required=True, metavar="CHECKPOINT", help="whose lip encoder: a name, folder or file")
    return parser


def _corpus_arguments(one: argparse.ArgumentParser, corpus: str) -> None:
    if corpus == "grid":
        one.add_argument("root", metavar="ROOT", type=Path, help="the folder above the talkers' folders s1 … s34 of .mpg clips")
        one.set_defaults(from_videos=True, mouths=None)
    else:
        one.add_argument("root", metavar="ROOT", type=Path,
                         help="the folder above audio/; with --mix or --draw, of single talkers' recordings or clips")  # fmt: skip
        one.add_argument("--from-videos", action="store_true", help="ROOT holds raw clips: cut recordings and mouths to OUT first")
        one.add_argument("--mouths", type=Path, help="folder of the mouth crops (ROOT/mouths, or OUT/mouths)")
    one.add_argument("out", metavar="OUT", type=Path, help="where the lists and report.json go, and what is cut or mixed")
    some = one.add_mutually_exclusive_group()
    some.add_argument("--mix", nargs="+", metavar="SPLIT=LIST", help="make these lists' mixtures in OUT/audio")
    some.add_argument("--draw", nargs="+", type=_drawn, metavar="SPLIT=N",
                      help="make mixtures drawn at random, talkers of a split their own, and write them down as lists in OUT"
                      + (" (tr=20000 cv=5000 tt=3000)" if corpus == "grid" else ""))  # fmt: skip
    one.add_argument("--seed", type=int, default=0, help="with --draw: another number draws other mixtures, for another OUT (0)")
    one.add_argument("--seconds", type=float, default=2.0, help="length of the mixtures that are made (2)")
    one.add_argument("--start", type=float, default=grid.PART.start if corpus == "grid" else 0.0,
                     help="second of a clip from which it is cut (%(default)s)")  # fmt: skip
    one.add_argument("--absolute", action="store_true", help="absolute paths in the lists, as the official loaders want")
    one.add_argument("--features", metavar="CHECKPOINT", help="then store this lip encoder's features in OUT/features")
    one.add_argument("--quiet", action="store_true", help="show no progress")
    one.add_argument("--workers", type=_count, default=4, help="files read, or clips cut, at a time (4); changes no result")


def prepare(args: argparse.Namespace, command: str) -> Report:
    """Cut and mix where asked, check, write lists and report.json under args.out."""
    if not args.root.is_dir():
        raise DataError(f"There is no folder {args.root}. Give the corpus' root, the folder above audio/.")
    made, notes = _make(args)
    making = args.mix or args.draw or args.from_videos
    layout = Layout(args.out if making else args.root, _mouths(args))
    findings = None
    if args.from_videos and not made.counts:
        notes.append(f"No mixtures were asked for. Make them from what was cut: avkit prepare {args.what} {args.out / RECORDINGS} "
                     f"{args.out} --mouths {args.out / 'mouths'} --mix tr=LIST … (or --draw tr=N …).")  # fmt: skip
    elif layout.mouths.is_dir() or not making:
        findings = check(layout, args.what, args.workers, args.quiet)
        notes += [*findings.notes, *count_notes(args.what, findings)]
    else:
        notes.append(f"There are no mouth crops {layout.mouths}, so nothing was listed. Put them there and run "
                     f"`avkit prepare {args.what} {args.out} {args.out}`.")  # fmt: skip
    faults = made.faults + (findings.faults if findings else ())
    report = Report(args.what, command, findings, made.counts, faults, tuple(notes), made.cut)
    args.out.mkdir(parents=True, exist_ok=True)
    if findings:
        _write_lists(args.out, findings, relative=not args.absolute)
    report.write(args.out / "report.json")
    return report


def _mouths(args: argparse.Namespace) -> Path:
    """The folder of mouth crops: the one that was named, else beside the recordings, else where the mixtures go."""
    if args.from_videos:
        return args.out / "mouths"
    if args.mouths:
        if not args.mouths.is_dir():
            raise DataError(f"There is no folder --mouths {args.mouths}.")
        return args.mouths
    in_root = args.root / "mouths"
    return in_root if in_root.is_dir() or not (args.mix or args.draw) else args.out / "mouths"


# ------------------------------------------------------------------------------------------------- cutting and mixing


def _make(args: argparse.Namespace) -> tuple[Made, list[str]]:
    """Cut clips and make mixtures, as far as asked; what was made, and notes."""
    if args.from_videos:
        return _from_videos(args)
    if not (args.mix or args.draw):
        return Made({}, ()), []
    entries, notes = _listed(args), []
    recordings = find_recordings(args.root, args.what)
    if args.draw:
        entries, notes = _draw(args, list(recordings))
    layout = Layout(args.out, args.out / "mouths")
    return make_mixtures(layout, entries, recordings, args.seconds, args.workers, args.quiet), notes


def _from_videos(args: argparse.Namespace) -> tuple[Made, list[str]]:
    part, entries, more = Part(args.start, args.seconds), _listed(args), []
    found, notes = grid.find_clips(args.root) if args.what == "grid" else (clips.find_clips(args.root, args.what), [])
    if args.draw or (args.what == "grid" and not args.mix):
        entries, more = _draw(args, [clip.utterance for clip in found])
    wanted = _wanted(found, entries)
    there, faults = clips.cut_clips(wanted, args.out, part, args.workers, args.quiet)
    if not there:
        notes.append("Not one clip would do.")
    known = set(there)
    failed = {clip.utterance for clip in wanted} - known
    good = [e for e in entries if not failed & {e.mixture.utt1, e.mixture.utt2}]
    if len(good) < len(entries):
        more.append(f"{len(entries) - len(good)} mixtures were not made, because one of their clips would not do.")
    recordings = {utterance: args.out / RECORDINGS / f"{utterance}.wav" for utterance in there}
    made = make_mixtures(Layout(args.out, args.out / "mouths"), good, recordings, args.seconds, args.workers, args.quiet)
    return Made(made.counts, (*faults, *made.faults), len(there)), [*notes, *more]


def _wanted(found: list[Clip], entries: list[Entry]) -> list[Clip]:
    """The clips that mixtures need; all of them where there are no mixtures."""
    named = {utterance for entry in entries for utterance in (entry.mixture.utt1, entry.mixture.utt2)}
    return [clip for clip in found if not entries or clip.utterance in named]


def _listed(args: argparse.Namespace) -> list[Entry]:
    """The mixtures of the lists that were given."""
    entries = []
    for argument in args.mix or ():
        split, path = which_split(argument)
        entries += read_list(path, split, args.what)
    return entries


def _draw(args: argparse.Namespace, utterances: list[str]) -> tuple[list[Entry], list[str]]:
    """Mixtures drawn from utterances, written down as lists in args.out, and notes."""
    entries, notes, counts = [], [], dict(args.draw or PUBLISHED["lrs2"])
    chosen = grid.split_of if args.what == "grid" else split_of
    for split, count in counts.items():
        mine = [utterance for utterance in utterances if chosen(talker_of(utterance)) == split]
        drawn = draw_list(mine, split, count, args.seed)
        if mine and len(drawn) < count:
            notes.append(f"{split}: {len(drawn)} mixtures instead of {count}; there are no more pairs of different talkers among "
                         f"its {len(mine)} utterances.")  # fmt: skip
        if drawn:
            args.out.mkdir(parents=True, exist_ok=True)
            write_list(args.out / f"mix_2_spk_{split}.txt", drawn)
        entries += drawn
    if not entries:
        raise DataError(f"Among {len(utterances)} utterances there are no two talkers of one split, so nothing can be mixed.")
    return entries, notes


def _write_lists(out: Path, findings: Findings, relative: bool) -> None:
    """Lists of every split that was found, empty ones too; old lists of a split that is gone are emptied."""
    for split in SPLITS:
        if split in findings.splits:
            write_manifest(out, split, findings.splits[split].listed, relative=relative)
        elif (out / split / "mix.json").exists():
            write_manifest(out, split, [], relative=relative)


def features(root: Path, checkpoint: str, name: str | None, variants: int, device: str) -> dict:
    """Store a lip encoder's features of a listed corpus; returns what was done and what it costs in augmentation.

    root: holds the lists; the features go to root/features/NAME. checkpoint: a bundled name, a folder, or an official
        file of weights. variants: crops of each utterance.

    Raises:
        DataError: no lists, an unreadable mouth file, or NAME holds another encoder's features.
        CheckpointError: there is no such lip encoder.
    """
    if not any((root / split / "mix.json").exists() for split in SPLITS):
        raise DataError(f"{root} holds no lists {{tr,cv,tt}}/mix.json. Run `avkit prepare lrs2|lrs3|vox2|grid` first.")
    name = name or Path(checkpoint).stem
    if not name or Path(name).name != name:
        raise InputError(f"--name {name!r}: wanted the name of a folder under features/.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {device}: PyTorch finds no GPU here. Leave it out to use the CPU.")
    encoder = load_lip_encoder(checkpoint)
    with contextlib.redirect_stdout(sys.stderr):
        written = store_features(root, encoder, name, variants, device=device)
    return {
        "folder": str(root / "features" / name),
        "written": written,
        "variants": variants,
        "lost": lost_augmentation(variants),
        "use": f"avkit train … --data.features {name}",
    }


def lost_augmentation(variants: int) -> str:
    """What training on stored features gives up, in a sentence."""
    places = (FRAME_SIZE - CROP_SIZE + 1) ** 2
    every = f"where frames give one of {places} places, mirrored or not ({2 * places} crops), drawn anew every time"
    if variants == 1:
        return f"Training sees the centre crop alone, {every}: store more with --variants to keep some of that."
    return (
        f"Training sees one of {variants - 1} random {'crop' if variants == 2 else 'crops'} of each utterance, "
        f"{every}; validation sees the centre crop, as ever."
    )


def _tell_features(done: dict) -> str:
    return (f"wrote the lip features of {done['written']} utterances to {done['folder']}\n{done['lost']}\n"
            f"use them with: {done['use']}")  # fmt: skip


def main(argv: list[str]) -> int:
    """The command `avkit prepare`; exit status 0, or 1 where faults were found."""
    args = _parser().parse_args(argv)
    if args.what == "features":
        done = features(args.root, args.model, args.name, args.variants, args.device)
        print(json.dumps(done) if args.json else _tell_features(done))
        return 0
    if not (args.mix or args.draw or args.from_videos) and args.seconds != 2.0:
        raise InputError("--seconds goes with --mix, --draw or --from-videos: mixtures that exist keep their length.")
    if args.start and not args.from_videos:
        raise InputError("--start goes with --from-videos: recordings are taken from their beginning.")
    if not args.features and (args.name or args.variants > 1):
        raise InputError("--name and --variants go with --features CHECKPOINT: whose features are to be stored?")
    report = prepare(args, shlex.join(["avkit", "prepare", *argv]))
    if not args.json:
        print(report.table())
    if not report.usable:
        if args.json:
            print(json.dumps(report.as_dict(), ensure_ascii=False))
        raise DataError(f"Nothing usable: not one mixture is without a fault. {args.out / 'report.json'} says what is "
                        "wrong with each.")  # fmt: skip
    told = report.as_dict()
    if args.features and report.listed:
        told["features"] = features(args.out, args.features, args.name, args.variants, args.device)
        if not args.json:
            print(_tell_features(told["features"]))
    if args.json:
        print(json.dumps(told, ensure_ascii=False))
    elif report.findings:
        print(f"{report.listed} mixtures listed in {os.fspath(args.out)}; report: {args.out / 'report.json'}")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
