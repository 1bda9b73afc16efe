"use strict";
// Elements, numbers and scales. Whatever comes from the report is put into the page as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const PLACE = new Uint8Array(128);
[...DIGITS].forEach((digit, i) => (PLACE[digit.charCodeAt(0)] = i));

const VERDICTS = ["fails", "unexpected", "undecided", "error", "expected", "holds"];  // the worst first
const SIGNS = {
  holds: "M-2.6 .2L-.7 2.3L2.7-2",
  expected: "M-2.6-1.3L2.6-1.3M-2.6 1.3L2.6 1.3",
  unexpected: "M-2.2-2.2L2.2 2.2M2.2-2.2L-2.2 2.2",
  fails: "M-2.2-2.2L2.2 2.2M2.2-2.2L-2.2 2.2",
  undecided: "M-1.7-1.4L-.9-2.8L.9-2.8L1.7-1.4L0 .4L0 1M0 2.8L0 3.2",
  error: "M0-3L0 .6M0 2.7L0 3.1",
  interrupted: "M-2.4 0L2.4 0",
};

/** An element with attributes (`on` has listeners), and what stands in it. */
function h(name, about = {}, ...inside) {
  return filled(document.createElement(name), about, inside);
}

/** The same of SVG. */
function s(name, about = {}, ...inside) {
  return filled(document.createElementNS(SVG, name), about, inside);
}

function filled(element, about, inside) {
  for (const [key, value] of Object.entries(about)) {
    if (key === "on") for (const [kind, does] of Object.entries(value)) element.addEventListener(kind, does);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...inside.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== "" && each !== false));
  return element;
}

/** The numbers that Python packed: the smallest, the largest, and two digits for each. */
function unpacked([low, high, text]) {
  const found = new Float64Array(text.length / 2), step = high / 4095 - low / 4095;
  for (let i = 0; i < found.length; i++) {
    found[i] = low + step * (64 * PLACE[text.charCodeAt(2 * i)] + PLACE[text.charCodeAt(2 * i + 1)]);
  }
  return found;
}

const MINUS = "\u2212";

function plain(value, digits = 2) {
  if (!Number.isFinite(value)) return "\u2013";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", MINUS);
}

const SHARES = new Set(["gap", "share", "points"]);

/** A number in its unit, as the terminal writes it. */
function figure(value, unit) {
  if (!SHARES.has(unit)) return plain(value, unit === "composition" ? 3 : 2);
  const percent = 100 * value;
  return `${plain(percent, Math.abs(percent) >= 9.95 ? 0 : 1)}${unit === "points" ? " points" : " %"}`;
}

/** Round numbers between two others. */
function ticks(low, high, about = 5) {
  const rough = (high - low) / about || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((each) => each * power >= rough * 0.999) * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

/**
 * A function from numbers between low and high to places from 0 to width; what lies outside goes to the ends.
 * On a domain with `root` places go with the square root, so that small effects are seen beside large ones.
 */
function scale([low, high, root], width, pad = 3) {
  const at = root ? (value) => Math.sign(value) * Math.sqrt(Math.abs(value)) : (value) => value;
  const from = at(low), by = (width - 2 * pad) / (at(high) - from || 1);
  return (value) => pad + Math.min(width - 2 * pad, Math.max(0, (at(value) - from) * by));
}

/** The ends of an interval; what is missing lies beyond all numbers. */
function ends([low, high]) {
  return [low ?? -Infinity, high ?? Infinity];
}

const MOST = 1e300;  // so that differences are finite

/** Lows and highs around everything given, with 0 among them, and a little room. */
function around(numbers) {
  const finite = numbers.filter((each) => Number.isFinite(each)).map((each) => Math.max(-MOST, Math.min(MOST, each)));
  const low = Math.min(0, ...finite), high = Math.max(0, ...finite), room = 0.03 * (high - low || 1);
  return [low - room, high + room];
}

function sign(verdict) {
  return s("svg", { class: "sign", viewBox: "-6 -6 12 12", "aria-hidden": "true" },
    s("circle", { r: 5.6 }), s("path", { d: SIGNS[verdict] ?? SIGNS.error }));
}

function verdictOf(verdict) {
  return h("span", { class: `verdict ${verdict}` }, sign(verdict), verdict === "unexpected" ? "unexpectedly holds" : verdict);
}

/** A token as it can be seen: a dot for a blank, an arrow for a line's end. */
function visible(token) {
  return token.replaceAll(" ", "\u00b7").replaceAll("\n", "\u21b5").replaceAll("\t", "\u21e5") || "\u2205";
}
