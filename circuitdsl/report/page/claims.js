// The list of claims: lines that are drawn when they come near the screen, filters, sorting, what is open.

class Claims {
  /** `told` is called with what the pointer or the keys are on: (claim or null, whether it was chosen). */
  constructor(report, state, told) {
    Object.assign(this, { report, state, told });
    this.list = h("ol", { class: "claims" });
    this.none = h("p", { class: "none", hidden: true }, "No claim matches.");
    this.node = h("div", { class: "lines" }, this.list, this.none);
    this.near = new IntersectionObserver((seen) => seen.forEach((each) => each.isIntersecting && this.fill(each.target.row)), { rootMargin: "800px 0px" });
    this.rows = report.claims.map((claim, c) => this.row(claim, report.resultsOf[c]));
    this.shown = [];
    this.update();
  }

  row(claim, results) {
    const row = { claim, results, cells: [], filled: false };
    const extra = this.report.tasks.length <= 1 && results[0]?.extra;
    row.button = h("button", { class: "head", type: "button", "aria-expanded": "false", on: { click: () => this.toggle(row) } },
      h("span", { class: "number" }, String(claim.line || "")),
      h("span", { class: "text" }, claim.block && h("span", { class: "block" }, claim.block), written(claim.text),
        extra && h("small", {}, extra)));
    row.item = h("li", { class: "claim" }, row.button);
    row.item.row = row;
    row.item.style.setProperty("--results", String(Math.max(1, results.length)));
    row.item.addEventListener("pointerenter", () => this.told(row.claim, false));
    row.item.addEventListener("pointerleave", () => this.told(null, false));
    row.button.addEventListener("focus", () => this.told(row.claim, false));
    row.words = [claim.text, claim.block, claim.id, claim.cite, String(claim.line), ...results.flatMap((each) => [each.reason, each.v, this.report.taskName(each), ...(each.notes ?? [])])].join("\n").toLowerCase();
    this.near.observe(row.item);
    return row;
  }

  /** Draw the results of a line, once. */
  fill(row) {
    if (row.filled) return;
    row.filled = true;
    this.near.unobserve(row.item);
    row.cells = row.results.map((result) => this.result(row, result));
    row.button.after(...row.cells.map((cell) => cell.node));
    row.item.classList.add("filled");
    this.show(row);
  }

  fillAll() {
    this.shown.forEach((row) => this.fill(row));
  }

  result(row, result) {
    const place = h("span", { class: "place" }), several = this.report.several;
    const why = result.v !== "holds" && result.reason ? h("p", { class: "why" }, result.reason) : "";
    const node = h("div", { class: "result", on: { click: () => this.open(row, result) } },
      several && h("span", { class: "task" }, this.report.taskName(result)), place,
      h("span", { class: "figure" }, result.fig ?? ""), h("span", { class: "interval" }, result.ci ?? ""),
      h("span", { class: "n" }, result.n ? String(result.n) : ""), verdictOf(result.v), why);
    const cell = { result, node, place };
    this.draw(cell);
    return cell;
  }

  draw({ result, place }) {
    const domain = this.state.own ? ownDomain(result) : this.report.domains.get(result.unit);
    place.replaceChildren(strip(result, domain));
  }

  /** Which results of a line the filters let through. */
  passing(row) {
    const { verdicts, task, group, words } = this.state;
    if (words && !words.toLowerCase().split(/\s+/).every((word) => row.words.includes(word))) return [];
    if (group && !this.report.isAbout(row.claim, group)) return [];
    return row.results.filter((each) => (!verdicts.size || verdicts.has(each.v)) && (!task || this.report.taskName(each) === task));
  }

  show(row) {
    const passing = new Set(row.passing);
    row.cells.forEach(({ result, node }) => (node.hidden = !passing.has(result)));
  }

  /** Filter and sort anew. */
  update() {
    for (const row of this.rows) {
      row.passing = this.passing(row);
      row.item.hidden = !row.passing.length;
      row.item.style.setProperty("--results", String(Math.max(1, row.passing.length)));
      this.show(row);
    }
    this.shown = this.rows.filter((row) => row.passing.length);
    const key = ORDERS[this.state.sort]?.key;
    if (key) this.shown = this.shown.map((row) => [key(row), row]).sort((a, b) => a[0] - b[0]).map(([, row]) => row);
    this.list.append(...this.shown.map((row) => row.item));
    this.none.hidden = this.shown.length > 0;
  }

  /** Draw all strips anew, on another scale. */
  redraw() {
    this.rows.forEach((row) => row.cells.forEach((cell) => this.draw(cell)));
  }

  find(id) {
    return this.rows.find((row) => row.claim.id === id);
  }

  toggle(row) {
    if (row.detail) this.close();
    else this.open(row, row.passing[0] ?? row.results[0]);
  }

  open(row, result) {
    if (row.detail && row.open === result) return;
    this.close();
    this.fill(row);
    row.open = result;
    row.detail = detail(this.report, result, row.results, (other) => this.open(row, other));
    row.button.setAttribute("aria-expanded", "true");
    row.item.classList.add("open");
    row.item.append(row.detail);
    row.cells.forEach((cell) => cell.node.classList.toggle("on", cell.result === result && row.cells.length > 1));
    this.state.open = row.claim.id;
    this.state.openTask = this.report.several ? this.report.taskName(result) : "";
    this.told(row.claim, true);
  }

  close() {
    for (const row of this.rows.filter((each) => each.detail)) {
      row.detail.remove();
      row.detail = row.open = null;
      row.button.setAttribute("aria-expanded", "false");
      row.item.classList.remove("open");
      row.cells.forEach((cell) => cell.node.classList.remove("on"));
    }
    this.state.open = this.state.openTask = "";
    this.told(null, true);
  }

  get current() {
    return this.rows.find((row) => row.item.contains(row.item.getRootNode().activeElement)) ?? this.rows.find((row) => row.detail);
  }

  /** Move the focus by so many lines. */
  move(by) {
    const at = this.shown.indexOf(this.current), to = this.shown[at < 0 ? 0 : Math.max(0, Math.min(this.shown.length - 1, at + by))];
    if (to) this.goTo(to);
  }

  goTo(row, open = false) {
    if (row.item.hidden) return;
    if (open && !row.detail) this.open(row, row.passing[0]);
    row.button.focus({ preventScroll: true });
    row.item.scrollIntoView({ block: open ? "start" : "nearest" });
  }
}

/** A claim as code, with arrows and bounds that do not break. */
function written(text) {
  const parts = text.split(/(->|: \S+|[<>]=? ?-?[\d.]+ ?%?)/);
  return h("code", {}, parts.map((part, i) => (i % 2 ? h("span", { class: "nobr" }, part) : part)));
}

const worst = (row) => Math.min(...row.passing.map((each) => VERDICTS.indexOf(each.v)));
const largest = (row) => Math.max(...row.passing.map((each) => Math.abs(each.value ?? 0)));

/** How far a figure is from its nearest bound, in widths of its interval. */
function room(result) {
  const bounds = (result.behind?.holds ?? []).flat().filter((each) => each !== null), [low, high] = ends(result.at ?? [null, null]);
  if (!bounds.length || !Number.isFinite(high - low)) return Infinity;
  return Math.min(...bounds.map((bound) => Math.abs(result.value - bound))) / (high - low || 1e-9);
}

const ORDERS = {
  spec: { name: "as in the spec" },
  worst: { name: "worst verdict first", key: worst },
  size: { name: "largest figure first", key: (row) => -largest(row) },
  close: { name: "closest to its bound first", key: (row) => Math.min(...row.passing.map(room)) },
};
