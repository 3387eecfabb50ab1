"""The largest error of a 64 x 64 product in float32 by Triton; for tools/gpu_check.py."""

import torch
import triton
import triton.language as tl


@triton.jit
def product(one, other, result):
    index = tl.arange(0, 64)
    place = index[:, None] * 64 + index[None, :]
    tl.store(result + place, tl.dot(tl.load(one + place), tl.load(other + place)))


torch.manual_seed(0)
one, other = torch.randn(2, 64, 64, device="cuda")
result = torch.empty_like(one)
product[(1,)](one, other, result)
print(float((result.double() - one.double() @ other.double()).abs().max()))
