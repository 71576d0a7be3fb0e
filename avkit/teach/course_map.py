"""The map of the course, drawn from the notebooks' own first cells: who needs what, what each costs, three ways through.

    python -m avkit.teach.course_map            write notebooks/README.md and notebooks/course-map.svg
    python -m avkit.teach.course_map --check    say whether they still fit the notebooks; status 1 if not
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

from avkit.checkpoints import write_atomically
from avkit.errors import DataError
from avkit.teach import notebooks, quizzes, workshop

README, PICTURE = "README.md", "course-map.svg"
COMMAND = "python -m avkit.teach.course_map"
TINTS = ("#E8F1F8", "#FBEEDB", "#EAF4EC", "#F5E9F2")  # one a part; the part is written above its column as well
_TIME = re.compile(r"\*\*Time\*\*\s+(\d+)\s+minutes\b.*?(\d+)(?:\s+minutes)?\s+of\s+exercises", re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_RANGE = re.compile(r"\b(\d\d) to (?:notebook )?(\d\d)\b")


@dataclass(frozen=True)
class Entry:
    """What a notebook's first cell says of it: minutes of reading and of exercises, and the notebooks that it needs."""

    number: str
    file: str
    title: str
    reading: int
    exercises: int
    needs: tuple[str, ...]

    @property
    def minutes(self) -> int:
        return self.reading + self.exercises


def read_entry(path: Path) -> Entry:
    """A notebook's entry. Raises DataError where its first cell lacks title, **Time** or **Needs**."""
    head, number = notebooks.read(path).cells[0].source, path.stem[:2]
    title, time = re.match(rf"# {number} · (.+)", head), _TIME.search(head)
    if title is None or time is None or "**Needs**" not in head:
        raise DataError(
            f"{path.name}: its first cell begins with '# {number} · TITLE' and says '**Time** N minutes …, M of exercises' and "
            "'**Needs** …'"
        )
    words = _LINK.sub(r"\1", head.split("**Needs**", 1)[1].split("\n\n", 1)[0].replace("\n", " "))
    for first, last in _RANGE.findall(words):
        words += " " + " ".join(f"{n:02d}" for n in range(int(first), int(last) + 1))
    needs = sorted({found for found in re.findall(r"\b\d\d\b", words) if found < number})
    return Entry(number, path.name, title[1].strip(), int(time[1]), int(time[2]), tuple(needs))


def read_course(folder: Path) -> list[Entry]:
    """Every notebook's entry, in reading order; needs that are no notebook of the folder are left out."""
    entries = [read_entry(path) for path in notebooks.list_notebooks(folder)]
    there = {entry.number for entry in entries}
    return [
        Entry(e.number, e.file, e.title, e.reading, e.exercises, tuple(n for n in e.needs if n in there)) for e in entries
    ]


def direct_needs(entries: list[Entry]) -> dict[str, tuple[str, ...]]:
    """What each notebook needs that nothing else it needs already needs: the arrows of the map."""
    needs = {entry.number: entry.needs for entry in entries}

    def all_of(number: str) -> set[str]:
        return {n for need in needs[number] for n in {need, *all_of(need)}}

    return {
        number: tuple(need for need in found if not any(need in all_of(other) for other in found if other != need))
        for number, found in needs.items()
    }


# ------------------------------------------------------------------------------------------------------- the picture

_WIDTH, _HEIGHT, _ACROSS, _DOWN, _TOP = 264, 50, 318, 84, 54


