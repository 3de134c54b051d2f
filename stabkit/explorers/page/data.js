/* "Data as csv": what a figure or a table of the page shows, for download. It works from a file's
 * address. stabkit/figures/values.py makes the same columns in Python. */
globalThis.stabkit = (() => {
"use strict";

const TYPES = {
  i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array,
  f4: Float32Array, f8: Float64Array,
};

/** A list, whether plotly was given a list or base64 of typed numbers, of one or two dimensions. */
function list(values) {
  if (!values?.bdata) return Array.from(values ?? []);
  const bytes = Uint8Array.from(atob(values.bdata), (byte) => byte.charCodeAt(0));
  const flat = Array.from(new TYPES[values.dtype](bytes.buffer));
  if (!values.shape) return flat;
  const width = Number(String(values.shape).split(",")[1]);
  return Array.from({ length: flat.length / width }, (_, i) => flat.slice(i * width, (i + 1) * width));
}

const nested = (values) => values.length > 0 && typeof values[0] === "object" && values[0] !== null;

function cell(value) {
  if (typeof value === "number") return Number.isFinite(value) ? value : "";
  return String(value ?? "").replace(/<br>/g, ", ").replace(/<[^>]+>/g, "");
}

/** What stands beside the axis that a trace is drawn on. */
function title(layout, trace, letter) {
  const solid = trace.type === "surface" || trace.type === "scatter3d";
  const axes = solid ? layout[trace.scene ?? "scene"] : layout;
  const place = solid ? "" : (trace[`${letter}axis`] ?? letter).slice(1);
  return cell(axes?.[`${letter}axis${place}`]?.title?.text);
}

/** A trace's columns by group: what it is, its axes, what belongs to its points. */
function columns(layout, trace, names) {
  const { rows = {}, columns: own = {} } = trace.meta ?? {};
  let [x, y, z, text] = ["x", "y", "z", "text"].map((name) => list(typeof trace[name] === "string" ? null : trace[name]));
  let custom = list(trace.customdata);
  if (nested(z)) { // a mesh: a value for every pair of y and x
    if (nested(text)) text = text.flatMap(list);
    custom = custom.flatMap(list);
    z = z.flatMap(list);
    [x, y] = [y.flatMap(() => x), y.flatMap((value) => x.map(() => value))];
  }
  const head = Object.fromEntries([["series", trace.name], ...Object.entries(rows)].map(([name, value]) => [name, x.map(() => value)]));
  const axes = {};
  for (const [letter, values] of [["x", x], ["y", y]]) {
    const own = title(layout, trace, letter);
    if (names[letter] === letter) axes[`${letter} is`] = values.map(() => own);
    axes[names[letter]] = values;
  }
  axes[own.z ?? (title(layout, trace, "z") || "z")] = z;
  const { array, arrayminus } = trace.error_y ?? {};
  const points = { above: list(array), below: list(arrayminus), text };
  (own.customdata ?? []).forEach((name, i) => {
    points[name] = custom.map((values) => (typeof values === "object" && values !== null ? list(values)[i] : values));
  });
  return [head, axes, points];
}

/** The columns of several traces below one another: a name for each, then a list of rows. */
function stack(traces) {
  const groups = [0, 1, 2].flatMap((group) => traces.flatMap((trace) => Object.keys(trace[group])));
  const names = [...new Set(groups)];
  const rows = traces.flatMap((trace) => {
    const all = Object.assign({}, ...trace), length = Object.values(trace[0])[0].length;
    return Array.from({ length }, (_, i) => names.map((name) => cell(all[name]?.[i])));
  });
  const used = names.map((_, column) => rows.some((row) => row[column] !== ""));
  return [names, ...rows].map((row) => row.filter((_, column) => used[column]));
}

/** All points that a plot shows but the boxes, whose points stand beside them. */
function figure({ data, layout }) {
  const traces = data.filter((trace) => trace.type !== "box");
  const names = {};
  for (const letter of ["x", "y"]) {
    const titles = new Set(traces.map((trace) => title(layout, trace, letter)).filter(Boolean));
    names[letter] = titles.size === 1 ? [...titles][0] : letter;
  }
  const shown = traces.map((trace) => columns(layout, trace, names))
    .filter(([, axes]) => axes[names.y].some((value) => cell(value) !== ""));
  return stack(shown);
}

/** A table's text; the lines of its head as one. */
function table(found) {
  const lines = (part) => [...(part?.rows ?? [])].map((row) => [...row.cells].map((one) => one.textContent.trim()));
  const head = lines(found.tHead);
  const names = (head[0] ?? []).map((_, i) => head.map((line) => line[i]).filter(Boolean).join(" "));
  return [names, ...[...found.tBodies].flatMap(lines)];
}

function save(rows, name) {
  const quoted = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  const text = rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function begin() {
  const page = location.pathname.split("/").pop().replace(/\.html$/, "");
  const kinds = { exhibit: ["figure", (one) => figure(one.querySelector(".js-plotly-plot"))],
    sheet: ["table", (one) => table(one.querySelector("table"))] };
  for (const [kind, [word, rows]] of Object.entries(kinds)) {
    document.querySelectorAll(`.stabkit-${kind}`).forEach((one, i) => {
      const button = one.querySelector(".stabkit-csv");
      if (!button) return;
      button.hidden = false;
      button.addEventListener("click", () => save(rows(one), `${page}-${word}-${i + 1}.csv`));
    });
  }
}
document.readyState === "complete" ? begin() : window.addEventListener("load", begin);

return { save };
})();
