"""Compiles every kernel for an H100, of the shapes of the real model, on a machine that needs no GPU, and prints one
line of JSON for each: its name, the shared memory of a program and the bytes of registers that spill.

A program of its own, because within the tests the kernels are interpreted.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from antiphon.model.kernels import fused_attention, fused_experts, fused_heads, fused_router, fused_rows
from antiphon.model.kernels.arguments import CachePlace, PagedRequests
from antiphon.model.rotary import Rotation

H100 = GPUTarget("cuda", 90, 32)
_KINDS = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.int32: "i32", torch.int64: "i64"}
# Width, expert width, experts a row; query heads, key heads: of the Thinker and of the Talker.
_MODELS = [(2048, 768, 8, 32, 4), (1024, 384, 6, 16, 2)]
_HEAD_WIDTH, _EXPERTS = 128, 128


def _compile(kernel, grid, *arguments, warps=4, stages=3, **constants) -> None:
    """Stands in for the launch of a kernel."""
    named = dict(zip(kernel.arg_names, arguments, strict=False))
    signature = {name: _signature(named.get(name)) for name in kernel.arg_names}
    aligned = {(place,): [["tt.divisibility", 16]] for place, each in enumerate(signature.values()) if each[0] == "*"}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=H100, options=options)
    line = {"kernel": kernel.__name__, "shared_bytes": compiled.metadata.shared, **_spills(compiled.asm["cubin"])}
    sys.stdout.write(json.dumps(line) + "\n")


def _signature(argument: object) -> str:
    if isinstance(argument, Tensor):
        return f"*{_KINDS[argument.dtype]}"
    return {int: "i32", float: "fp32"}.get(type(argument), "constexpr")


def _spills(binary: bytes) -> dict[str, int]:
    reader = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        usage = subprocess.run([reader, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "stack_bytes": int(re.search(r"STACK:(\d+)", usage)[1]),
    }


def _empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _compile_experts(width: int, expert_width: int, top_k: int) -> None:
    experts = fused_experts.FusedExperts(
        _empty(_EXPERTS, 2 * expert_width, width), _empty(_EXPERTS, width, expert_width)
    )
    for pairs in fused_experts.WARM_UP_PAIRS_PER_EXPERT:
        rows = max(1, pairs * _EXPERTS // top_k)
        experts(_empty(rows, width), _empty(rows, top_k, dtype=torch.int64), _empty(rows, top_k))


def _compile_attention(heads: int, kv_heads: int) -> None:
    place = CachePlace(*_empty(2, 512, kv_heads, _HEAD_WIDTH), _empty(5, dtype=torch.int64))
    projected, scale = _empty(5, heads + 2 * kv_heads, _HEAD_WIDTH), _empty(heads + kv_heads, _HEAD_WIDTH)
    rotation = Rotation(_empty(5, 1, _HEAD_WIDTH), _empty(5, 1, _HEAD_WIDTH))
    queries, _, _ = fused_heads.turn_heads(projected, scale, 1e-6, rotation, place)
    tables = [_empty(5, dtype=torch.int32) for _ in range(3)]
    for most_rows in (1, 5):
        requests = PagedRequests(*tables, _empty(5, 8, dtype=torch.int32), page_size=16, most_rows=most_rows)
        fused_attention.attend(queries, place.keys, place.values, requests, _empty(5, heads * _HEAD_WIDTH))


def main() -> None:
    for module in (fused_attention, fused_experts, fused_heads, fused_router, fused_rows):
        module.launch = _compile
    for width, expert_width, top_k, heads, kv_heads in _MODELS:
        fused_rows.normalise(_empty(5, width), _empty(width), 1e-6)
        fused_rows.add_normalise(_empty(5, width), _empty(5, width), _empty(width), 1e-6)
        fused_rows.gated(_empty(5, 2 * expert_width))
        fused_rows.add_behind_gate(_empty(5, width), _empty(5, 1), _empty(5, width))
        fused_router.choose_experts(_empty(5, _EXPERTS), top_k, True)
        _compile_experts(width, expert_width, top_k)
        _compile_attention(heads, kv_heads)


if __name__ == "__main__":
    assert os.environ.get("TRITON_INTERPRET") != "1", "interpreted kernels cannot be compiled"
    main()
