/* Starts every explorer of a page: what its controls choose is drawn, said and tabulated. */
(() => {
"use strict";

const { settle } = stabkit;

function read(control, data, choice) {
  if (control.type === "checkbox") return control.checked;
  if (control.type === "button") return choice[control.name] + 1;
  return control.type === "range" ? Number(control.value) : data.choices[control.name][control.value];
}

function write(form, data, choice, outputs) {
  for (const control of form.querySelectorAll("select, input")) {
    const value = choice[control.name];
    if (control.type === "checkbox") control.checked = value;
    else if (control.type === "range") {
      control.value = value;
      control.closest("label").querySelector("output").value = outputs[control.name];
      control.setAttribute("aria-valuetext", outputs[control.name]);
    } else control.value = data.choices[control.name].indexOf(value);
  }
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  return Object.assign(made, attributes);
}

/** A table of text, the first row and column being heads. */
function tabulate([head, ...rows]) {
  const table = document.createElement("table");
  const line = (cells, scope) => cells.map((text, i) => element(scope || !i ? "th" : "td", text, scope || !i ? { scope: scope ?? "row" } : {}));
  table.createTHead().insertRow().append(...line(head, "col"));
  const body = table.createTBody();
  rows.forEach((cells) => body.insertRow().append(...line(cells)));
  return table;
}

/** Which axes had to move along, in words: a choice without runs leads to the nearest that has some. */
function adapted(form, wanted, choice, axes) {
  const moved = axes.filter((axis) => wanted[axis] !== choice[axis]).map((axis) => {
    const control = form.elements[axis], label = control.labels[0].firstChild.textContent.toLowerCase();
    return control.type === "checkbox" ? `${label} ${control.checked ? "on" : "off"}`
      : `${label} ${control.selectedOptions[0].text}`;
  });
  return moved.length ? [`No runs of that choice with all else unchanged; the nearest have ${moved.join(", ")}.`] : [];
}

const inRelief = (traces) => traces.some(({ type }) => type === "surface");

/** Draws plots at once, reliefs after the next frame: without a GPU they take longer than one, and words and lines
    need not wait for them. Of what a panel is asked to draw meanwhile, the last is drawn. */
function painter() {
  const waiting = new Map();
  const paint = () => {
    const works = [...waiting.values()];
    waiting.clear();
    works.forEach((work) => work());
  };
  return (panel, work, soon) => {
    waiting.delete(panel);
    if (!soon) return work();
    if (!waiting.size) requestAnimationFrame(() => setTimeout(paint));
    waiting.set(panel, work);
  };
}

function start(root) {
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const form = root.querySelector("form"), panels = [...root.querySelectorAll(".stabkit-panel")];
  const csv = root.querySelector(".stabkit-csv"), { show, click } = stabkit.explorers[root.dataset.kind];
  const drawn = [], paint = painter();
  let choice = data.start, view;

  function draw() {
    view = show(data, choice, root.clientWidth);
    write(form, data, choice, view.outputs);
    if (view.numbers) root.querySelector(".stabkit-numbers").replaceChildren(tabulate(view.numbers));
    view.figures.forEach(({ title, traces, layout, height }, i) => {
      const figure = JSON.stringify(view.figures[i]);
      if (figure === drawn[i]) return; // what a choice leaves as it is need not be drawn again
      const first = !drawn[i]; // is drawn at once, for what listens to a plot
      drawn[i] = figure;
      panels[i].previousElementSibling.textContent = title;
      if (height) panels[i].style.height = `${height}px`;
      paint(panels[i], () =>
        Plotly.react(panels[i], traces, { template: data.template, ...layout }, { ...data.config, displayModeBar: false }),
      inRelief(traces) && !first);
    });
  }
  function choose(wanted, moved) {
    choice = data.axes ? settle(data, wanted, moved) : wanted;
    draw();
    const said = [...adapted(form, wanted, choice, data.axes ?? []), ...view.said];
    root.querySelector(".stabkit-said").textContent = said.join(" ");
  }

  form.hidden = csv.hidden = false;
  choose(choice);
  const turn = ({ target }) => choose({ ...choice, [target.name]: read(target, data, choice) }, target.name);
  form.addEventListener("input", (event) => event.target.type === "range" && turn(event)); // while it moves
  form.addEventListener("change", (event) => event.target.type !== "range" && turn(event));
  form.addEventListener("click", (event) => event.target.type === "button" && turn(event));
  form.addEventListener("submit", (event) => event.preventDefault());
  csv.addEventListener("click", () => {
    const alike = [...document.querySelectorAll(`.stabkit-explorer[data-kind="${root.dataset.kind}"]`)];
    stabkit.save(view.rows, `${root.dataset.kind}-${alike.indexOf(root) + 1}.csv`);
  });
  if (click) panels.forEach((panel) => panel.on("plotly_click", ({ points: [point] }) => {
    const found = click(data, point);
    if (found) choose({ ...choice, ...found });
  }));
  let width = root.clientWidth;
  window.addEventListener("resize", () => {
    if (root.clientWidth !== width) draw(); // plots fit themselves; what is beside what may change
    width = root.clientWidth;
  });
}

const begin = () => document.querySelectorAll(".stabkit-explorer").forEach(start);

document.readyState === "complete" ? begin() : window.addEventListener("load", begin);
})();