def _places(entries: list[Entry]) -> dict[str, tuple[int, int]]:
    """Upper left corner of each notebook's box: a column for each part of the course."""
    found = {}
    for column, numbers in enumerate(quizzes.PARTS.values()):
        present = [entry.number for entry in entries if entry.number in numbers]
        found |= {number: (20 + column * _ACROSS, _TOP + row * _DOWN) for row, number in enumerate(present)}
    return found


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """A line with a head from one box to another: down within a column, to the right between columns."""
    (x, y), (u, v) = start, end
    if x == u and v - y == _DOWN:
        path = f"M{x + _WIDTH / 2:g} {y + _HEIGHT} V{v - 2}"
    elif x == u:
        path = f"M{x} {y + _HEIGHT / 2:g} C{x - 22} {y + _HEIGHT:g} {x - 22} {v:g} {x - 2} {v + _HEIGHT / 2:g}"
    else:
        right, low, high = x + _WIDTH, y + _HEIGHT / 2, v + _HEIGHT / 2
        if u - x == _ACROSS:
            path = f"M{right} {low:g} C{right + 26} {low:g} {u - 26} {high:g} {u - 2} {high:g}"
        else:  # past other columns, in the gap below the target's row
            gap = v + (_HEIGHT + _DOWN) / 2
            path = f"M{right} {low:g} C{right + 26} {low:g} {right + 20} {gap:g} {right + 50} {gap:g} H{u - 50}"
            path += f" C{u - 20} {gap:g} {u - 30} {high:g} {u - 2} {high:g}"
    return f'<path d="{path}" fill="none" stroke="#444444" stroke-width="1.4" marker-end="url(#head)"/>'


def short_title(entry: Entry, entries: list[Entry], longest: int = 30) -> str:
    """A title that fits its box: whole, or the part before its colon, or, where another notebook begins alike, that after it."""
    before, _, after = entry.title.partition(": ")
    if len(entry.title) <= longest:
        return entry.title
    alike = sum(other.title.startswith(f"{before}:") for other in entries) > 1
    return after[:1].upper() + after[1:] if alike else before


def describe(entries: list[Entry]) -> str:
    """The map in words."""
    needs = direct_needs(entries)
    words = "; ".join(f"{number} needs {', '.join(found)}" for number, found in needs.items() if found)
    free = ", ".join(number for number, found in needs.items() if not found)
    return f"Map of the course in {len(quizzes.PARTS)} columns, an arrow for each need. Without needs: {free}. {words}."


