"""The `avkit` command: what it prints, what it returns, and how little it imports."""

import subprocess
import sys

import pytest

import avkit
from avkit import cli
from avkit.errors import InputError


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "avkit", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_the_overview_names_every_command(arguments):
    done = run(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: avkit COMMAND")
    for name, (_, summary) in cli.COMMANDS.items():
        assert f"  {name}" in done.stdout
        assert summary in done.stdout


def test_the_version():
    assert run("--version").stdout == f"avkit {avkit.__version__}\n"


@pytest.mark.parametrize(("typed", "meant"), [("cropus", "corpus"), ("evalaute", "evaluate"), ("trian", "train")])
def test_a_misspelt_command_is_answered_with_the_near_one(typed, meant, capsys):
    assert cli.main([typed]) == 2
    said = capsys.readouterr()
    assert f"Did you mean `avkit {meant}`?" in said.err
    assert said.out == ""


def test_a_command_like_no_other_is_answered_with_the_list(capsys):
    assert cli.main(["xyzzy"]) == 2
    assert "Commands: doctor, corpus" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_answers_help_with_an_example(name):
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"avkit {name}" in done.stdout
    assert "example" in done.stdout.lower()


def test_the_command_itself_imports_nothing_heavy():
    code = (
        "import sys; from avkit import cli; cli.main(['--help']); cli.main(['--version']); "
        "heavy = {'torch', 'numpy', 'scipy', 'lightning', 'torchaudio', 'matplotlib', 'yaml'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class FakeCommand:
    """A command's module whose main raises."""

    def __init__(self, error: BaseException):
        self.error = error

    def main(self, argv):
        raise self.error


def raising(monkeypatch, error: BaseException) -> None:
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: FakeCommand(error))


def test_an_error_the_user_can_mend_is_one_line_and_status_2(monkeypatch, capsys):
    raising(monkeypatch, InputError("the file is empty: give one with sound"))
    assert cli.main(["separate"]) == 2
    assert capsys.readouterr().err == "avkit separate: the file is empty: give one with sound\n"


def test_a_missing_optional_package_is_answered_with_the_line_to_type(monkeypatch, capsys):
    raising(monkeypatch, ModuleNotFoundError("No module named 'lightning.pytorch'", name="lightning.pytorch"))
    assert cli.main(["train"]) == 2
    said = capsys.readouterr().err
    assert "the package lightning is not installed" in said
    assert "[train]" in said


def test_a_bug_keeps_its_traceback(monkeypatch):
    raising(monkeypatch, ModuleNotFoundError("No module named 'avkit.nothing'", name="avkit.nothing"))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["train"])
    raising(monkeypatch, ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["train"])


def test_ctrl_c_ends_without_a_traceback(monkeypatch, capsys):
    raising(monkeypatch, KeyboardInterrupt())
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err == "avkit train: interrupted\n"


def test_a_closed_pipe_ends_without_a_traceback():
    code = "import avkit.cli as c, sys\nc.usage = lambda: 'line\\n' * 200000\n"
    code += "import types\nm = types.SimpleNamespace(main=lambda a: print(c.usage()) or 0)\n"
    code += "c.importlib.import_module = lambda n: m\nsys.exit(c.main(['doctor']))"
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "$0" | head -1', code], capture_output=True, text=True, check=False
    )
    assert done.stdout == "line\n"
    assert "Traceback" not in done.stderr
