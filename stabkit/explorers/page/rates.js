/* Learning rate and bias correction. */
(() => {
"use strict";

const { between, digits, short, wilson } = stabkit;

/** Share of the peak rate at update t (stabkit.schedule.linear_schedule). */
function schedule(t, steps, data) {
  const rise = Math.floor(steps * data.warmup), done = data.zero_first_update ? t - 1 : t;
  return done < rise ? done / Math.max(1, rise) : (steps - done) / Math.max(1, steps - rise);
}

const hidden = (t, beta1, beta2) => (1 - beta1 ** t) / Math.sqrt(1 - beta2 ** t);

function grid(data, choice) {
  const rates = [...new Set(data.cells.map((cell) => cell.learning_rate))].sort((a, b) => a - b);
  const at = (rate, on) => data.cells.find((c) => c.learning_rate === rate && c.bias_correction === on);
  const each = (say) => rates.map((rate) => [false, true].map((on) => {
    const cell = at(rate, on);
    return cell ? say(cell) : null;
  }));
  const x = +choice.bias_correction, y = rates.indexOf(choice.learning_rate);
  return {
    title: "Runs that learn nothing; mean score",
    traces: [{
      type: "heatmap", x: [0, 1], y: rates.map((_, i) => i), zmin: 0, zmax: 100,
      z: each((cell) => (100 * cell.failures) / cell.runs), showscale: false, xgap: 3, ygap: 3,
      text: each((cell) => `${cell.failures} of ${cell.runs}<br>mean ${digits(cell.mean)}`),
      texttemplate: "%{text}", textfont: { size: 13 }, colorscale: data.strength.map((tint, i) => [i, tint]),
      customdata: each((cell) => between(wilson(cell.failures, cell.runs), 100)),
      hovertemplate: "%{z:.0f} % learn nothing<br>95 % interval %{customdata} %<extra></extra>",
    }],
    layout: {
      margin: { t: 30, r: 4, b: 46, l: 62 },
      xaxis: { side: "top", tickvals: [0, 1], ticktext: ["without correction", "with correction"], showgrid: false },
      yaxis: { title: { text: "peak learning rate", standoff: 4 }, tickvals: rates.map((_, i) => i), ticktext: rates.map(short), showgrid: false },
      shapes: [{
        type: "rect", x0: x - 0.49, x1: x + 0.49, y0: y - 0.47, y1: y + 0.47,
        line: { color: "#767676", width: 3 }, // explorers.css gives it the colour of the text
      }],
    },
  };
}

function effective(data, choice) {
  const steps = data.steps[choice.epochs];
  const t = Array.from({ length: steps }, (_, i) => i + 1);
  const set = t.map((step) => choice.learning_rate * schedule(step, steps, data));
  const real = choice.bias_correction ? set
    : set.map((rate, i) => rate * hidden(t[i], data.beta1, choice.beta2));
  return { t, set, real };
}

/** Some round numbers from 0 to ``top``. */
function round(top) {
  const power = 10 ** Math.floor(Math.log10(top));
  const step = [0.2, 0.5, 1, 2].map((share) => share * power).find((one) => top / one <= 6);
  return Array.from({ length: Math.floor(top / step) + 1 }, (_, i) => i * step);
}

function curve(data, choice, { t, set, real }) {
  const tint = data.palette[choice.bias_correction ? "Ours" : "Devlin"];
  const ticks = round(Math.max(...real));
  const line = (y, name, style) => ({
    x: t, y, name, mode: "lines", line: { ...style, simplify: false }, hovertemplate: "step %{x}: %{y:.2e}<extra></extra>",
  });
  return {
    title: "Learning rate over the run",
    traces: [
      line(real, "in effect", { color: tint, width: 2.5 }),
      line(set, "as set", { color: data.palette.baseline, dash: "dash", width: 2 }),
    ],
    layout: {
      margin: { t: 30, r: 16, b: 46, l: 62 },
      xaxis: { title: { text: "step", standoff: 8 } },
      yaxis: { range: [0, 1.08 * Math.max(...real)], tickvals: ticks, ticktext: ticks.map((rate) => (rate ? short(rate) : "0")) },
    },
  };
}

function rates(data, choice) {
  const cell = data.cells.find((one) => data.axes.every((axis) => one[axis] === choice[axis]));
  const found = effective(data, choice), { t, set, real } = found;
  const top = real.indexOf(Math.max(...real));
  const total = (values) => values.reduce((sum, value) => sum + value, 0);
  const said = [
    `At ${short(cell.learning_rate)} ${cell.bias_correction ? "with" : "without"} correction, ` +
      `${cell.failures} of ${cell.runs} runs learn nothing: ${digits((100 * cell.failures) / cell.runs)} %, ` +
      `95 % interval ${between(wilson(cell.failures, cell.runs), 100)}; mean score ${digits(cell.mean)} %.`,
    `The rate in effect reaches ${real[top].toExponential(2)} at step ${t[top]} of ${t.length}, ` +
      `${digits(real[top] / choice.learning_rate, 2)} times the peak that is set; over the run it adds up to ` +
      `${digits(total(real) / total(set), 2)} times the schedule.`,
  ];
  if (choice.epochs !== data.made.epochs || choice.beta2 !== data.made.beta2) {
    said.push(`There are no runs at ${choice.epochs} epochs with β₂ = ${choice.beta2}; the grid has the nearest, ` +
      `${data.made.epochs} epochs with β₂ = ${data.made.beta2}.`);
  }
  return {
    figures: [grid(data, choice), curve(data, choice, found)], said, outputs: {},
    rows: [
      [
        "of", ...data.axes, "beta2", "epochs", "runs", "learn_nothing", "mean_score_percent",
        "step", "rate_as_set", "rate_in_effect",
      ],
      ...data.cells.map((c) => [
        "grid", ...data.axes.map((axis) => c[axis]), data.made.beta2, data.made.epochs, c.runs, c.failures, c.mean, "", "", "",
      ]),
      ...t.map((step, i) => [
        "curve", ...data.axes.map((axis) => cell[axis]), choice.beta2, choice.epochs, "", "", "", step, set[i], real[i],
      ]),
    ],
  };
}

/** A click on a cell of the grid chooses it. */
function chosenCell(data, { x, y, data: { type } }) {
  if (type !== "heatmap") return null;
  const rates = [...new Set(data.cells.map((cell) => cell.learning_rate))].sort((a, b) => a - b);
  return { learning_rate: rates[y], bias_correction: x === 1 };
}

stabkit.explorers.rates = { show: rates, click: chosenCell };
})();
