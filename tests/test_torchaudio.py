"""torchaudio through avkit._torchaudio: the stub when its extension cannot load, the real thing when it can.

Whichever of the two this machine needs, both are tried with a make-believe torchaudio in a process of its own.
"""

import json
import math
import subprocess
import sys
import textwrap

import pytest
import torch

from avkit._torchaudio import STUBBED, torchaudio

REPORT = """
import json, sys
from avkit.errors import MissingPackageError
try:
    from avkit._torchaudio import STUBBED, torchaudio
    from torchaudio import _extension
    print(json.dumps({"stubbed": STUBBED, "works": torchaudio.double(2), "doc": _extension.__doc__}))
except MissingPackageError as error:
    print(json.dumps({"error": str(error), "left": [n for n in sys.modules if n.startswith("torchaudio")]}))
"""


def with_make_believe(tmp_path, extension: str, rest: str = "") -> dict:
    """What a fresh process makes of a torchaudio whose `_extension` holds the given source."""
    package = tmp_path / "torchaudio"
    (package / "_extension").mkdir(parents=True)
    (package / "_extension" / "__init__.py").write_text(textwrap.dedent(extension))
    (package / "__init__.py").write_text(
        "from . import _extension, functional\nfrom .functional import double\n__version__ = '2.11.0'\n"
    )
    (package / "functional.py").write_text(
        "from torchaudio._extension import _IS_TORCHAUDIO_EXT_AVAILABLE, fail_if_no_align\n"
        "@fail_if_no_align\ndef forced_align():\n    return 'aligned'\n"
        "def double(x):\n    return 2 * x\n" + textwrap.dedent(rest)
    )
    return in_new_process(REPORT, tmp_path)


def in_new_process(code: str, folder) -> dict:
    lines = f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LOADS = """
'''the real extension'''
_IS_TORCHAUDIO_EXT_AVAILABLE = True
def fail_if_no_align(function): return function
"""


def test_an_extension_that_loads_is_left_alone(tmp_path):
    answer = with_make_believe(tmp_path, LOADS)
    assert answer == {"stubbed": False, "works": 4, "doc": "the real extension"}


@pytest.mark.parametrize(
    "failure",
    [
        "raise OSError('libc10_cuda.so: cannot open shared object file')",
        "raise RuntimeError('Detected that PyTorch and TorchAudio were compiled with different CUDA versions.')",
    ],
)
def test_an_extension_that_cannot_load_is_replaced(tmp_path, failure):
    answer = with_make_believe(tmp_path, failure)
    assert answer == {"stubbed": True, "works": 4, "doc": "Stands in for the compiled extension."}


def test_a_layout_that_is_not_known_is_refused_by_name(tmp_path):
    answer = with_make_believe(tmp_path, "raise OSError('no cuda')", "from torchaudio._extension import new_name\n")
    assert "no cuda" in answer["error"]
    assert "new_name" in answer["error"]
    assert "torchaudio==2.11" in answer["error"]
    assert answer["left"] == []


def test_a_missing_torchaudio_is_answered_with_the_line_to_type(tmp_path):
    hide = "import sys; sys.modules.pop('torchaudio', None)\nclass Hide:\n"
    hide += "    def find_spec(self, name, path=None, target=None):\n"
    hide += "        if name == 'torchaudio': raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
    hide += "sys.meta_path.insert(0, Hide())\n"
    assert "pip install" in in_new_process(hide + REPORT, tmp_path)["error"]


def test_what_the_stub_cannot_do_is_refused_when_called(tmp_path):
    code = "raise OSError('no cuda')"
    with_make_believe(tmp_path, code)
    call = "import json\nfrom avkit._torchaudio import torchaudio\n"
    call += "try:\n    torchaudio.functional.forced_align()\n"
    call += "except RuntimeError as error:\n    print(json.dumps({'said': str(error)}))"
    assert "forced_align needs its compiled extension" in in_new_process(call, tmp_path)["said"]


def test_this_machine_stubs_only_when_it_must():
    code = "import json\ntry:\n    import torchaudio\n    print(json.dumps({'loads': True}))\n"
    code += "except (OSError, RuntimeError):\n    print(json.dumps({'loads': False}))"
    assert in_new_process(code, "/nonexistent")["loads"] == (not STUBBED)


def test_the_real_package_resamples_a_tone():
    """1 kHz stays 1 kHz, away from the edges, when 8 kHz becomes 16 kHz."""
    low = torch.sin(2 * math.pi * 1000 * torch.arange(8000) / 8000)
    high = torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)
    resampled = torchaudio.functional.resample(low, 8000, 16000)
    assert resampled.shape == high.shape
    torch.testing.assert_close(resampled[200:-200], high[200:-200], atol=5e-3, rtol=0)


def test_the_real_package_computes_the_networks_spectrogram():
    """torchaudio's spectrogram with RTFS-Net's settings is torch's STFT with them."""
    wave = torch.randn(2, 4001, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(256)
    ours = torch.stft(wave, 256, 128, window=window, return_complex=True)
    theirs = torchaudio.transforms.Spectrogram(n_fft=256, hop_length=128, power=None)(wave)
    torch.testing.assert_close(theirs, ours)
