"""What "auto" means here, and how many threads an operation takes."""

import threading

import pytest
import torch

from antiphon.errors import CheckpointError
from antiphon.model.placement import limit_cpu_threads, placement

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="tells what happens without a GPU")


@without_gpu
def test_auto_is_float32_on_a_cpu():
    assert (placement().device.type, placement().dtype) == ("cpu", torch.float32)
    assert placement(dtype="bfloat16").dtype == torch.bfloat16


@without_gpu
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(CheckpointError, match=r"torch sees none\. Set the device to auto or cpu"):
        placement("cuda")


@pytest.mark.parametrize(("variable", "expected"), [(None, 1), ("3", 2)])
def test_one_thread_an_operation_also_in_threads_that_start_later(monkeypatch, variable, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(2)
        limit_cpu_threads()
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
    finally:
        torch.set_num_threads(before)
    assert seen == [expected]
