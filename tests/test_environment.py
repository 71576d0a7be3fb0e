"""What `make` does: the set-up of .venv, its repair, the browser, JupyterLab's command line."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

import pytest

from avkit import _environment as environment
from avkit._environment import Installer, SetupError

ROOT = Path(__file__).resolve().parents[1]


# ------------------------------------------------------------------------------------------ the right Python
def test_an_old_python_is_refused_with_what_to_type(monkeypatch):
    monkeypatch.setattr(environment.sys, "version_info", (3, 10, 4))
    with pytest.raises(SetupError, match=r"3\.11 or newer, and .* is 3\.10\. .*PYTHON="):
        environment.check_python()


@pytest.mark.parametrize("absent", ["venv", "ensurepip"])
@pytest.mark.parametrize(("root_user", "line"), [(True, "\n    apt install"), (False, "\n    sudo apt install")])
def test_a_missing_python3_venv_is_answered_with_the_apt_line(monkeypatch, absent, root_user, line):
    real = environment.importlib.util.find_spec
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None if name == absent else real(name))
    monkeypatch.setattr(environment, "is_root", lambda: root_user)
    with pytest.raises(SetupError) as caught:
        environment.check_python()
    assert f"{line} python3-venv\n" in str(caught.value)


def test_a_setup_error_is_printed_without_a_traceback(monkeypatch, capsys):
    monkeypatch.setattr(environment.sys, "version_info", (3, 10, 4))
    assert environment.main(["install"]) == 1
    assert "Python 3.11 or newer" in capsys.readouterr().err


def test_the_setup_needs_the_standard_library_only():
    """It runs before anything is installed: isolated from site-packages, `install --help` still answers."""
    command = [sys.executable, "-S", "-m", "avkit._environment", "install", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------------------------- one folder
class Recorder(Installer):
    """An installer that writes down its pip calls; those whose label is in `fails` fail."""

    def __init__(self, root, torch="cpu", fails=()):
        super().__init__(root, torch)
        self.calls, self.fails = [], fails

    def step(self, label, command, needed=True):
        self.calls.append((label, command))
        if any(part in label for part in self.fails):
            if needed:
                raise SetupError(label)
            return False
        return True

    def answers(self, *arguments):
        return "endswith" not in arguments[-1]  # torch is not there yet

    def labels(self):
        return [label for label, _ in self.calls]


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder with what the stamp depends on and a .venv, as far as a Recorder asks for it."""
    (tmp_path / "avkit").mkdir()
    for name in ("pyproject.toml", "environment.yml", "avkit/_environment.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    return tmp_path


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(environment, "nvidia_gpu", lambda: False)


def test_the_second_run_installs_nothing(project):
    first, second = Recorder(project), Recorder(project)
    first.run()
    second.run()
    assert len(first.calls) >= 4
    assert second.calls == []


@pytest.mark.parametrize("name", ["pyproject.toml", "environment.yml"])
def test_a_changed_requirement_installs_again(project, name):
    Recorder(project).run()
    with (project / name).open("a") as file:
        file.write("\n# changed\n")
    again = Recorder(project)
    again.run()
    assert again.calls


def test_another_build_of_torch_installs_again(project):
    Recorder(project, "cpu").run()
    again = Recorder(project, "cuda")
    again.run()
    assert again.calls


@pytest.mark.parametrize("part", ["torchaudio", "avkit"])
def test_a_failed_or_interrupted_run_leaves_no_stamp_and_the_next_goes_on(project, part):
    with pytest.raises(SetupError):
        Recorder(project, fails=(part,)).run()
    assert not (project / ".venv" / "avkit-ready.json").exists()
    again = Recorder(project)
    again.run()
    assert again.calls
    assert (project / ".venv" / "avkit-ready.json").exists()


def test_a_cut_off_stamp_counts_as_none(project):
    Recorder(project).run()
    stamp = project / ".venv" / "avkit-ready.json"
    stamp.write_text(stamp.read_text()[:20])
    again = Recorder(project)
    again.run()
    assert again.calls


def test_pesq_has_a_pip_call_of_its_own_that_may_fail(project, monkeypatch, capsys):
    monkeypatch.setattr(environment, "compiler", lambda: None)
    first = Recorder(project, fails=("pesq",))
    first.run()
    assert "apt install gcc python3-dev" in capsys.readouterr().out
    wanting = [command for _, command in first.calls if any(part.startswith("pesq") for part in command)]
    assert [command[-2] for command in wanting] == ["install"]
    assert json.loads((project / ".venv" / "avkit-ready.json").read_text())["pesq"] == "failed"

    second = Recorder(project)  # nothing has changed: nothing is tried again
    second.run()
    assert second.calls == []

    monkeypatch.setattr(environment, "compiler", lambda: "/usr/bin/cc")
    third = Recorder(project)  # a compiler has come: pesq is tried again
    third.run()
    assert any("pesq" in label for label in third.labels())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the ordinary wheels are CPU builds")
def test_without_a_gpu_torch_comes_from_the_cpu_index_alone(project):
    installer = Recorder(project, "auto")
    installer.run()
    command = next(command for label, command in installer.calls if "for CPUs" in label)
    assert command[-1] == f"torch=={environment.pins()['torch']}"
    assert {"--no-deps", "https://download.pytorch.org/whl/cpu"} <= set(command)
    assert command[command.index("--retries") + 1] == "0"
    others = [command for label, command in installer.calls if "for CPUs" not in label]
    assert not any("download.pytorch.org" in part for command in others for part in command)


def test_an_unreachable_cpu_index_does_not_stop_the_install(project, capsys):
    installer = Recorder(project, "cpu", fails=("for CPUs",))
    installer.run()
    assert "the ordinary build is installed instead" in capsys.readouterr().out
    assert installer.labels()[-1].startswith("pesq")


@pytest.mark.parametrize(("choice", "gpu"), [("cuda", False), ("auto", True)])
def test_with_a_gpu_the_cpu_index_is_left_out(project, monkeypatch, choice, gpu):
    monkeypatch.setattr(environment, "nvidia_gpu", lambda: gpu)
    installer = Recorder(project, choice)
    installer.run()
    assert not any("download.pytorch.org" in part for _, command in installer.calls for part in command)
    assert any("CUDA" in label for label in installer.labels())


def test_torchaudio_never_brings_another_torch(project):
    installer = Recorder(project)
    installer.run()
    command = next(command for label, command in installer.calls if label == "torchaudio")
    assert "--no-deps" in command


def test_versions_that_do_not_fit_give_way_to_the_ranges(project, capsys):
    class OldPins(Recorder):
        def step(self, label, command, needed=True):
            super().step(label, command, needed)
            return "-c" not in command or "install" not in command

    installer = OldPins(project)
    installer.run()
    rest = [command for label, command in installer.calls if label.startswith("avkit")]
    assert ["-c" in command for command in rest] == [True, False]
    assert "trying the newest that avkit allows" in capsys.readouterr().out


# ------------------------------------------------------------------------------- a real .venv, cut off midway
@pytest.fixture(scope="module")
def small_venv(tmp_path_factory) -> tuple[Path, Path]:
    """A virtual environment with one small package of two files in it, and that package's wheel."""
    folder = tmp_path_factory.mktemp("venv")
    source = folder / "source"
    (source / "smallest").mkdir(parents=True)
    (source / "smallest" / "__init__.py").write_text("from smallest.second import answer\n")
    (source / "smallest" / "second.py").write_text("answer = 42\n")
    (source / "pyproject.toml").write_text('[project]\nname = "smallest"\nversion = "1.0"\n')
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(source)], check=True, capture_output=True)
    venv.create(folder / ".venv", with_pip=True)
    (wheel,) = folder.glob("*.whl")
    return folder / ".venv", wheel


