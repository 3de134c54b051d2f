"""The controls of a panel, each with a place beside it for what is wrong with its content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ipywidgets
import numpy as np
import traitlets

from stabkit import train
from stabkit.errors import StabkitError
from stabkit.models import mini_models
from stabkit.precision import PRECISIONS, resolved
from stabkit.scales import MODELS
from stabkit.tasks import NAMES
from stabkit.widgets.plan import CORRECTIONS, RECIPES, count, named, numbers
from stabkit.widgets.views import hint, wrong

LABEL = {"description_width": "9rem"}
WIDE = {"width": "27rem", "max_width": "100%"}


class Field(ipywidgets.Box):  # type: ignore[misc]
    """A control with a message beside it, or below it where there is no room."""

    def __init__(self, control: Any, read: Callable[[Any], Any]) -> None:
        self.control, self._read = control, read
        self.message = ipywidgets.HTML(layout={"flex": "1 1 16rem", "width": "auto"})
        layout = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "0 0.75rem"}
        super().__init__([control, self.message], layout=layout)

    def read(self) -> Any:
        """Return what the control says; None, and a sentence beside it, where that is wrong."""
        try:
            found = self._read(self.control.value)
        except StabkitError as problem:
            return self.refuse(problem)
        self.message.value = ""
        return found

    def refuse(self, problem: object) -> None:
        """Say beside the control what is wrong."""
        self.message.value = wrong(problem)

    def advise(self, sentence: str) -> None:
        """Say beside the control what is good to know."""
        self.message.value = hint(sentence)


class Choices(ipywidgets.HBox):  # type: ignore[misc]
    """Boxes to tick; ``value`` has the names of those that are."""

    value = traitlets.Tuple()

    def __init__(self, label: str, names: Iterable[str], value: Sequence[str]) -> None:
        self._boxes = {name: _box(name, name in value) for name in names}
        place = {"width": "9rem", "justify_content": "flex-end", "margin": "2px 6px 2px 2px"}
        text = ipywidgets.Label(label, layout=place)
        super().__init__([text, *self._boxes.values()], layout=WIDE)
        self.value = tuple(value)
        for box in self._boxes.values():
            box.observe(self._ticked, names="value")
        self.observe(self._set, names="value")

    def _ticked(self, _: Any) -> None:
        self.value = tuple(name for name, box in self._boxes.items() if box.value)

    def _set(self, _: Any) -> None:
        ticked = self.value  # which a box that changes would set anew
        for name, box in self._boxes.items():
            box.value = name in ticked


class Form(ipywidgets.VBox):  # type: ignore[misc]
    """All controls of a study: what is trained on what, how, and how often."""

    def __init__(
        self,
        model: str,
        task: str,
        rates: Iterable[float],
        seeds: int,
        processes: int,
        precision: str,
        max_steps: int | None = None,
        at_once: int = 1,
    ) -> None:
        """With ``max_steps`` the length of a run is given in steps, else in epochs."""
        length, unit = ("max_steps", "steps") if max_steps else ("epochs", "epochs")
        worded = ", ".join(
            np.format_float_scientific(rate, trim="-", exp_digits=1) for rate in rates
        )
        self.fields = {
            "model": Field(_combobox("Model", model, (*mini_models(), *MODELS.values())), named),
            "task": Field(_combobox("Task", task, NAMES), named),
            "methods": Field(Choices("Method", RECIPES, ["Devlin"]), _some),
            "corrections": Field(_dropdown("Bias correction", CORRECTIONS), CORRECTIONS.get),
            "rates": Field(_text("Learning rates", worded), lambda t: numbers(t, "learning rate")),
            "length": Field(
                _text(unit.capitalize(), max_steps or "", "leave empty for the method's own"),
                lambda text: {length: count(text, unit)} if text.strip() else {},
            ),
            "precision": Field(_dropdown("Precision", PRECISIONS, precision), _native),
            "seeds": Field(_text("Seeds", seeds), lambda text: count(text, "seeds")),
            "processes": Field(
                _text("Runs at a time", processes), lambda text: count(text, "runs at a time")
            ),
            "at_once": Field(
                _text("Seeds at once", at_once), lambda text: count(text, "seeds at once")
            ),
        }
        groups = {
            "What to train": ("model", "task"),
            "How": ("methods", "corrections", "rates", "length", "precision"),
            "How often": ("seeds", "processes", "at_once"),
        }
        rows = [
            [heading(title), *(self.fields[name] for name in names)]
            for title, names in groups.items()
        ]
        super().__init__([row for group in rows for row in group])

    def read(self) -> dict[str, Any] | None:
        """Return what all controls say; None where one is wrong, which each says by itself."""
        found = {name: field.read() for name, field in self.fields.items()}
        return None if any(value is None for value in found.values()) else found

    def on_change(self, call: Callable[[Any], None]) -> None:
        """Have ``call`` called whenever a control has another value."""
        for field in self.fields.values():
            field.control.observe(call, names="value")


def heading(title: str) -> Any:
    """Return the title of a part of the panel, under a line."""
    return ipywidgets.HTML(f'<h4 class="stabkit-rule">{title}</h4>')


def _some(methods: Sequence[str]) -> Sequence[str]:
    if not methods:
        raise StabkitError("no method; choose one or more")
    return methods


def _native(precision: str) -> str:
    return resolved(precision, train.choose_device())


def _box(name: str, ticked: bool) -> Any:
    return ipywidgets.Checkbox(ticked, description=name, indent=False, layout={"width": "5.5rem"})


def _text(label: str, value: object, placeholder: str = "") -> Any:
    return ipywidgets.Text(
        f"{value}",
        description=label,
        placeholder=placeholder,
        continuous_update=False,  # else half a number is wrong
        style=LABEL,
        layout=WIDE,
    )


def _combobox(label: str, value: str, options: Iterable[str]) -> Any:
    return ipywidgets.Combobox(
        value=value,
        options=list(options),
        description=label,
        placeholder="a name, a folder or a file",
        continuous_update=False,
        style=LABEL,
        layout=WIDE,
    )


def _dropdown(label: str, options: Iterable[str], value: str | None = None) -> Any:
    names = list(options)
    return ipywidgets.Dropdown(
        options=names, value=value or names[0], description=label, style=LABEL, layout=WIDE
    )
