/* In a notebook an explorer is a page in a frame: it takes its colours from the notebook around it,
 * and the frame takes its height. */
(() => {
"use strict";

const frame = window.frameElement;
if (!frame) return; // a page that stands alone
const { color } = getComputedStyle(frame);
const [red, green, blue] = color.match(/\d+/g).map(Number);
document.documentElement.style.colorScheme = red + green + blue > 382 ? "dark" : "light";
document.body.style.color = color;
new ResizeObserver(() => {
  frame.style.height = `${document.body.scrollHeight}px`;
}).observe(document.body);
})();
