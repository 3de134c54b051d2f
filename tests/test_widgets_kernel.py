"""A panel whose kernel is killed in the middle of a sweep: the next one goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_widgets_lab import environment

from stabkit.store import Store

RUNS = 12
PATIENCE = 300  # seconds for each thing that is waited for: imports alone may take a minute
PANEL = f"""
from stabkit import widgets

panel = widgets.study_panel(
    store="mine", learning_rates=[2e-4], seeds={RUNS // 2}, max_steps=2, train_size=32
)
panel.measure.click()
assert panel.wait({PATIENCE}) and not panel.run.disabled, panel.notice.value
print(len(panel.runs()))
"""
RUN = "panel.run.click()"
FINISHED = f"assert panel.wait({PATIENCE}); print(panel.status.value)"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
]


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Any]:
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path), env=environment(tmp_path))
    yield manager
    manager.shutdown_kernel(now=True)


def told(kernel: Any, code: str) -> str:
    """Run code in the kernel and return what it prints; an error of it is one here."""
    client = kernel.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE)
        printed: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            content = message["content"]
            assert message["msg_type"] != "error", "\n".join(content["traceback"])
            printed.append(content.get("text", "") if content.get("name") == "stdout" else "")

        client.execute_interactive(code, timeout=PATIENCE, output_hook=hear)
    finally:
        client.stop_channels()
    return "".join(printed).strip()


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_a_kernel_restarted_in_the_middle_of_a_sweep_loses_no_finished_run(
    kernel: Any, tmp_path: Path
) -> None:
    store = Store(tmp_path / "mine")
    assert told(kernel, PANEL) == "0"
    told(kernel, RUN)
    wait(lambda: bool(len(store)))
    kernel.restart_kernel(now=True)
    kept = store.table()
    assert 0 < len(kept) < RUNS
    assert len(kept) <= int(told(kernel, PANEL)) < RUNS
    assert f"all {RUNS} runs are stored" in told(kernel, RUN + "\n" + FINISHED)
    whole = store.table()
    assert whole["key"].is_unique and len(whole) == RUNS
    again = whole.set_index("key").loc[kept["key"]]
    assert list(again["date"]) == list(kept["date"])  # they are the same, not made again
