"""`avkit course book`: the course and the API reference as a static site, by Sphinx with myst-nb.

Its sources are made anew each time: the notebooks as they are stored (nothing is executed), and a page per public
module. The site asks no other host for anything: MathJax and its fonts come from the package
jupyter-server-mathjax, sliders stand as the pictures that the notebooks hold.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import avkit
from avkit._extras import require
from avkit.errors import DataError
from avkit.reproduction import page, records
from avkit.teach import notebooks, quizzes, versions, workshop

NOTICE = "avkit contributors. Texts and figures: CC BY 4.0. Code: MIT"  # below every page; the licence is linked on the first
# Public rooms, in the order in which a reader meets them; a name that ends with a dot stands for a whole package.
API = {
    "The public face": ("avkit",),
    "Networks": ("rtfs", "iianet", "lips", "layers", "sru", "signal", "registry", "ablations", "baselines"),
    "Using them": ("separation", "checkpoints", "official", "weights", "complexity", "bench", "video."),
    "Training and evaluation": ("losses", "metrics", "training", "learner", "pretraining", "evaluation", "scoring"),
    "Data": ("data.",),
    "Reproduction": ("reproduction.",),
    "Teaching": ("teach",),
    "Errors": ("errors",),
}
_REST = "Beneath them"  # every other public room
_APART = {"cli", "doctor", "teach", "fast", "bundled", "configs"}  # commands, lessons, compiled twins, data
_LINK = re.compile(r"\[([^\]]+)\]\(([\w-]+\.ipynb)(#[\w-]+)?\)")
_SECTION = re.compile(r"(Args|Arguments|Returns|Raises|Yields|Attributes|Examples?|Notes?):\s*$")
_CODE = re.compile(r"``[^`]+``|`[^`]+`")
_NO_MATHJAX = shutil.ignore_patterns("localization", "SVG", "a11y", "fast-preview.js", "CHTML-preview.js")
STYLE = """
.avkit-player audio { max-width: 100%; height: 2.5em; }
.avkit-player video { max-width: 100%; }
.cell_output img, .cell_output svg { max-width: 100%; height: auto; }
div.cell_output .output.text_html { overflow-x: auto; }
body[data-theme="dark"] .cell_output img { background: white; }
details { margin: .5em 0; border: 1px solid var(--color-background-border); border-radius: .3em; padding: .3em .8em; }
summary { cursor: pointer; font-weight: bold; }
"""
_VARIANTS = ("double-struck", "script", "fraktur", "bold-script", "bold-fraktur", "monospace", "sans-serif",
             "bold-sans-serif", "sans-serif-italic")
MATHJAX = {
    "config": ["TeX-AMS-MML_HTMLorMML-full.js"],
    "jax": ["input/TeX", "output/HTML-CSS"],
    "extensions": ["tex2jax.js"],
    "showMathMenu": False,
    "messageStyle": "none",
    "tex2jax": {"inlineMath": [["\\(", "\\)"]], "displayMath": [["\\[", "\\]"]], "processEscapes": False},
    # The MathML beside each formula is for screen readers: it needs no fonts of its own, and those are not in the package.
    "NativeMML": {"styles": {f'[mathvariant="{name}"]': {"font-family": "inherit"} for name in _VARIANTS}},
    "HTML-CSS": {"availableFonts": [], "imageFont": None, "preferredFont": None, "webFont": "STIX-Web"},
}


def build(folder: Path, out: Path, names: Sequence[str] = (), modules: Sequence[str] = ()) -> list[str]:
    """Build the site into `out`, which is replaced as a whole; returns Sphinx's warnings.

    Args:
        folder: of the course's notebooks. names: pick some of them; all by default.
        modules: of the reference ("avkit.rtfs"); all public ones by default.

    Raises:
        MissingPackageError: the extra `book` is not installed. DataError: Sphinx failed, or `out` holds something else.
    """
    for package in ("sphinx", "myst_nb", "furo", "jupyter_server_mathjax"):
        require(package, "The book")
    if out.exists() and any(out.iterdir()) and not (out / ".buildinfo").exists():
        raise DataError(f"{out} holds other things than a book; name a folder that is empty or new")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        ledger = page.page(records.read(folder.parent / "data_samples" / "results" / "ledger"))
        paths = notebooks.list_notebooks(folder, list(names))
        write_sources(source, paths, modules or public_modules(), ledger)
        warnings = _sphinx(source, Path(scratch) / "html", Path(scratch) / "doctrees")
        shutil.rmtree(Path(scratch) / "html" / "_sources", ignore_errors=True)  # empty
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(scratch) / "html", out)
    return warnings


# ---------------------------------------------------------------------------------------------- the sources
def write_sources(source: Path, paths: Sequence[Path], modules: Sequence[str], ledger: str) -> None:
    """Everything that Sphinx reads: pages, notebooks, the reference, style, MathJax."""
    import jupyter_server_mathjax

    (source / "_static").mkdir(parents=True)
    (source / "_static" / "book.css").write_text(STYLE)
    mathjax = Path(jupyter_server_mathjax.__file__).parent / "static"
    shutil.copytree(mathjax, source / "_static" / "mathjax", ignore=_NO_MATHJAX)
    (source / "course").mkdir()
    for path in paths:
        notebooks.write(for_the_book(path, {other.name for other in paths}), source / "course" / path.name)
    (source / "index.md").write_text(_index([path.stem for path in paths]))
    (source / "teachers.md").write_text(_teachers(paths))
    (source / "ledger.md").write_text(ledger)
    (source / "api").mkdir()
    (source / "api" / "index.rst").write_text(_reference(modules))
    for module in modules:
        (source / "api" / f"{module}.rst").write_text(_module_page(module))


def for_the_book(path: Path, others: set[str]):
    """A notebook as the book shows it: without widgets' state, and without links to notebooks that are not in it."""
    made = notebooks.read(path)
    made.metadata.pop("widgets", None)
    for cell in made.cells:
        if cell.cell_type == "markdown":
            cell.source = _LINK.sub(lambda link: link[0] if link[2] in others else link[1], cell.source)
    return made


