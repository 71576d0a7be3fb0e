"""The GPU's kernels where there is no GPU: their own tests, run by Triton's interpreter in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

INTERPRETER = Path(sys.prefix) / "interpreter"  # `make test` puts Triton there


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU itself: test_norm_gpu.py, test_sru_gpu.py")
@pytest.mark.skipif(not INTERPRETER.is_dir(), reason=f"no Triton in {INTERPRETER}: python -m avkit._environment interpreter")
@pytest.mark.parametrize("kernels", ["norm_gpu", "sru_gpu"])
def test_kernels_equal_the_readable_form_in_the_interpreter(kernels, repository):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/test_{kernels}.py"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(INTERPRETER)}
    run = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", run.stdout)[1])
    assert passed >= {"norm_gpu": 17, "sru_gpu": 20}[kernels], run.stdout[-3000:]
