/* Layers given back. */
(() => {
"use strict";

const { digits, mean, significant } = stabkit;

const RULE = "#767676"; // on light and dark alike
const KINDS = { failed: true, successful: false };
const perplexity = (nll) => (nll === null ? null : Math.exp(nll));
const chosen = (data, choice) => data.runs.filter(({ embeddings }) => embeddings === choice.embeddings);

/** Decimal logarithms between which all perplexities lie, whatever is chosen: axes stay. */
function range(data) {
  const nll = data.runs.flatMap((run) => run.nll).filter((value) => value !== null);
  const [low, high] = [Math.min(...nll), Math.max(...nll)].map((value) => value / Math.LN10);
  const edge = 0.04 * (high - low || 1);
  return [low - edge, high + edge];
}

function curves(data, choice) {
  const seen = new Set();
  const rule = (x, line) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: RULE, ...line } });
  return {
    title: `Perplexity by the number of top layers given back, ${data.words[choice.embeddings]}`,
    traces: chosen(data, choice).map(({ seed, failed, nll }) => {
      const kind = failed ? "failed" : "successful", first = !seen.has(kind);
      seen.add(kind);
      return {
        x: nll.map((_, k) => k), y: nll.map(perplexity), mode: "lines+markers",
        name: kind, legendgroup: kind, showlegend: first,
        line: { color: data.palette[kind], dash: failed ? "dot" : "solid", width: 1.5 },
        marker: {
          symbol: failed ? "x" : "circle-open", size: nll.map((_, k) => (k === choice.k ? 12 : 6)),
          line: { width: failed ? 0 : 1.5 },
        },
        hovertemplate: `seed ${seed}, k = %{x}: %{y:.3g}<extra></extra>`,
      };
    }),
    layout: {
      margin: { t: 40, r: 4, b: 46, l: 62 },
      xaxis: { title: { text: "top layers given back, k", standoff: 8 }, range: [-0.4, data.depth + 0.4], dtick: data.depth > 12 ? 4 : 2 },
      yaxis: { type: "log", exponentformat: "power", dtick: 1, title: { text: "perplexity", standoff: 4 }, range: range(data) },
      shapes: [rule(choice.k, { width: 2 }), rule(data.share * data.depth, { width: 1.5, dash: "dash" })],
      annotations: [{
        x: data.share * data.depth, yref: "paper", y: 1, xanchor: "left", yanchor: "top", xshift: 4,
        text: "10/24 of the depth", showarrow: false, font: { size: 12 },
      }],
    },
  };
}

/** The encoder from the embeddings up, under the pre-trained head, and whose weights each part has. */
function layers(data, choice) {
  const given = (layer) => layer > data.depth - choice.k;
  const parts = [
    ["embeddings", choice.embeddings],
    ...Array.from({ length: data.depth }, (_, i) => [`layer ${i + 1}`, given(i + 1)]),
    ["head", true],
  ];
  const states = parts.map(([, back]) => (back ? "pre-trained" : "fine-tuned"));
  return {
    title: "The model that is measured",
    traces: [{
      type: "bar", orientation: "h", x: parts.map(() => 1), y: parts.map(([name]) => name), width: 0.86,
      text: states, textposition: "inside", insidetextanchor: "middle", textangle: 0, hoverinfo: "skip",
      marker: { color: states.map((state) => data.tints[state]) },
    }],
    layout: {
      showlegend: false, margin: { t: 12, r: 4, b: 16, l: 90 },
      xaxis: { visible: false, range: [0, 1], fixedrange: true },
      yaxis: { showgrid: false, fixedrange: true },
    },
  };
}

/** The interval of a number in words, where it has one. */
const interval = ([, low, high], say) => (low === null ? "" : ` (95 % interval ${say(low)} to ${say(high)})`);

function words(data, choice) {
  const { times, gone } = data.told[choice.embeddings][choice.k], percent = (share) => digits(100 * share);
  return [
    `k = ${choice.k} of ${data.depth}, ${data.words[choice.embeddings]}: ` + (times
      ? `perplexity in failed runs is ${significant(times[0])} times that in successful ones${interval(times, significant)}.`
      : "there are no runs of both kinds to compare."),
    gone ? `Of the failed runs' excess at k = 0, in nats per token, ${percent(gone[0])} % is gone${interval(gone, percent)}.`
      : "Not every failed run has an excess at k = 0, so no share of it can be told.",
  ];
}

/** Geometric means of the perplexity where nothing, k layers and everything are given back. */
function numbers(data, choice) {
  const at = [0, choice.k, data.depth];
  const rows = Object.entries(KINDS).map(([kind, failed]) => {
    const runs = chosen(data, choice).filter((run) => run.failed === failed);
    const finite = runs.every((run) => run.nll.every((value) => value !== null));
    return [`${kind} runs (${runs.length})`, ...at.map((k) =>
      significant(runs.length && finite ? Math.exp(mean(runs.map(({ nll }) => nll[k]))) : null))];
  });
  return [["mean perplexity", "k = 0", `k = ${choice.k} (chosen)`, `k = ${data.depth}`], ...rows];
}

function swap(data, choice) {
  return {
    figures: [curves(data, choice), layers(data, choice)],
    said: words(data, choice), outputs: { k: choice.k }, numbers: numbers(data, choice),
    rows: [
      ["seed", "failed", "embeddings", "k", "nats_per_token"],
      ...data.runs.flatMap(({ seed, failed, embeddings, nll }) => nll.map((value, k) => [seed, failed, embeddings, k, value])),
    ],
  };
}

/** A click on a curve gives back as many layers. */
function chosenLayers(data, { x, data: { type } }) {
  return type === "bar" ? null : { k: x };
}

stabkit.explorers.swap = { show: swap, click: chosenLayers };
})();
