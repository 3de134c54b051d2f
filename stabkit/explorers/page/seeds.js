/* How much a number of seeds tells. */
(() => {
"use strict";

const { DRAWS, REPEATS, SAMPLES, bootstrap, between, digits, draw, generator, mean, middle, nearest, share, short, std } = stabkit;

const thousand = DRAWS.toLocaleString("en");

const FEWEST = 3, MOST = 25; // seeds, as the slider has them
const EQUAL = 1e-9; // rounding apart
const SWITCHED = "switched"; // compared with the same but for bias correction

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

/** A statistic of 1,000 draws of so many runs: what STATISTICS has of draw(), at less cost. */
function repeated(runs, statistic, number, place) {
  const values = Float64Array.from(runs, ([, score, failed]) => (statistic === "failed" ? 100 * failed : score));
  const random = generator(REPEATS + place), size = values.length, centre = mean(values);
  return Float64Array.from({ length: DRAWS }, () => {
    let sum = 0, squares = 0;
    for (let i = 0; i < number; i++) {
      const deviation = values[Math.floor(random() * size)] - centre;
      sum += deviation;
      squares += deviation * deviation;
    }
    if (statistic !== "std") return centre + sum / number;
    return Math.sqrt(Math.max(0, squares - (sum * sum) / number) / (number - 1));
  });
}

function group(data, cell, choice, place) {
  const tint = data.palette[cell.recipe] ?? data.others[place];
  const { of } = STATISTICS[choice.statistic];
  const repeat = (number) => repeated(cell.runs, choice.statistic, number, place);
  return {
    cell, tint, faint: data.faint[cell.recipe] ?? data.faintOthers[place],
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
        tickangle: 0, tickfont: { size: 12 },
        ticktext: columns.map(([one, runs, word]) =>
          `${one.cell.label.replaceAll(", ", ",<br>")}<br>${short(one.cell.learning_rate)}<br>` +
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

/** What is counted in bins, with its unit. */
function counted({ statistic, number }) {
  const { name, unit } = STATISTICS[statistic];
  return `${name} of ${number} runs (${unit})`;
}

function spread(data, groups, choice, { centres, counts, width, range }) {
  const rules = groups.flatMap((one) => [[one, one.cell.runs, "all"], [one, one.drawn, "drawn"]])
    .map(([one, runs, word]) => ({ value: one.of(runs), tint: one.tint, word, text: `${one.cell.label}, ${word}` }));
  const step = 0.06, top = (1.05 * Math.max(...counts.flat())) / (1 - step * rules.length); // a row over the bars for each name
  const shapes = rules.map(({ value, tint, word }, row) => ({
    type: "line", x0: value, x1: value, yref: "paper", y0: 0, y1: 1 - step * row,
    line: { color: tint, width: 1.5, dash: word === "drawn" ? "dot" : "solid" },
  }));
  const annotations = rules.map(({ value, text }, row) => ({
    x: value, yref: "paper", y: 1.01 - step * row, yanchor: "top", showarrow: false, text, font: { size: 12 },
    xanchor: 2 * value > range[0] + range[1] ? "right" : "left", // to where there is room
  }));
  return {
    title: `The same draw ${thousand} times: ${STATISTICS[choice.statistic].name} of ${choice.number} runs`,
    traces: groups.map((one, i) => ({
      type: "bar", x: centres, y: counts[i], width, marker: { color: one.tint, opacity: 0.55, line: { width: 0 } },
      hovertemplate: `${one.name}: %{y} draws at %{x:.1f}<extra></extra>`,
    })),
    layout: {
      showlegend: false, barmode: "overlay", bargap: 0, margin: { t: 12, r: 4, b: 66, l: 46 },
      xaxis: { title: { text: counted(choice), standoff: 8 }, range, showgrid: false },
      yaxis: { title: { text: `of ${thousand} draws`, standoff: 4 }, range: [0, top] },
      shapes, annotations,
    },
  };
}

/** How often a draw from the one has more of something than a draw from the other, and as much. */
function pairs(one, two) {
  let above = 0, level = 0;
  one.forEach((value, i) => {
    if (value - two[i] > EQUAL) above++;
    else if (value - two[i] >= -EQUAL) level++;
  });
  return { above, level, below: one.length - above - level };
}

function apart([one, two], name, number) {
  const { above, level } = pairs(one.repeats, two.repeats);
  return `In ${above} of ${thousand} pairs of draws of ${number} runs the ${name} is larger for ${one.name} than ` +
    `for ${two.name}, in ${level} it is equal.`;
}

const answers = new Map();

/** The fewest seeds from which on 95 of 100 pairs of draws agree on which side has more; else null. */
function enough([one, two], statistic) {
  const what = ({ cell: { runs, ...rest } }) => rest;
  const key = JSON.stringify([what(one), what(two), statistic]);
  if (!answers.has(key)) {
    const more = one.of(one.cell.runs) > two.of(two.cell.runs);
    let number = MOST + 1;
    for (; number > FEWEST; number--) {
      const [a, b] = [one, two].map(({ cell }, place) => repeated(cell.runs, statistic, number - 1, place));
      const { above, below } = pairs(a, b);
      if ((more ? above : below) < 0.95 * DRAWS) break;
    }
    answers.set(key, number > MOST ? null : number);
  }
  return answers.get(key);
}

function answer(groups, statistic, name) {
  const few = groups.find(({ cell }) => cell.runs.length < MOST);
  if (few) {
    return `How many seeds tell for which of the two the ${name} is larger is not said: that takes ${MOST} runs of each, ` +
      `and of ${few.name} there are ${few.cell.runs.length}.`;
  }
  const [one, two] = groups.map(({ of, cell }) => of(cell.runs));
  if (Math.abs(one - two) <= EQUAL) return `The ${name} is the same for both.`;
  const number = enough(groups, statistic);
  return number === null
    ? `${MOST} seeds of each are too few to tell for which of the two the ${name} is larger, in 95 of 100 pairs of draws.`
    : `From ${number} seeds of each on, 95 of 100 pairs of draws tell for which of the two the ${name} of all runs is larger.`;
}

/** What a reader must know of these groups before their numbers. */
function cautions(groups, choice) {
  const told = [], [one, two] = groups;
  for (const { name, cell } of groups) {
    const lost = failures(cell.runs), size = cell.runs.length;
    if (cell.pilot) told.push(`The runs of ${name} are of the pilot's seeds.`);
    if (choice.number > size) told.push(`So many runs are drawn from ${size} of ${name}, some more than once.`);
    if (choice.statistic === "std" && 2 * lost > size) {
      told.push(`Of ${name} ${lost} of ${size} runs fail: that such runs spread little is no stability.`);
    }
  }
  if (two && one.cell.learning_rate !== two.cell.learning_rate) told.push("The two differ in their learning rate, too.");
  return told;
}

/** The cells to compare one with: the same task by another recipe, or the same but for the correction. */
function rivals(data, choice, cell) {
  const alike = (axes) => (other) => axes.every((axis) => other[axis] === cell[axis]);
  const of = data.cells.filter(alike(["model", "task"]));
  if (choice.compare !== SWITCHED) return of.filter(({ recipe }) => recipe === choice.compare);
  return of.filter(alike(["learning_rate", "epochs", "adamw"])).filter((other) => other.bias_correction !== cell.bias_correction);
}

/** Why there is nothing to compare with. */
function alone(data, choice, cell) {
  const { compare } = choice, { model, task } = cell;
  if (compare === SWITCHED) {
    const word = cell.bias_correction ? "off" : "on";
    const others = data.cells.filter((one) =>
      one.model === model && one.task === task && one.bias_correction !== cell.bias_correction);
    if (!others.length) return `No runs with ${model} on ${task} have bias correction ${word}.`;
    const other = nearest(others, cell, data.axes);
    return `No runs have bias correction ${word} and all else as ${cell.name}; ` +
      `the nearest are of ${other.name} at ${short(other.learning_rate)}.`;
  }
  if (compare === cell.recipe) return `The runs of ${compare} are those shown; choose another recipe to compare them with.`;
  const all = data.cells.filter(({ recipe }) => recipe === compare), here = all.filter((one) => one.task === task);
  const other = nearest(here.length ? here : all, cell, ["model", "task"]);
  return `There are no runs of ${compare} with ${model} on ${task}; ${other.model} has some${here.length ? "" : ` on ${other.task}`}.`;
}

function seeds(data, choice) {
  const cell = data.cells.find((one) => data.axes.every((axis) => one[axis] === choice[axis]));
  const like = rivals(data, choice, cell);
  const other = like.length ? nearest(like, choice, data.axes) : cell;
  const groups = (other === cell ? [cell] : [cell, other]).map((one, i) => group(data, one, choice, i));
  const { name, unit } = STATISTICS[choice.statistic], found = bins(groups, choice);
  const at = (one) => data.axes.map((axis) => one.cell[axis]);
  const said = groups.map((one) =>
    `${one.name}: ${failures(one.drawn)} of ${choice.number} drawn runs fail; ${name} ${digits(one.of(one.drawn))} ${unit}, ` +
    `of all ${one.cell.runs.length} runs ${digits(one.of(one.cell.runs))}; 95 of 100 draws give ${between(middle(one.repeats))}.`);
  said.push(...cautions(groups, choice));
  if (other !== cell) said.push(apart(groups, name, choice.number), answer(groups, choice.statistic, name));
  else if (choice.compare) said.push(alone(data, choice, cell));
  return {
    figures: [strips(data, groups, choice), spread(data, groups, choice, found)], said,
    outputs: { number: choice.number },
    numbers: [
      ["runs", "failed", "failed, %", "std", "mean"],
      ...groups.flatMap((one) => [
        numbers(`${one.name}, all`, one.cell.runs), numbers(`${one.name}, drawn`, one.drawn),
      ]),
    ],
    rows: [
      ["of", ...data.axes, "seed", "score_percent", "failed", "times_drawn", "bin_centre", "draws"],
      ...groups.flatMap((one) => one.cell.runs.map((run) => [
        "runs", ...at(one), ...run.slice(0, 3), one.drawn.filter((drawn) => drawn === run).length, "", "",
      ])),
      ...groups.flatMap((one, i) => found.centres.map((centre, bin) =>
        [counted(choice), ...at(one), "", "", "", "", centre, found.counts[i][bin]])),
    ],
  };
}

stabkit.explorers.seeds = { show: seeds };
})();
