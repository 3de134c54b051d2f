"""What all tests share: no network, one thread, no hurry."""

from __future__ import annotations

import os

# Read when the libraries are imported, so set before any test module is.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)

from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # a busy machine is no failure
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the weights that tests make away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STABKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
