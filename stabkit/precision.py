"""The precision of the products in a model; weights, optimizer and losses are always fp32.

A configuration names one, and with it the run: where it is to be what the device does best, that
is found out before the configuration is made.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch

from stabkit.config import RunConfig
from stabkit.errors import ConfigError, nearest

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
AUTO = "auto"  # stands for ``best_precision`` where people choose, never in a configuration
PRECISIONS = ("fp32", "tf32", "bf16", "fp16", AUTO)


def set_precision(config: RunConfig) -> None:
    """Let fp32 products of a GPU be tf32 where the run says so, and nowhere else."""
    torch.backends.cuda.matmul.allow_tf32 = config.precision == "tf32"
    leave_out_cudnn_attention()


def leave_out_cudnn_attention() -> None:
    """Let attention be another kernel's than cuDNN's, which torch prefers on newer GPUs.

    Its backward pass adds in no fixed order, and gives NaN for some masked batches on an H100
    (pytorch/pytorch#196678, torch 2.11 to 2.13), which would count as diverged runs.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def has_bf16(device: torch.device) -> bool:
    """Say whether bf16 products are native to a device; where they are not, they are slow."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def best_precision(device: torch.device) -> Precision:
    """Return bf16 where it is native, else fp16 on a GPU that has units for it, else fp32.

    Runs in fp16 scale their losses.
    """
    if has_bf16(device):
        return "bf16"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):  # Volta
        return "fp16"
    return "fp32"


def resolved(name: str, device: torch.device) -> str:
    """Return the precision that people mean by ``name``, which may be ``AUTO``, on a device.

    Raises ConfigError for any other word.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"unknown precision {name!r}: {nearest(str(name), PRECISIONS)}")
    return best_precision(device) if name == AUTO else name
