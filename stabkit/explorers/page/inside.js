/* Inside a run. */
(() => {
"use strict";

const { digits } = stabkit;

const KINDS = ["failed", "successful"];

const RULE = "#767676"; // on light and dark alike

/** Where the panels of a run lie: loss above norms; the two runs beside or below each other. */
function places(column, wide) {
  const heights = wide ? [[0.7, 1], [0, 0.64]] : [[[0.88, 1], [0.58, 0.85]], [[0.35, 0.47], [0, 0.31]]][column];
  return { across: wide ? [[0, 0.485], [0.515, 1]][column] : [0, 1], heights };
}

/** The axes of one panel, in plotly's terms; those of both runs are linked. */
function axes(column, row, key, { across, heights }, wide) {
  const beside = wide && column > 0, title = row ? "gradient norm" : "loss";
  return {
    [`xaxis${key}`]: {
      domain: across, anchor: `y${key}`, matches: key ? "x" : undefined, showticklabels: row > 0,
      title: row && (wide || column) ? { text: "step", standoff: 8 } : undefined,
    },
    [`yaxis${key}`]: {
      domain: heights[row], anchor: `x${key}`, matches: column ? ["y", "y2"][row] : undefined, showticklabels: !beside,
      title: beside ? undefined : { text: title, standoff: 4 },
      ...(row ? LOGARITHMIC : { nticks: 4 }),
    },
  };
}

const LOGARITHMIC = { type: "log", exponentformat: "power", dtick: 1, tickfont: { size: 12 } };

/** The chosen step and the label entropy as lines, with the run's name above. */
function rules(data, choice, kind, key, row, wide) {
  const now = data.step[choice.at], run = data.runs[choice[kind]];
  const step = { type: "line", xref: `x${key}`, yref: `y${key} domain`, x0: now, x1: now, y0: 0, y1: 1, line: { color: RULE, width: 1.5 } };
  if (row) return { shapes: [step], annotations: [] };
  const words = { showarrow: false, xref: `x${key} domain`, font: { size: 13 } };
  return {
    shapes: [step, {
      type: "line", xref: `x${key} domain`, yref: `y${key}`, x0: 0, x1: 1, y0: data.entropy, y1: data.entropy,
      line: { color: data.palette.baseline, dash: "dash", width: 1.5 },
    }],
    annotations: [
      { ...words, yref: `y${key} domain`, x: 0, y: 1, xanchor: "left", yanchor: "bottom", text: `<b>${kind}</b>${wide ? `<br>${run.name}` : ""}`, align: "left" },
      { ...words, yref: `y${key}`, x: 1, y: data.entropy, xanchor: "right", yanchor: "top", text: "label entropy" },
    ],
  };
}

function histories(data, choice, wide) {
  const traces = [], layout = { shapes: [], annotations: [] };
  KINDS.forEach((kind, column) => {
    const run = data.runs[choice[kind]];
    [[run.loss], run.norms[choice.weight]].forEach((series, row) => {
      const key = 2 * column + row ? 2 * column + row + 1 : "";
      Object.assign(layout, axes(column, row, key, places(column, wide), wide));
      const { shapes, annotations } = rules(data, choice, kind, key, row, wide);
      layout.shapes.push(...shapes);
      layout.annotations.push(...annotations);
      series.forEach((y, layer) => traces.push({
        x: data.step, y, mode: "lines", xaxis: `x${key}`, yaxis: `y${key}`,
        line: { width: row ? 1.3 : 2, color: row ? data.tints[layer] : data.palette[kind] },
        hovertemplate: `${row ? `layer ${layer + 1}, ` : ""}step %{x}: %{y:.3g}<extra></extra>`,
      }));
    });
  });
  return {
    title: `Training loss (mean of ${data.window} batches) and gradient norm of the ${choice.weight} weights, by layer`,
    traces, height: wide ? 520 : 820,
    layout: {
      showlegend: false, margin: { t: wide ? 44 : 26, r: 4, b: 46, l: 62 }, uirevision: "kept", ...layout,
      dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false, // fingers scroll
    },
  };
}

function profile(data, choice) {
  const layers = data.tints.map((_, i) => i + 1);
  return {
    title: `Gradient norm by layer at step ${data.step[choice.at]}`,
    traces: KINDS.map((kind) => ({
      x: layers, y: data.runs[choice[kind]].norms[choice.weight].map((norm) => norm[choice.at]),
      name: `${kind} run`, mode: "lines+markers",
      line: { color: data.palette[kind], dash: kind === "failed" ? "dot" : "solid", width: 2 },
      marker: { color: data.tints, symbol: kind === "failed" ? "x" : "circle", size: 10, line: { color: data.palette[kind], width: 1 } },
      hovertemplate: `${kind}, layer %{x}: %{y:.3g}<extra></extra>`,
    })),
    layout: {
      margin: { t: 30, r: 4, b: 46, l: 62 },
      xaxis: { title: { text: "layer, from the bottom", standoff: 8 }, dtick: data.tints.length > 6 ? 2 : 1, tick0: data.tints.length },
      yaxis: { ...LOGARITHMIC, range: normRange(data, choice) },
    },
  };
}

/** The same range at every step, so that the slider moves points and not the axis. */
function normRange(data, choice) {
  const norms = KINDS.flatMap((kind) => data.runs[choice[kind]].norms[choice.weight]).flat();
  const logs = norms.filter((norm) => norm > 0).map(Math.log10);
  const low = logs.reduce((a, b) => Math.min(a, b), 0), high = logs.reduce((a, b) => Math.max(a, b), low);
  return [low - 0.2, high + 0.2];
}

function inside(data, choice, width) {
  const step = data.step[choice.at], top = data.tints.length;
  const exact = (value) => (value === null ? "none" : value === 0 ? "0" : value.toExponential(1));
  const said = KINDS.map((kind) => {
    const run = data.runs[choice[kind]], norms = run.norms[choice.weight].map((norm) => norm[choice.at]);
    return `Step ${step}, ${kind} run: loss ${digits(run.loss[choice.at], 3)}, gradient norm ${exact(norms[0])} in ` +
      `layer 1 and ${exact(norms[top - 1])} in layer ${top}.`;
  });
  return {
    figures: [histories(data, choice, width > 600), profile(data, choice)], said, outputs: { at: step },
    rows: [
      ["run", "kind", "step", "loss", ...data.tints.map((_, i) => `norm_layer_${i + 1}`)],
      ...KINDS.flatMap((kind) => {
        const run = data.runs[choice[kind]];
        return data.step.map((at, i) => [run.name, kind, at, run.loss[i], ...run.norms[choice.weight].map((norm) => norm[i])]);
      }),
    ],
  };
}

/** A click on a curve goes to its step. */
function chosenStep(data, { x, xaxis }) {
  const at = data.step.indexOf(x);
  return at < 0 || xaxis.title.text.startsWith("layer") ? null : { at };
}

stabkit.explorers.inside = { show: inside, click: chosenStep };
})();