def pip_install(place: Path, wheel: Path) -> None:
    command = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    subprocess.run([*command, "--no-index", str(wheel)], check=True, capture_output=True)


def answer(place: Path) -> str:
    code = "import smallest; print(smallest.answer)"
    command = [str(place / "bin" / "python"), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


@pytest.mark.parametrize("lost", ["smallest/second.py", "smallest-1.0.dist-info/RECORD",
                                  "smallest-1.0.dist-info/METADATA"])
def test_a_package_that_an_interrupted_pip_left_incomplete_is_installed_again(small_venv, lost):
    place, wheel = small_venv
    pip_install(place, wheel)
    assert answer(place) == "42"
    assert environment.mend(place) == []
    (site,) = place.glob("lib/python*/site-packages")
    (site / lost).unlink()
    if lost.endswith("second.py"):
        shutil.rmtree(site / "smallest" / "__pycache__")
        pip_install(place, wheel)  # pip alone believes that all is well
        assert answer(place) == ""
    assert environment.mend(place) == ["smallest"]
    pip_install(place, wheel)
    assert answer(place) == "42"


def test_what_pip_had_moved_aside_is_swept_up(small_venv):
    place, _ = small_venv
    (site,) = place.glob("lib/python*/site-packages")
    (site / "~orch").mkdir()
    environment.mend(place)
    assert not (site / "~orch").exists()


def test_a_venv_whose_python_is_gone_is_made_anew(tmp_path, project):
    installer = Installer(project, "cpu")
    (project / ".venv" / "bin").mkdir()
    (project / ".venv" / "bin" / "python").symlink_to(tmp_path / "no-longer-there")
    installer.make_venv()
    assert installer.answers("-m", "pip", "--version")


# ----------------------------------------------------------------------------------------- browser and lab
@pytest.mark.parametrize(
    ("root_user", "display", "expected"),
    [
        (False, True, []),
        (False, False, ["--no-browser"]),
        (True, True, ["--allow-root", "--no-browser"]),
        (True, False, ["--allow-root", "--no-browser"]),
    ],
)
def test_jupyterlab_gets_what_it_needs_here(root_user, display, expected):
    command = environment.lab_command(["--port", "9999"], root_user, display)
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert command[-2 - len(expected):] == [*expected, "--port", "9999"]
    assert {"--allow-root", "--no-browser"} & set(command) == set(expected)


def fetch(address: str, tries: int = 50) -> str:
    """What a server that has printed its address, but may not listen yet, answers."""
    for _ in range(tries):
        try:
            with urllib.request.urlopen(address) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            time.sleep(0.2)
    raise TimeoutError(f"nothing answered at {address}")


@pytest.mark.timeout(120)
def test_jupyterlab_prints_an_address_that_opens_the_first_notebook(tmp_path):
    """The server is started as `make lab` starts it, in a terminal's place; its address leads to the notebook."""
    home = {**os.environ, "HOME": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    command = environment.lab_command(["--port", port], True, False)
    with subprocess.Popen(command, cwd=ROOT, env=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as server:
        try:
            address = next(line.strip() for line in server.stdout if line.strip().startswith("http://127.0.0.1"))
            notebook = json.loads(fetch(address.replace("/lab/tree/", "/api/contents/") + "&content=0"))
            assert notebook["path"] == environment.FIRST_NOTEBOOK
            assert "JupyterLab" in fetch(address)
        finally:
            server.terminate()


def test_a_browser_that_does_not_start_is_not_a_browser(monkeypatch, tmp_path):
    fake = tmp_path / "chromium"
    fake.write_text("#!/bin/sh\necho 'install the snap' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.find_browser() is None
    fake.write_text("#!/bin/sh\necho Chromium 1\n")
    assert environment.find_browser() == str(fake)


@pytest.mark.parametrize(("root_user", "apt"), [(False, True), (True, False)])
def test_where_chromium_cannot_be_installed_it_says_so(monkeypatch, capsys, root_user, apt):
    monkeypatch.setattr(environment, "find_browser", lambda: None)
    monkeypatch.setattr(environment, "is_root", lambda: root_user)
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/apt-get" if apt else None)
    monkeypatch.setattr(environment.subprocess, "run", lambda *a, **k: pytest.fail("nothing may be installed"))
    environment.install_browser()
    assert "will be skipped" in capsys.readouterr().out


def test_root_on_debian_gets_chromium_after_an_update(monkeypatch):
    calls = []
    monkeypatch.setattr(environment, "find_browser", lambda: "/usr/bin/chromium" if len(calls) == 2 else None)
    monkeypatch.setattr(environment, "is_root", lambda: True)
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/apt-get")
    monkeypatch.setattr(environment.subprocess, "run", lambda command, **k: calls.append(command))
    environment.install_browser()
    assert [command[1] for command in calls] == ["update", "install"]
    assert calls[1][-1] == "chromium"


def test_the_interpreter_is_fetched_once_and_into_its_own_folder(tmp_path, monkeypatch, capsys):
    calls, folder = [], tmp_path / ".venv/interpreter"

    def pip(command, **kwargs):
        calls.append(command)
        record = folder / f"triton-{environment.TRITON}.dist-info" / "RECORD"
        record.parent.mkdir(parents=True)
        record.touch()

    monkeypatch.setattr(environment, "nvidia_gpu", lambda: False)
    monkeypatch.setattr(environment.sys, "platform", "linux")
    monkeypatch.setattr(environment.subprocess, "run", pip)
    for _ in range(2):
        environment.install_interpreter(tmp_path)
    ((*_, place, wanted),) = calls
    assert (place, wanted) == (str(folder), f"triton=={environment.TRITON}")
    assert "could not" not in capsys.readouterr().out


def test_without_triton_the_tests_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(environment, "nvidia_gpu", lambda: False)
    monkeypatch.setattr(environment.sys, "platform", "linux")
    monkeypatch.setattr(environment.subprocess, "run", lambda *a, **k: None)
    environment.install_interpreter(tmp_path)
    assert "could not be fetched" in capsys.readouterr().out
    monkeypatch.setattr(environment, "nvidia_gpu", lambda: True)
    environment.install_interpreter(tmp_path)
    assert not capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- the Makefile
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("lab", ["_environment install --torch cuda", "avkit doctor", "_first_light", "_environment lab"]),
        ("test", ["_environment install --torch cuda", "_environment browser", "_environment interpreter", "pytest -n 2"]),
        ("soak", ["_environment install --torch cuda", "pytest -m soak"]),
        ("course", ["_environment install --torch cuda", "avkit course run"]),
    ],
)
def test_make_does_these_steps_in_this_order(target, expected):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-n", target, "TORCH=cuda"]
    said = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True).stdout
    places = [said.index(part) for part in expected]
    assert places == sorted(places)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_clean_removes_what_was_built_and_nothing_else(tmp_path):
    kept = ["avkit/rtfs.py", "notebooks/00.ipynb", ".venv/lib/__pycache__/a.pyc", "data_samples/x.wav"]
    built = ["build/out.wav", "dist/a.whl", "avkit/__pycache__/a.pyc", ".pytest_cache/x", "avkit.egg-info/PKG-INFO"]
    for name in [*kept, *built]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["make", "-f", str(ROOT / "Makefile"), "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(kept)
