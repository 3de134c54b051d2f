/* Planes through three checkpoints. The figures are those of stabkit.figures; here one is chosen, and
   the place between the two runs marked on it. */
(() => {
"use strict";

const { digits, significant } = stabkit;

const PLACE = "this place";
const MARK = { color: "white", size: 11, line: { color: "#222222", width: 3 } }; // seen on all colours and both pages

const close = (one, other) => Math.abs(one - other) < 1e-4; // figures have five digits

/** A figure that is stored, with or without the runs' paths, and with a mark. */
function marked(spec, data, choice, mark) {
  const shown = spec.data.filter(({ name }) => choice.trajectories || !name?.endsWith(data.paths));
  return {
    traces: [...shown, {
      mode: "markers", name: PLACE, marker: MARK, hovertemplate: `${PLACE}<extra></extra>`, ...mark,
    }],
    layout: { ...spec.layout, uirevision: choice.view }, // a relief that was turned stays so
  };
}

/** On a phone a relief has the whole width and is seen from further off, for its numbers stand outside of it. */
function onPhone({ scene }) {
  const eye = Object.fromEntries(Object.entries(scene.camera.eye).map(([axis, at]) => [axis, 1.2 * at]));
  const [xaxis, yaxis, zaxis] = ["xaxis", "yaxis", "zaxis"].map((axis) => ({ ...scene[axis], tickfont: { size: 10 } }));
  return {
    margin: { l: 0, r: 0, t: 64, b: 0 }, legend: { font: { size: 12 } },
    scene: { ...scene, xaxis, yaxis, zaxis: { ...zaxis, title: "" }, camera: { ...scene.camera, eye } }, // the heading names the height
  };
}

/** The plane, from above or as a relief; there the mark lies just over it. */
function sheet(data, choice, { plane, place, height, title }, narrow) {
  const spec = plane.figures[choice.value][choice.view], mark = { x: [1 - place], y: [place] };
  const above = height === null ? null : height * 10 ** plane.lift[choice.value];
  if (choice.view === "relief") Object.assign(mark, { type: "scatter3d", z: [above], marker: { ...MARK, size: 6 } });
  const found = marked(spec, data, choice, mark);
  if (choice.view === "relief" && narrow) Object.assign(found.layout, onPhone(spec.layout));
  return { ...found, title: `${title[0].toUpperCase()}${title.slice(1)} over the plane of ${plane.name}` };
}

function line(data, choice, { plane, place, height, title }) {
  const found = marked(plane.figures[choice.value].line, data, choice, { x: [place], y: [height] });
  return { ...found, title: `${title[0].toUpperCase()}${title.slice(1)} on the line through the two runs` };
}

/** Where a path is furthest from the plane that it is drawn on. */
function furthest(data, [kind, steps]) {
  const [step, residual, distance] = ["step", "residual", "distance"].map((name) => data.step.indexOf(name));
  const found = steps.reduce((far, row) => (row[residual] > far[residual] ? row : far));
  return `The path of the ${kind} run is a projection: the run is furthest off the plane at step ${found[step]}, ` +
    `by ${significant(found[residual])}, then ${significant(found[distance])} from the origin.`;
}

function words(data, choice, { plane, place, height, title }) {
  const [highest, end, barrier] = plane.barrier[choice.value], paths = Object.entries(plane.paths);
  const said = [
    `At ${digits(place, 2)} of the way from the failed run (0) to the successful one (1) the ${title} is ${significant(height)}.`,
    `Between the two it is at most ${significant(highest)}, at the higher end ${significant(end)}: ` +
      (barrier > 0 ? `a barrier of ${significant(barrier)}.` : "no barrier."),
  ];
  const picked = choice.picked && plane.points.find(([a, b]) => close(a, choice.picked[0]) && close(b, choice.picked[1]));
  if (picked) {
    said.push(`You picked a = ${digits(picked[0], 2)}, b = ${digits(picked[1], 2)}, where it is ` +
      `${significant(picked[2 + data.values.indexOf(choice.value)])}.`);
  }
  if (choice.trajectories) said.push(...paths.map((path) => furthest(data, path)));
  if (choice.trajectories && !paths.length && data.planes.some((one) => Object.keys(one.paths).length)) {
    said.push("The paths of these two runs are not recorded.");
  }
  const how = choice.view === "relief" ? "Drag the relief to turn it; a click" : "A click on the plane";
  said.push(`${how} reads off a point. The csv lists every point.`);
  return said;
}

function surface(data, choice, width) {
  const plane = data.planes[choice.plane], place = plane.places[choice.at];
  const height = plane.heights[choice.value][choice.at], title = data.titles[choice.value];
  const here = { plane, place, height, title };
  const row = (name, ab, values) => [name, ...ab.map((share) => digits(share, 2)), ...values.map(significant)];
  return {
    figures: [sheet(data, choice, here, width < 600), line(data, choice, here)],
    said: words(data, choice, here), outputs: { at: digits(place, 2) },
    numbers: [
      ["weights", "a", "b", ...data.values.map((value) => data.titles[value])],
      ...plane.corners.map(([name, a, b, ...values]) => row(name, [a, b], values)),
      row(PLACE, [1 - place, place], data.values.map((value) => plane.heights[value][choice.at])),
    ],
    rows: [
      ["of", ...data.step.filter((name) => name === "step"), "a", "b", ...data.values, "residual", "distance"],
      ...plane.points.map(([a, b, ...values]) => ["plane", "", a, b, ...values, "", ""]),
      ...Object.entries(plane.paths).flatMap(([kind, steps]) =>
        steps.map(([step, a, b, residual, distance]) => [`path of ${kind} run`, step, a, b, ...data.values.map(() => ""), residual, distance])),
    ],
  };
}

/** A click on the plane reads off a point, one on the line goes there. */
function chosenPlace(data, { x, y, data: { type, name } }) {
  if (type === "contour" || type === "surface") return { picked: [x, y] };
  const at = data.planes[0].places.findIndex((place) => close(place, x));
  return at >= 0 && Object.values(data.titles).includes(name) ? { at } : null;
}

stabkit.explorers.surface = { show: surface, click: chosenPlace };
})();
