"""The package as it is installed: declared requirements, tested versions, and what travels in the wheel."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from avkit._extras import EXTRA_OF

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
STANDARD = set(sys.stdlib_module_names)


def declared() -> dict[str, Requirement]:
    """Every requirement of pyproject.toml, base and extras, by canonical name."""
    rows = [Requirement(row) for part in (PROJECT["dependencies"], *EXTRAS.values()) for row in part]
    return {canonicalize_name(row.name): row for row in rows if row.name != "avkit"}


def pinned() -> dict[str, Requirement]:
    """Every pip row of environment.yml, by canonical name."""
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    rows = next(row["pip"] for row in conda if isinstance(row, dict))
    return {canonicalize_name(Requirement(row).name): Requirement(row) for row in rows if row != "-e ."}


def test_environment_and_pyproject_name_the_same_packages():
    """All but those of the extra `official`: they serve one comparison, and CI does not install them."""
    apart = {canonicalize_name(Requirement(row).name) for row in EXTRAS["official"]}
    wanted = {name: row.extras for name, row in declared().items() if name not in apart}
    assert {name: row.extras for name, row in pinned().items()} == wanted


@pytest.mark.parametrize("name", pinned())
def test_each_tested_version_is_exact_and_in_range(name):
    exact = re.fullmatch(r"==([\w.]+)", str(pinned()[name].specifier))
    assert exact, f"{pinned()[name]} does not pin one version"
    assert exact[1] in declared()[name].specifier


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="environments outside CI may hold other versions")
def test_ci_runs_with_the_tested_versions():
    wanted = {name: str(row.specifier) for name, row in pinned().items()}
    assert {name: f"=={version(name).partition('+')[0]}" for name in wanted} == wanted


def test_conda_brings_python_pip_and_a_compiler():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    plain = [row for row in conda if isinstance(row, str)]
    assert {"pip", "c-compiler"} <= set(plain)
    python = next(row for row in plain if row.startswith("python="))
    assert python.removeprefix("python=") in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_make_reads_the_same_versions():
    from avkit._environment import pins

    assert {canonicalize_name(name.partition("[")[0]): row for name, row in pins().items()} == {
        name: str(row.specifier).removeprefix("==") for name, row in pinned().items()
    }


def distributions_by_module() -> dict[str, list[str]]:
    """Import names and what brings them. dlib-bin's wheel says that it brings `_dlib_pybind11` only."""
    return {"dlib": ["dlib-bin"], **packages_distributions()}


def test_the_table_of_extras_is_pyprojects():
    """Import names, as far as they are installed here, lead to the extra that declares their distribution."""
    homes = {
        canonicalize_name(Requirement(row).name): extra
        for extra, rows in EXTRAS.items()
        if extra != "all"
        for row in rows
    }
    assert len(homes) == len(EXTRA_OF)
    distributions = distributions_by_module()
    for module, extra in EXTRA_OF.items():
        names = {canonicalize_name(name) for name in distributions.get(module, [module])}
        assert {homes[name] for name in names} == {extra}


def test_all_is_every_extra_but_those_that_compile():
    """pesq is compiled while it is installed, sru when it is imported: a failure must not take the rest along."""
    (row,) = EXTRAS["all"]
    assert Requirement(row).extras == EXTRAS.keys() - {"all", "pesq", "official"}


# ----------------------------------------------------------------------------------- declared and used
def imports_of(source: str) -> set[str]:
    """Top-level names of the modules that a piece of Python imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def code_of(notebook: Path) -> str:
    """A notebook's Python, its magics and shell lines left out."""
    cells = [cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]
    lines = "\n".join(cells).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def imported_by() -> dict[str, set[str]]:
    """Third-party module -> files of the project that import it."""
    files = [*(ROOT / "avkit").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    ours = {"avkit"} | {path.stem for path in (ROOT / "tests").rglob("*.py")}
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in files}
    sources |= {f"notebooks/{path.name}": code_of(path) for path in (ROOT / "notebooks").glob("*.ipynb")}
    users: dict[str, set[str]] = {}
    for name, source in sources.items():
        for module in imports_of(source) - STANDARD - ours:
            users.setdefault(module, set()).add(name)
    return users


# Packages that come with another one by its nature, and that we import beside it.
COMPANIONS = {
    "nbformat": "papermill",
    "nbclient": "papermill",
    "IPython": "ipywidgets",
    "traitlets": "ipywidgets",
    "packaging": "pytest",
    "PIL": "matplotlib",
    "tornado": "jupyterlab",
    "nbconvert": "jupyterlab",
    "websocket": "jupyterlab",
    "triton": "torch",  # in its builds for GPUs
    "sru": None,  # the official code's, for side-by-side runs: `avkit bench --official` says how to get it
}


def test_what_is_imported_is_declared():
    distributions, known = distributions_by_module(), declared()
    undeclared = {}
    for module, users in imported_by().items():
        names = {canonicalize_name(name) for name in distributions.get(module, [module])}
        if module not in COMPANIONS and not names & known.keys():
            undeclared[module] = sorted(users)
    assert undeclared == {}