_INDEX = """# avkit: audio-visual speech separation

Two people talk at once, and a camera sees their mouths. This course builds, block by block, two published networks that
tell the voices apart: RTFS-Net (ICLR 2024) and IIANet (ICML 2024). Every page of it is a notebook; the book shows the
notebooks as they are stored, with all that was heard and seen when they were run.

To run them, change them and have your answers checked, get a clone of the repository and type `make lab` in it. Here,
sounds play and questions have their answers folded away; sliders stand still.

{parts}

## Licence

Texts and figures of this book are under [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/): use them in your own
teaching, changed or not, and name "avkit contributors" as their source. The code is under the MIT licence. Voices and
mouths are synthetic.
"""
_TEACHERS = """# For teachers

`avkit course workshop OUT --hours 3` (or 6) writes all that a workshop needs: a timetable as below, a letter to those who
will come, the notebooks without solutions, and the instructor's. `avkit course room REPORTS` says whose laptop is ready,
`avkit course grade FOLDER` marks what is handed in.

{plans}

{notes}
"""


def _index(stems: Sequence[str]) -> str:
    parts = {
        part: [f"course/{stem}" for stem in stems if stem[:2] in numbers] for part, numbers in quizzes.PARTS.items()
    }
    parts["Beside the course"] = ["ledger", "teachers", "api/index"]
    trees = [
        "\n".join(["```{toctree}", f":caption: {part}", ":maxdepth: 1", "", *pages, "```"])
        for part, pages in parts.items()
        if pages
    ]
    return _INDEX.replace("{parts}", "\n\n".join(trees))


def _teachers(paths: Sequence[Path]) -> str:
    """The timetables and what each notebook's notes say, in one page."""
    known = {path.stem[:2]: path for path in paths}
    plans, notes = [], []
    for hours, slots in workshop.PLANS.items():
        if all(slot.notebook in known for slot in slots if slot.notebook):
            timetable = workshop.plan(hours, known).split("\n## ")[0].split("\n", 1)[1]
            plans.append(f"## {hours} hours\n\n{timetable.replace('](student/', '](course/').strip()}")
    for number, path in known.items():
        text = re.sub(r"^#+ (.*)$", r"**\1**", versions.notes(number), flags=re.MULTILINE)
        notes.append(f"## [{path.stem}](course/{path.name})\n\n{text}")
    return _TEACHERS.replace("{plans}", "\n\n".join(plans)).replace("{notes}", "\n\n".join(notes))


# -------------------------------------------------------------------------------------------- the reference
def public_modules() -> list[str]:
    """Names of the modules that the reference has a page for, in its order."""
    return [module for group in _groups().values() for module in group]


def _groups() -> dict[str, list[str]]:
    """The modules of each group of the reference, the last one of all that no other names."""
    groups = {title: [module for room in rooms for module in _room(room)] for title, rooms in API.items()}
    shown = {module for group in groups.values() for module in group}
    inside = {module.name for module in pkgutil.iter_modules(avkit.__path__)} - _APART
    rest = [f"avkit.{name}" for name in sorted(inside) if not name.startswith("_")]
    return {**groups, _REST: [module for module in rest if module not in shown]}


def _room(room: str) -> list[str]:
    """One module, or a package with its public modules if the name ends with a dot."""
    name = room if room == "avkit" else f"avkit.{room.rstrip('.')}"
    if not room.endswith("."):
        return [name]
    inside = sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(name).__path__))
    return [name, *(f"{name}.{module}" for module in inside if not module.startswith("_"))]


