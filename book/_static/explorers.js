/* Draws the explorers that stabkit.explorers writes. Plain script: pages work from file://. */
(() => {
"use strict";

// Numbers, as stabkit.stats has them; tests compare the two.

const RESAMPLES = 9999, DRAWS = 1000, Z = 1.959963984540054;
const BOOTSTRAP = 1, REPEATS = 1001, SAMPLES = 2001; // seeds of the generators

/** Mulberry32: numbers from 0 to below 1, the same in every browser. */
function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const draw = (random, number, from) =>
  Array.from({ length: number }, () => from[Math.floor(random() * from.length)]);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function std(values) {
  const centre = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - centre) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}

function quantile(sorted, share) {
  const place = share * (sorted.length - 1), below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

function middle(values) {
  const sorted = Float64Array.from(values).sort();
  return [quantile(sorted, 0.025), quantile(sorted, 0.975)];
}

/** 95 % percentile interval of the standard deviation. */
function bootstrap(values) {
  const random = generator(BOOTSTRAP), number = values.length, centre = mean(values);
  const deviations = Float64Array.from(values, (value) => value - centre);
  return middle(Float64Array.from({ length: RESAMPLES }, () => {
    let sum = 0, squares = 0;
    for (let i = 0; i < number; i++) {
      const deviation = deviations[Math.floor(random() * number)];
      sum += deviation;
      squares += deviation * deviation;
    }
    return Math.sqrt(Math.max(0, squares - (sum * sum) / number) / (number - 1));
  }));
}

/** Wilson's 95 % interval of a share. */
function wilson(count, total) {
  const share = count / total, scale = 1 + (Z * Z) / total;
  const centre = share + (Z * Z) / (2 * total);
  const half = Z * Math.sqrt((share * (1 - share)) / total + (Z / (2 * total)) ** 2);
  const low = (centre - half) / scale, high = (centre + half) / scale;
  return [count ? Math.min(low, share) : 0, count < total ? high : 1];
}

// Words.

const short = (rate) => rate.toExponential(1);
const digits = (value, number = 1) => value.toFixed(number);
const between = ([low, high], scale = 1) => `${digits(scale * low)} to ${digits(scale * high)}`;
const share = (count, total) =>
  `${digits((100 * count) / total)} (${between(wilson(count, total), 100)})`;
const thousand = DRAWS.toLocaleString("en");

// Seeds.

const WEIGHTS = { model: 32, task: 16, bias_correction: 8, epochs: 4, learning_rate: 2, recipe: 1 };

/** How far a cell is from a choice: which axes differ, numbers by their ratio. */
function distance(cell, choice, axes) {
  return axes.reduce((sum, axis) => {
    if (cell[axis] === choice[axis]) return sum;
    const ratio = typeof cell[axis] === "number" ? Math.log(cell[axis] / choice[axis]) : 0;
    return sum + WEIGHTS[axis] + 0.1 * Math.abs(ratio);
  }, 0);
}

function nearest(cells, choice, axes) {
  const far = cells.map((cell) => distance(cell, choice, axes));
  return cells[far.indexOf(Math.min(...far))];
}

/** The choice, or the nearest that has runs and the same value for the control that was moved. */
function settle(data, choice, moved) {
  const fitting = (cell) => !data.axes.includes(moved) || cell[moved] === choice[moved];
  const cell = nearest(data.cells.filter(fitting), choice, data.axes);
  return { ...choice, ...Object.fromEntries(data.axes.map((axis) => [axis, cell[axis]])) };
}

const STATISTICS = {
  std: { of: (runs) => std(runs.map(([, score]) => score)), name: "std", unit: "points" },
  failed: { of: (runs) => 100 * mean(runs.map(([, , failed]) => +failed)), name: "share that fails", unit: "%" },
  mean: { of: (runs) => mean(runs.map(([, score]) => score)), name: "mean", unit: "%" },
};

const intervals = new WeakMap();

function interval(runs) {
  if (!intervals.has(runs)) intervals.set(runs, bootstrap(runs.map(([, score]) => score)));
  return intervals.get(runs);
}

const failures = (runs) => runs.filter(([, , failed]) => failed).length;

/** A row of numbers: how many fail, their share, std and mean in percent, 95 % intervals in brackets. */
function numbers(head, runs) {
  const count = failures(runs), { std, mean } = STATISTICS;
  return [
    head, `${count} of ${runs.length}`, share(count, runs.length),
    `${digits(std.of(runs))} (${between(interval(runs))})`, digits(mean.of(runs)),
  ];
}

function group(data, cell, choice, place) {
  const tint = data.palette[cell.recipe] ?? data.others[3];
  const { of } = STATISTICS[choice.statistic];
  const repeat = (number) => {
    const random = generator(REPEATS + place);
    return Array.from({ length: DRAWS }, () => of(draw(random, number, cell.runs)));
  };
  return {
    cell, tint, faint: data.faint[cell.recipe] ?? "rgba(204, 121, 167, 0.18)",
    name: `${cell.name} at ${short(cell.learning_rate)}`,
    drawn: draw(generator(SAMPLES * choice.sample + place), choice.number, cell.runs),
    repeats: repeat(choice.number), widest: repeat(3), of,
  };
}

function boxAndPoints(data, group, runs, position) {
  const scores = runs.map(([, score]) => score);
  return [
    {
      type: "box", x: runs.map(() => position - 0.25), y: scores, width: 0.3, boxpoints: false,
      line: { color: group.tint, width: 1.5 }, fillcolor: group.faint, hoverinfo: "skip",
    },
    {
      x: runs.map((run, i) => position + 0.36 * ((data.golden * i) % 1)), y: scores, mode: "markers",
      marker: {
        color: group.tint, size: 8, symbol: runs.map(([, , failed]) => (failed ? "x" : "circle-open")),
      },
      customdata: runs.map(([seed, , , words]) => [seed, words]),
      hovertemplate: "%{y:.1f} · seed %{customdata[0]}<br>%{customdata[1]}<extra></extra>",
    },
  ];
}

function strips(data, groups, choice) {
  const near = data.cells.filter(({ model, task }) => model === groups[0].cell.model && task === groups[0].cell.task);
  const scores = near.flatMap((cell) => [cell.majority, ...cell.runs.map(([, score]) => score)]);
  const low = Math.min(...scores), high = Math.max(...scores), edge = 0.05 * (high - low || 1);
  const columns = groups.flatMap((one) => [[one, one.cell.runs, "all"], [one, one.drawn, "drawn"]]);
  const { majority, metric } = groups[0].cell;
  return {
    title: `All runs, and ${choice.number} drawn from them`,
    traces: columns.flatMap(([one, runs], i) => boxAndPoints(data, one, runs, i)),
    layout: {
      showlegend: false, margin: { t: 12, r: 4, b: 66, l: 46 },
      xaxis: {
        tickvals: columns.map((_, i) => i), showgrid: false, range: [-0.5, columns.length - 0.5],
        ticktext: columns.map(([one, runs, word]) =>
          `${one.cell.name.replace(", ", ",<br>")}<br>${short(one.cell.learning_rate)}<br>` +
          (word === "all" ? `all ${runs.length}` : `${runs.length} drawn`)),
      },
      yaxis: { title: { text: metric, standoff: 4 }, range: [low - edge, high + edge] },
      shapes: [{
        type: "line", xref: "paper", x0: 0, x1: 1, y0: majority, y1: majority,
        line: { color: data.palette.baseline, dash: "dash", width: 1.5 },
      }],
      annotations: [{
        xref: "paper", x: 1, y: majority, xanchor: "right", yanchor: "top",
        text: "majority class", showarrow: false, font: { size: 12 },
      }],
    },
  };
}

/** 1,000 values in bins; a share of n runs has n + 1 values, so a bin for each. */
function bins(groups, choice) {
  const whole = choice.statistic === "failed";
  const all = whole ? [0, 100] : groups.flatMap((one) => [...one.widest, ...one.repeats]);
  const low = all.reduce((a, b) => Math.min(a, b)), high = all.reduce((a, b) => Math.max(a, b));
  const number = whole ? choice.number + 1 : 30;
  const width = (whole ? 100 / choice.number : (high - low) / number) || 1;
  const from = whole ? -width / 2 : low;
  const centres = Array.from({ length: number }, (_, i) => from + (i + 0.5) * width);
  const counts = groups.map((one) => {
    const found = centres.map(() => 0);
    for (const value of one.repeats) {
      found[Math.min(number - 1, Math.floor((value - from) / width + 1e-9))]++;
    }
    return found;
  });
  return { centres, counts, width, range: [from - width, from + (number + 1) * width] };
}

function spread(data, groups, choice) {
  const { centres, counts, width, range } = bins(groups, choice);
  const { name, unit } = STATISTICS[choice.statistic];
  const shapes = [], annotations = [];
  groups.forEach((one, row) => {
    const values = [one.of(one.cell.runs), one.of(one.drawn)];
    values.forEach((value, i) => {
      shapes.push({
        type: "line", x0: value, x1: value, yref: "paper", y0: 0, y1: 0.99 - 0.06 * row,
        line: { color: one.tint, width: 1.5, dash: i ? "dot" : "solid" },
      });
      annotations.push({
        x: value, yref: "paper", y: 1 - 0.06 * row, yanchor: "top", showarrow: false,
        font: { size: 12 }, text: i ? "drawn" : `all ${one.cell.name}`,
        xanchor: value > values[1 - i] || (value === values[1 - i] && i) ? "left" : "right",
      });
    });
  });
  return {
    title: `The same draw ${thousand} times: ${name} of ${choice.number} runs`,
    traces: groups.map((one, i) => ({
      type: "bar", x: centres, y: counts[i], width, marker: { color: one.tint, opacity: 0.55, line: { width: 0 } },
      hovertemplate: `${one.name}: %{y} draws at %{x:.1f}<extra></extra>`,
    })),
    layout: {
      showlegend: false, barmode: "overlay", bargap: 0, margin: { t: 12, r: 4, b: 66, l: 46 },
      xaxis: { title: { text: `${name} of ${choice.number} runs (${unit})`, standoff: 8 }, range, showgrid: false },
      yaxis: { title: { text: `of ${thousand} draws`, standoff: 4 }, range: [0, 1.2 * Math.max(...counts.flat())] },
      shapes, annotations,
    },
  };
}

/** How often a draw from the one has more of something than a draw from the other. */
function apart([one, two], name, number) {
  const differences = one.repeats.map((value, i) => value - two.repeats[i]);
  const above = differences.filter((difference) => difference > 0).length;
  const level = differences.filter((difference) => difference === 0).length;
  return `In ${above} of ${thousand} pairs of draws of ${number} runs the ${name} is larger for ${one.name} than ` +
    `for ${two.name}, in ${level} it is equal.`;
}

function seeds(data, choice) {
  const cell = data.cells.find((one) => data.axes.every((axis) => one[axis] === choice[axis]));
  const like = data.cells.filter(({ recipe, model, task }) =>
    recipe === choice.compare && model === cell.model && task === cell.task);
  const other = like.length ? nearest(like, choice, data.axes) : cell;
  const groups = (other === cell ? [cell] : [cell, other]).map((one, i) => group(data, one, choice, i));
  const { name, unit } = STATISTICS[choice.statistic];
  const said = groups.map((one) =>
    `${one.name}: ${failures(one.drawn)} of ${choice.number} drawn runs fail; ${name} ${digits(one.of(one.drawn))} ${unit}, ` +
    `of all ${one.cell.runs.length} runs ${digits(one.of(one.cell.runs))}; 95 of 100 draws give ${between(middle(one.repeats))}.`);
  if (other !== cell) said.push(apart(groups, name, choice.number));
  else if (choice.compare && choice.compare !== cell.recipe) said.push(`There are no runs of ${choice.compare} on this task.`);
  return {
    figures: [strips(data, groups, choice), spread(data, groups, choice)], said,
    outputs: { number: choice.number },
    numbers: [
      ["runs", "failed", "failed, %", "std", "mean"],
      ...groups.flatMap((one) => [
        numbers(`${one.name}, all`, one.cell.runs), numbers(`${one.name}, drawn`, one.drawn),
      ]),
    ],
    rows: [
      [...data.axes, "seed", "score_percent", "failed", "times_drawn"],
      ...groups.flatMap((one) => one.cell.runs.map((run) => [
        ...data.axes.map((axis) => one.cell[axis]), ...run.slice(0, 3),
        one.drawn.filter((drawn) => drawn === run).length,
      ])),
    ],
  };
}

// Learning rate and bias correction.

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
        line: { color: data.palette.Ours, width: 3 },
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
      margin: { t: 30, r: 4, b: 46, l: 62 },
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
      ["learning_rate", "bias_correction", "runs", "learn_nothing", "mean_score_percent"],
      ...data.cells.map((c) => [c.learning_rate, c.bias_correction, c.runs, c.failures, c.mean]),
    ],
  };
}