def test_the_networks_need_no_extra():
    """With every optional package hidden, each room around the networks imports, and each network is made."""
    rooms = ["checkpoints", "cli", "complexity", "doctor", "losses", "metrics", "registry", "separation", "signal"]
    hidden = sorted(EXTRA_OF)
    code = f"""
import importlib, sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {hidden!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Hide())
for room in {rooms!r}:
    importlib.import_module('avkit.' + room)
import avkit
for name in avkit.list_models():
    avkit.create_model(name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


NAMED = ("torch", "torchaudio", "jupyterlab", "ipywidgets", "matplotlib", "papermill", "nbval", "pesq", "lightning")
# Used otherwise than by a plain import: what must appear where.
BY_COMMAND = {
    "jupyterlab": ("avkit/_environment.py", '"jupyterlab"'),
    "nbval": ("tests", "--nbval-lax"),
    "torchaudio": ("avkit/signal.py", "from avkit._torchaudio import torchaudio"),
}


@pytest.mark.parametrize("name", NAMED)
def test_each_package_the_course_is_built_on_is_declared_and_used(name):
    assert name in declared()
    users = imported_by().get(name, set())
    if name in BY_COMMAND:
        where, text = BY_COMMAND[name]
        files = [ROOT / where] if (ROOT / where).is_file() else sorted((ROOT / where).rglob("*.py"))
        users = {str(file) for file in files if text in file.read_text() and file != Path(__file__)}
    assert users - {"avkit/doctor.py", "tests/test_packaging.py"}


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="PESQ is optional outside CI")
def test_ci_has_pesq():
    assert version("pesq")


# -------------------------------------------------------------------------------------------- the wheel
@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """An empty folder with nothing but avkit's wheel unpacked in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, so that building leaves nothing in the checkout
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "avkit", "pyproject.toml", "README.md",
         "LICENSE"], cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout.split("\0")
    for name in filter(None, tracked):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(source)], capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    target = ["install", "--no-deps", "--target", str(folder / "site"), str(wheel)]
    subprocess.run([*pip, *target], capture_output=True, check=True)
    return folder / "site"


def from_wheel(site: Path, code: str) -> str:
    """What the code prints with the wheel's avkit, run in an empty folder (`-P`: the folder itself is not searched)."""
    empty = site.parent / "empty"
    empty.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=empty, env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_lists_the_networks(installed):
    said = from_wheel(installed, "import avkit; print(avkit.__file__); print(*avkit.list_models())")
    place, names = said.splitlines()
    assert Path(place).is_relative_to(installed)
    assert {"rtfs-net-4", "rtfs-net-6", "rtfs-net-12", "rtfs-net-tiny", "iianet"} <= set(names.split())


def test_the_wheel_carries_every_configuration_and_checkpoint(installed):
    def data_files(package: Path) -> set[Path]:
        endings = {".yaml", ".json", ".safetensors"}
        return {path.relative_to(package) for path in package.rglob("*") if path.suffix in endings}

    assert data_files(installed / "avkit") == data_files(ROOT / "avkit")
    assert data_files(ROOT / "avkit")


def test_the_wheel_separates_with_its_trained_network(installed):
    code = """
import avkit, torch
model = avkit.load_model("rtfs-net-tiny")
lips = torch.zeros(1, 50, 96, 96, dtype=torch.uint8)
voice = avkit.separate(torch.randn(1, 32000, generator=torch.Generator().manual_seed(0)), lips, model=model)
print(tuple(voice.shape), bool(voice.isfinite().all()), avkit.__file__)
"""
    said = from_wheel(installed, code)
    assert said.startswith("(1, 1, 32000) True ")
    assert str(installed) in said


def test_every_network_in_the_wheel_loads_with_its_lips(installed):
    """A network that names the lip encoder of another finds it there."""
    code = """
import avkit
from avkit.checkpoints import list_bundled
print({name: avkit.load_model(name).lips is not None for name in list_bundled()})
"""
    with_lips = {"iianet-tiny": True, "iianet-tiny-audio-only": False, "rtfs-net-tiny": True}
    loaded = with_lips | {"rtfs-net-tiny-audio-only": False, "rtfs-net-tiny-opening": True}
    assert from_wheel(installed, code).strip() == str(loaded)


def test_the_wheel_brings_its_command_and_licence(installed):
    assert "avkit=avkit.cli:main" in re.sub(r"\s", "", next(installed.glob("*.dist-info/entry_points.txt")).read_text())
    (licence,) = installed.glob("*.dist-info/licenses/LICENSE")
    assert "avkit contributors" in licence.read_text()


def test_the_wheel_holds_no_tests_and_no_samples(installed):
    assert {path.name for path in installed.iterdir() if "dist-info" not in path.name} <= {"avkit", "bin"}


def test_the_installed_version_is_the_packages():
    import avkit

    try:
        assert version("avkit") == avkit.__version__ == PROJECT["version"]
    except PackageNotFoundError:
        pytest.fail("avkit is not installed here: python -m pip install -e .")
