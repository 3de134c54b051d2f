"""Precision by what a device has, on devices that are made up."""

from __future__ import annotations

import pytest
import torch

from stabkit.config import RunConfig
from stabkit.errors import ConfigError
from stabkit.mini.loop import Machine
from stabkit.precision import AUTO, has_bf16, set_precision
from stabkit.train import best_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        ((6, 1), "fp32"),  # a GTX 1080, whose fp16 is slow
        ((7, 0), "fp16"),  # a V100
        ((7, 5), "fp16"),  # a T4
        ((8, 0), "bf16"),  # an A100
        ((9, 0), "bf16"),  # an H100
        ((12, 0), "bf16"),
    ],
)
def test_a_gpu_s_precision_is_that_of_its_generation(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device] = []

    def capable(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return capability

    monkeypatch.setattr(torch.cuda, "get_device_capability", capable)
    assert best_precision(GPU) == precision
    assert has_bf16(GPU) == (precision == "bf16")
    assert set(asked) == {GPU}


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_processor_has_bf16_or_none(
    native: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert best_precision(CPU) == Machine.choose("cpu").precision == precision
    assert Machine.choose("cpu", "fp32").precision == "fp32"


def test_of_another_kind_of_device_nothing_is_assumed() -> None:
    assert best_precision(torch.device("mps")) == "fp32"


def test_a_configuration_names_its_precision() -> None:
    with pytest.raises(ConfigError, match="precision is 'auto'; expected one of fp32"):
        RunConfig(precision=AUTO)  # type: ignore[arg-type]


def test_products_are_tf32_where_a_run_asks_for_it_alone() -> None:
    for precision in ("tf32", "fp16", "tf32", "bf16", "tf32", "fp32"):
        set_precision(RunConfig(precision=precision))  # type: ignore[arg-type]
        assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32"), precision


def test_attention_is_never_cudnn_s() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    set_precision(RunConfig())
    assert not torch.backends.cuda.cudnn_sdp_enabled()