/** A click on a cell of the grid chooses it. */
function chosenCell(data, { x, y, data: { type } }) {
  if (type !== "heatmap") return null;
  const rates = [...new Set(data.cells.map((cell) => cell.learning_rate))].sort((a, b) => a - b);
  return { learning_rate: rates[y], bias_correction: x === 1 };
}

// Inside a run.

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
      { ...words, yref: `y${key} domain`, x: 0, y: 1, xanchor: "left", yanchor: "bottom", text: `<b>${kind}</b>${wide ? `: ${run.name}` : ""}` },
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
      showlegend: false, margin: { t: 26, r: 4, b: 46, l: 62 }, uirevision: "kept", ...layout,
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
  const exact = (value) => (value === 0 ? "0" : value.toExponential(1));
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

// What all explorers share.

const EXPLORERS = {
  seeds: { show: seeds }, rates: { show: rates, click: chosenCell }, inside: { show: inside, click: chosenStep },
};

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

function start(root) {
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const form = root.querySelector("form"), panels = [...root.querySelectorAll(".stabkit-panel")];
  const csv = root.querySelector(".stabkit-csv"), { show, click } = EXPLORERS[root.dataset.kind];
  let choice = data.start, view;

  function draw() {
    view = show(data, choice, root.clientWidth);
    write(form, data, choice, view.outputs);
    if (view.numbers) root.querySelector(".stabkit-numbers").replaceChildren(tabulate(view.numbers));
    view.figures.forEach(({ title, traces, layout, height }, i) => {
      panels[i].previousElementSibling.textContent = title;
      if (height) panels[i].style.height = `${height}px`;
      Plotly.react(panels[i], traces, { template: data.template, ...layout }, { ...data.config, displayModeBar: false });
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
  csv.addEventListener("click", () => stabkit.save(view.rows, `${root.dataset.kind}.csv`));
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