def picture(entries: list[Entry]) -> str:
    """The map as SVG."""
    places, needs = _places(entries), direct_needs(entries)
    width = 20 + len(quizzes.PARTS) * _ACROSS
    height = max(y for _, y in places.values()) + _HEIGHT + 20
    lines = [
        (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-labelledby="title about" font-family="sans-serif">'),
        '<title id="title">Map of the course</title>',
        f'<desc id="about">{escape(describe(entries))}</desc>',
        ('<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#444444"/></marker></defs>'),
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for column, part in enumerate(quizzes.PARTS):
        lines.append(f'<text x="{20 + column * _ACROSS}" y="32" font-size="16" font-weight="bold">{escape(part)}</text>')
    for entry in entries:
        lines += [_arrow(places[need], places[entry.number]) for need in needs[entry.number]]
    for entry in entries:
        x, y = places[entry.number]
        tint = TINTS[(x - 20) // _ACROSS]
        title = short_title(entry, entries)
        lines += [
            (f'<a href="{escape(entry.file)}"><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="7" fill="{tint}" '
            'stroke="#555555"/>'),
            f'<text x="{x + 10}" y="{y + 21}" font-size="14"><tspan font-weight="bold">{entry.number}</tspan> {escape(title)}</text>',
            (f'<text x="{x + 10}" y="{y + 40}" font-size="12" fill="#333333">{entry.reading} min reading, {entry.exercises} min '
            "exercises</text></a>"),
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


# ------------------------------------------------------------------------------------------------------- the page


def hours(minutes: int) -> str:
    """90 -> 1 h 30 min."""
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _path(plan: int, entries: dict[str, Entry]) -> list[str]:
    """A workshop's plan as a list for one who reads alone."""
    lines = []
    for slot in workshop.PLANS[plan]:
        if slot.notebook in entries:
            entry = entries[slot.notebook]
            sections = ", ".join(map(str, slot.sections))
            tasks = f"; exercises: {', '.join(f'`{name}`' for name in slot.exercises)}" if slot.exercises else ""
            lines.append(f"- [{entry.number} {entry.title}]({entry.file}), {slot.minutes} min: sections {sections}{tasks}")
    return lines


def _minutes(plan: int) -> int:
    return sum(slot.minutes for slot in workshop.PLANS[plan] if slot.notebook)


def page(entries: list[Entry]) -> str:
    """The text of notebooks/README.md."""
    known = {entry.number: entry for entry in entries}
    rows = [
        f"| [{e.number}]({e.file}) | {e.title} | {e.reading} | {e.exercises} | {', '.join(e.needs) or 'nothing'} |"
        for e in entries
    ]
    reading, tasks = sum(e.reading for e in entries), sum(e.exercises for e in entries)
    return f"""# The course

<!-- Written by `{COMMAND}` from the notebooks' first cells; edit those, then run it again. -->

![{describe(entries)}]({PICTURE})

An arrow leads from a notebook to one that needs it; what is needed through another is not drawn. Begin anywhere whose needs you have
met: each notebook takes blocks of earlier ones from `avkit`, so no other has to be run before it.

| | notebook | reading, min | exercises, min | needs |
|---|---|---:|---:|---|
{chr(10).join(rows)}
| | together | {reading} | {tasks} | |

The minutes are those that each notebook gives in its first cell. Everything runs on a processor of two cores, offline; where a cell takes minutes,
its notebook says so. `avkit course run` executes them all and prints what each took on your machine. Texts and figures may be used under CC BY 4.0,
code under the MIT licence: take what serves your course.

## Three ways through

In each notebook first choose *Run > Run All Cells*: open exercises do not stop it. The sections listed are those to read; the others must have
run, because later cells use what they define. The two short paths leave out notebooks that the table calls needed: their blocks come from
`avkit`, and their ideas can be read afterwards.

**An afternoon**, {hours(_minutes(3))} at the notebooks: what separation is, how it is scored, where the lips come in, and the whole network.

{chr(10).join(_path(3, known))}

**A workshop day**, {hours(_minutes(6))} at the notebooks: the same with lips, scans and attention built by hand.

{chr(10).join(_path(6, known))}

Both are the timetables of `avkit course workshop --hours 3` and `--hours 6`, which also write a plan with breaks, notes for the instructor and
notebooks for students.

**The full course**, {hours(reading + tasks)}: every notebook in order, {hours(reading)} of reading and {hours(tasks)} of exercises; two notebooks an evening
make {-(-len(entries) // 2)} evenings. Each part begins and ends with five quick questions.

{chr(10).join(_part(part, numbers, known) for part, numbers in quizzes.PARTS.items() if any(n in known for n in numbers))}
"""


def _part(part: str, numbers: tuple[str, ...], known: dict[str, Entry]) -> str:
    there = [known[number] for number in numbers if number in known]
    return f"- {part}: {there[0].number} to {there[-1].number}, {hours(sum(entry.minutes for entry in there))}"


def files(folder: Path) -> dict[Path, str]:
    """What the command writes: path -> content."""
    entries = read_course(folder)
    return {folder / README: page(entries), folder / PICTURE: picture(entries)}


def main(argv: list[str]) -> int:
    """Entry of the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--notebooks", help="folder of the notebooks, if not ./notebooks")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a file is out of date")
    arguments = parser.parse_args(argv)
    stale = 0
    for path, text in files(notebooks.find_notebooks(arguments.notebooks)).items():
        fits = path.is_file() and path.read_text(encoding="utf-8") == text
        stale += not fits
        if not fits and not arguments.check:
            write_atomically(path, lambda part, text=text: Path(part).write_text(text, encoding="utf-8"))
        print(f"{path.name}: {'as it should be' if fits else f'out of date, run {COMMAND}' if arguments.check else 'written'}")
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
