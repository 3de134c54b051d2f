"""Products of the fast executor: the same numbers, whichever library makes them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from stabkit import products
from stabkit.products import linear

ONEDNN = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch is without oneDNN"
)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture(params=[False, pytest.param(True, marks=ONEDNN)], ids=["torch", "onednn"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(products, "by_onednn", lambda: request.param)
    yield


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", [(16, 8, 24), (368, 64, 256), (1, 1, 1), (37, 5, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_float64(shape: tuple[int, int, int], bias: bool) -> None:
    rows, inputs, outputs = shape
    x, weight, b = draw(rows, inputs), draw(outputs, inputs), draw(outputs) if bias else None
    expected = x.double() @ weight.double().t() + (0 if b is None else b.double())
    torch.testing.assert_close(linear(x, weight, b).double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("library")
def test_transposed_tensors_are_taken_as_they_are() -> None:
    """The gradients of a linear part are products of its transposed tensors."""
    x, grad, weight = draw(48, 6), draw(48, 10), draw(10, 6)
    torch.testing.assert_close(linear(grad, weight.t()), grad @ weight)
    torch.testing.assert_close(linear(grad.t(), x.t()), grad.t() @ x)


@pytest.mark.usefixtures("library")
def test_numbers_are_not_shortened_to_bf16_or_tf32() -> None:
    """A product with the identity is exact only where its factors are taken as they are."""
    x = draw(368, 64)
    assert not torch.equal(x.bfloat16().float(), x)
    assert torch.equal(linear(x, torch.eye(64)), x)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_torch_s(dtype: torch.dtype) -> None:
    x, weight = draw(16, 8).to(dtype), draw(4, 8).to(dtype)
    assert torch.equal(linear(x, weight), torch.nn.functional.linear(x, weight))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AMD EPYC (AVX512)", True),
        ("AMD EPYC (AVX2)", False),
        ("Intel(R) Xeon(R) Processor (AVX512)", False),
        ("Apple M3 (DEFAULT)", False),
    ],
)
@ONEDNN
def test_onednn_multiplies_where_mkl_is_slow(
    name: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "hardware", lambda device: name)
    products.by_onednn.cache_clear()
    try:
        assert products.by_onednn() == expected
    finally:
        products.by_onednn.cache_clear()


def test_only_products_of_the_cpu_are_onednn_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "by_onednn", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None, raising=False)
    x = torch.empty(4, 3, device="meta")
    assert linear(x, torch.empty(2, 3, device="meta")).device.type == "meta"
