import torch
import triton
import triton.language as tl


@triton.jit
def triton_cross_scan(x, y, BC: tl.constexpr, BH: tl.constexpr, DC: tl.constexpr):
    i_hw, i_c, i_b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    tl.store(y + i_c * BC, tl.load(x + i_hw))


class CrossScanTriton(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor):
        B, C, H, W = x.shape
        y = x.new_empty((B, 4, C, H * W))
        triton_cross_scan[(triton.cdiv(H, 32), C, B)](x.contiguous(), y, min(triton.next_power_of_2(C), 1), 32, C)
        return y