def _reference(modules: Sequence[str]) -> str:
    lines = ["API reference", "=============", ""]
    lines += ["Shapes are given as (B, C, T, F): batch, channels, time, frequency. Made from the docstrings.", ""]
    for title, group in _groups().items():
        chosen = [module for module in group if module in modules]
        if chosen:
            lines += [".. toctree::", f"   :caption: {title}", "   :maxdepth: 1", "", *(f"   {name}" for name in chosen), ""]
    return "\n".join(lines)


def _module_page(module: str) -> str:
    """autodoc's directive for one module; the faces of avkit and avkit.teach show what they import."""
    lines = [module, "=" * len(module), "", f".. automodule:: {module}", "   :members:", "   :member-order: bysource"]
    if module in ("avkit", "avkit.teach"):
        lines += ["   :imported-members:", "   :no-index:"]
    return "\n".join([*lines, ""])


def as_restructured_text(lines: Sequence[str]) -> list[str]:
    """A docstring's lines as Sphinx reads them: lists and `code` stay, nothing else is taken for markup.

    An indented passage after an empty line or a colon (commands, a table) is shown as it stands; indented below text
    that goes on, it is part of that text.
    """
    made: list[str] = []
    state, last = "", ""  # state: "", "section" (napoleon's), "literal" or "hanging"; last: the line before
    text = _CODE.sub(lambda code: re.sub(r"\s*\n\s*", " ", code[0]), "\n".join(lines))  # code that is wrapped
    for line in text.split("\n"):
        if line.strip() and not line.startswith("    "):
            made += [""] if state == "literal" and last.strip() else []
            state = "section" if _SECTION.match(line) else ""
        elif line.strip() and not state:
            state = "literal" if not last.strip() or last.rstrip().endswith(":") else "hanging"
            if state == "literal":
                made += [""] * bool(last.strip()) + ["::", ""] * (not last.rstrip().endswith("::"))
        elif not line.strip() and state == "hanging":
            state = ""
        made.append(line if state == "literal" else _escape(line.strip() if state == "hanging" else line))
        last = line
    return made


def _escape(line: str) -> str:
    """Backslashes before what would mark up: stars (not a bullet), bars, and underscores that end a word."""
    bullet = re.match(r"\s*\* ", line)
    start = bullet[0] if bullet else ""
    pieces = re.split(f"({_CODE.pattern})", line.removeprefix(start))
    escaped = [
        piece if piece.startswith("`") else re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", piece) for piece in pieces
    ]
    return start + "".join(escaped)


# --------------------------------------------------------------------------------------------------- Sphinx
def _settings() -> dict:
    """What a conf.py would hold."""
    return {
        "project": f"avkit {avkit.__version__}",
        "copyright": NOTICE,
        "html_title": "avkit",
        "html_theme": "furo",
        "html_static_path": ["_static"],
        "html_css_files": ["book.css"],
        "html_copy_source": False,
        "html_show_sourcelink": False,
        "extensions": ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"],
        "source_suffix": {".rst": "restructuredtext", ".ipynb": "myst-nb", ".md": "myst-nb"},
        "myst_enable_extensions": ["dollarmath", "amsmath"],
        "myst_update_mathjax": False,
        "mathjax_path": "mathjax/MathJax.js",
        "mathjax2_config": MATHJAX,
        "nb_execution_mode": "off",
        "nb_ipywidgets_js": {},
        "nb_mime_priority_overrides": [("html", "application/vnd.jupyter.widget-view+json", None)],
        "default_role": "literal",
        "autodoc_typehints": "signature",
        "autodoc_inherit_docstrings": False,
        "napoleon_numpy_docstring": False,
        "language": "en",
    }


def _sphinx(source: Path, html: Path, doctrees: Path) -> list[str]:
    """Run Sphinx in this process; its warnings."""
    import io

    from sphinx.application import Sphinx
    from sphinx.errors import SphinxError
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    said = io.StringIO()
    try:
        with patch_docutils(), docutils_namespace():
            app = Sphinx(
                source, None, html, doctrees, "html", _settings(), status=None, warning=said, freshenv=True
            )
            app.connect("autodoc-process-docstring", _process_docstring, priority=100)
            app.build()
    except SphinxError as error:
        raise DataError(f"Sphinx could not build the book: {error}") from error
    return [line for line in re.sub(r"\x1b\[[\d;]*m", "", said.getvalue()).splitlines() if line.strip()]


def _process_docstring(_app, _what, _name, _obj, _options, lines: list[str]) -> None:
    lines[:] = as_restructured_text(lines)


def report(out: Path, warnings: Iterable[str]) -> str:
    """What was built, for the terminal."""
    pages = list(out.rglob("*.html"))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    words = "".join(f"  {warning}\n" for warning in warnings)
    return f"{words}{len(pages)} pages, {size:.0f} MB, in {out}. Open {out / 'index.html'} in a browser."
