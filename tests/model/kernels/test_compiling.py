"""Every kernel compiles for an H100 at the real model's shapes, within its shared memory and without spilling."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

# What a program may have of a multiprocessor's 228 KiB.
SHARED_BYTES = 227 << 10
KERNELS = {
    "_normalise",
    "_gate",
    "_add",
    "_turn",
    "_choose",
    "gate_up_of_pairs",
    "down_of_pairs",
    "sort_pairs",
    "gate_up_of_experts",
    "down_of_experts",
    "attend_parts",
    "join_parts",
    "attend_blocks",
}


@pytest.mark.slow
def test_every_kernel_compiles_for_an_h100_without_spilling(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    program = [sys.executable, "-m", "tests.model.kernels.compiling"]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    compiled = [json.loads(line) for line in done.stdout.splitlines()]
    assert {each["kernel"] for each in compiled} == KERNELS
    assert max(each["shared_bytes"] for each in compiled) <= SHARED_BYTES
    assert [each for each in compiled if each["stack_bytes"]] == []
