/* What explorers count, write and settle; each script of this folder adds one to stabkit.explorers.
   Plain scripts, read in the order of mechanism.py: pages work from file://. */
"use strict";

Object.assign(stabkit, (() => { // beside what data.js has
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

// Words. What is not finite comes as null.

const short = (rate) => rate.toExponential(2).replace(/\.?0+e/, "e");
const digits = (value, number = 1) => (value === null ? "none" : value.toFixed(number));

/** Three significant digits; an exponent from a million on and below a millionth. */
function significant(value) {
  if (value === null) return "none";
  const text = value.toPrecision(3), rounded = Number(text);
  if (!text.includes("e")) return String(rounded);
  const size = Math.abs(rounded);
  return size >= 1 && size < 1e6 ? rounded.toLocaleString("en") : text;
}

const between = ([low, high], scale = 1) => `${digits(scale * low)} to ${digits(scale * high)}`;
const share = (count, total) =>
  `${digits((100 * count) / total)} (${between(wilson(count, total), 100)})`;

// Choices.

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

return {
  explorers: {}, DRAWS, REPEATS, SAMPLES, bootstrap, between, digits, draw, generator, mean, middle,
  nearest, settle, share, short, significant, std, wilson,
};
})());
