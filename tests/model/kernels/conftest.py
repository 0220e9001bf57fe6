"""Where the kernels are tested: compiled on a GPU if there is one, interpreted on the CPU otherwise."""

from importlib.util import find_spec

import pytest
import torch

if find_spec("triton") is None:  # there is none for this operating system
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
