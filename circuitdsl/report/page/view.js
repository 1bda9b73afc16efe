// One report on the screen: heading, filters, picture, claims, where it comes from; and the keys.

/** A report's data with what is looked up in it. */
class Found {
  constructor(data) {
    Object.assign(this, data);
    this.several = this.tasks.length > 1;
    this.resultsOf = this.claims.map(() => []);
    for (const result of this.results) this.resultsOf[result.c].push(result);
    this.domains = domains(this.results);
    this.kept = this.patterns;
    this.patterns = new Map();
    for (const [task, head, prompt, ...packed] of this.kept) {
      const key = `${task} ${head}`;
      (this.patterns.get(key) ?? this.patterns.set(key, new Map()).get(key)).set(prompt, packed);
    }
    this.known = new Map();
  }

  taskName(result) {
    return this.tasks[result.t]?.name ?? "weights";
  }

  /** The numbers of a result; its places from the lowest number to the highest. */
  values(result) {
    return this.known.get(result) ?? this.known.set(result, unpacked(result.behind.values)).get(result);
  }

  sorted(result) {
    const values = this.values(result);
    return [...values.keys()].sort((a, b) => values[a] - values[b]);
  }

  isAbout(claim, group) {
    return `${claim.text} ${claim.block ?? ""}`.split(/[^\p{L}\p{N}_]+/u).includes(group);
  }
}

const KEYS = [["j k", "next, previous claim"], ["\u2190 \u2192", "next prompt of the open claim"], ["\u21b5", "open, close"], ["/", "search"], ["esc", "close, clear"], ["s", "scale"], ["?", "keys"]];

class View {
  constructor(root, data, state = new State()) {
    Object.assign(this, { root, state });
    this.reports = data.reports.map((each) => new Found(each));
    root.classList.add("cdsl");
    this.theme();
    this.draw();
    root.addEventListener("keydown", (event) => this.key(event));
  }

  draw() {
    const report = (this.report = this.reports[Math.min(this.state.report, this.reports.length - 1)]);
    if (!report) return this.root.replaceChildren(h("p", {}, "There is no report in this page."));
    this.diagram = new Diagram(report.svg, {
      over: (ids) => this.over(ids),
      chosen: (ids) => this.chosen(ids),
      group: (name) => this.set({ group: this.state.group === name ? "" : name }),
    });
    this.claims = new Claims(report, this.state, (claim, kept) => this.told(claim, kept));
    this.peek = h("div", { class: "peek", "aria-hidden": "true" });
    const pane = h("aside", { class: "pane", "aria-label": "diagram" }, this.diagram.node, this.diagram.button, this.peek);
    this.root.replaceChildren(
      this.heading(), this.controls(),
      h("div", { class: "body" }, report.svg ? pane : "", h("main", { class: "side" }, this.columns(), this.claims.node, this.besides())),
      this.foot(), this.help());
    this.root.classList.toggle("several", report.several);
    this.root.classList.toggle("drawn", Boolean(report.svg));
    this.root.classList.toggle("sparse", (this.diagram.arrows ?? []).length < 3);
    this.diagram.fit();
    this.over(null);
    const row = this.claims.find(this.state.open);
    if (row) this.claims.open(row, row.results.find((each) => report.taskName(each) === this.state.openTask) ?? row.results[0]);
    this.refresh();
  }

  heading() {
    const { report } = this;
    const circuits = this.reports.length > 1 && h("nav", { class: "circuits", "aria-label": "circuits" }, this.reports.map((each, i) => h("button", {
      type: "button", class: "chip", "aria-pressed": String(each === report), on: { click: () => { Object.assign(this.state, { report: i, open: "", group: "", task: "" }); this.draw(); this.state.keep(); } },
    }, each.name)));
    return h("header", {}, circuits,
      h("h1", {}, this.diagram.title || report.name), h("p", { class: "model" }, `${this.diagram.title ? `${report.name} \u00b7 ` : ""}${report.model} \u00b7 ${report.device}`),
      h("ul", { class: "about" }, report.tasks.map((task) => h("li", {}, task.line, task.remarks.filter((each) => each.startsWith("warning")).map((each) => h("span", { class: "warning" }, each))))),
      report.notes.map((each) => h("p", { class: "warning" }, each)));
  }

  controls() {
    const { report, state } = this, found = new Map();
    for (const { v } of report.results) found.set(v, (found.get(v) ?? 0) + 1);
    this.chips = VERDICTS.filter((each) => found.has(each)).reverse().map((each) => h("button", {
      type: "button", class: `chip ${each}`, "data-v": each, on: { click: () => { state.verdicts.has(each) ? state.verdicts.delete(each) : state.verdicts.add(each); this.set({}); } },
    }, sign(each), counted(found.get(each), each)));
    const choice = (name, label, options) => {
      const field = h("select", { "aria-label": label, on: { change: (event) => this.set({ [name]: event.target.value }) } },
        options.map(([value, text]) => h("option", { value }, text)));
      field.refresh = () => (field.value = state[name]);
      return field;
    };
    this.search = h("input", { type: "search", placeholder: "search  /", "aria-label": "search", on: { input: (event) => this.set({ words: event.target.value }) } });
    this.search.refresh = () => this.search.value !== state.words && (this.search.value = state.words);
    this.scale = h("button", { type: "button", class: "chip", title: "whether strips share a scale (s)", on: { click: () => this.set({ own: !state.own }) } }, "own scales");
    this.night = h("button", { type: "button", class: "chip", title: "light or dark", "aria-label": "light or dark", on: { click: () => { state.dark = !this.isDark(); this.theme(); state.keep(); } } }, "\u25d1");
    const groups = this.diagram.groups;
    this.fields = [
      this.search,
      groups.length && choice("group", "group", [["", "all groups"], ...groups.map((each) => [each, each])]),
      report.several && choice("task", "task", [["", "all tasks"], ...[...new Set(report.results.map((each) => report.taskName(each)))].map((each) => [each, each])]),
      choice("sort", "order", Object.entries(ORDERS).map(([value, { name }]) => [value, name])),
    ].filter(Boolean);
    this.count = h("span", { class: "count", role: "status" });
    this.bar = h("div", { class: "controls", role: "search" }, h("div", { class: "chips", role: "group", "aria-label": "verdicts" }, this.chips), this.fields, this.scale, this.night, this.count);
    new ResizeObserver(() => this.root.style.setProperty("--top", `${this.bar.offsetHeight}px`)).observe(this.bar);
    return this.bar;
  }

  columns() {
    const { report } = this;
    this.axis = h("span", { class: "place" });
    return h("div", { class: "columns", "aria-hidden": "true" }, h("span", { class: "number" }, "line"), h("span", { class: "text" }, "claim"),
      report.several && h("span", { class: "task" }, "task"), this.axis, h("span", { class: "figure" }, "figure"),
      h("span", { class: "interval" }, "95 % interval"), h("span", { class: "n" }, "n"), h("span", { class: "verdict" }, "verdict"));
  }

  besides() {
    const { besides } = this.report;
    return besides.length ? h("section", { class: "besides" }, h("h2", {}, "measured besides, nothing claimed"), h("dl", {}, besides.map((each) => [
      h("dt", {}, this.report.several ? `${each.name} on ${each.task}` : each.name), h("dd", {}, each.said, h("small", {}, each.notes.filter(Boolean).join(" \u00b7 ")))]))) : "";
  }

  foot() {
    return h("footer", {}, h("dl", {}, this.report.foot.map(([name, said]) => [h("dt", {}, name), h("dd", {}, said)])));
  }

  help() {
    this.keys = h("dialog", { class: "keys", "aria-label": "keys" }, h("dl", {}, KEYS.map(([key, does]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, does)])),
      h("form", { method: "dialog" }, h("button", { class: "chip" }, "close")));
    return this.keys;
  }

  /** Change what is shown, and remember it. */
  set(changes) {
    const scale = "own" in changes;
    Object.assign(this.state, changes);
    this.claims.update();
    if (scale) this.claims.redraw();
    else this.reveal();
    this.refresh();
    this.state.keep();
  }

  /** Scroll back to the first claim: a list that got shorter may have ended above the screen. */
  reveal() {
    const { top } = this.claims.node.getBoundingClientRect();
    if (top < Math.max(0, this.bar.getBoundingClientRect().bottom) - 1) this.claims.node.scrollIntoView({ block: "start" });
  }

  /** Bring the controls in line with what is shown. */
  refresh() {
    const { state, claims, report } = this;
    this.chips.forEach((chip) => chip.setAttribute("aria-pressed", String(state.verdicts.has(chip.dataset.v))));
    this.fields.forEach((field) => field.refresh());
    this.scale.setAttribute("aria-pressed", String(state.own));
    const all = claims.shown.length === report.claims.length;
    const whole = `${report.claims.length} claim${report.claims.length === 1 ? "" : "s"}`;
    this.count.replaceChildren(all ? whole : `${claims.shown.length} of ${whole}`);
    const domain = report.domains.get("gap");
    this.axis.replaceChildren(...(domain && !state.own ? [scaleBar(domain)] : ["prompt by prompt"]));
  }

  // --- the picture and the list

  /** The pointer is on an arrow: its line, here and in the list. */
  over(ids) {
    const found = (ids ?? []).map((id) => this.claims.find(id)).filter(Boolean);
    this.claims.rows.forEach((row) => row.item.classList.toggle("lit", found.includes(row)));
    if (!found.length) this.peek.replaceChildren(h("p", { class: "hint" }, "an arrow's claims stand here; a click opens them, a click on a group shows its claims alone"));
    else this.peek.replaceChildren(...found.slice(0, 3).map((row) => h("p", {}, h("span", { class: "number" }, String(row.claim.line)), written(row.claim.text),
      ...row.results.slice(0, 8).map((each) => h("span", { class: "said" }, this.report.several ? `${this.report.taskName(each)} ` : "", each.fig ?? "", " ", verdictOf(each.v))))));
    if (!ids) this.mark();
  }

  chosen(ids) {
    const row = ids.map((id) => this.claims.find(id)).find((each) => each && !each.item.hidden);
    if (row) this.claims.goTo(row, true);
  }

  told(claim, kept) {
    if (!this.claims) return;
    if (kept) this.state.keep();
    this.mark(claim, kept);
  }

  mark(claim = null, reveal = false) {
    const id = claim?.id ?? this.state.open;
    this.diagram.mark(id ? [id] : null, reveal);
  }

  // --- keys, light and dark

  key(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest?.("input, select, dialog"), { key } = event;
    if (key === "Escape") {
      if (this.keys.open) return;
      if (typing === this.search && this.state.words) this.set({ words: "" });
      else if (typing) typing.blur();
      else if (this.state.open) { const { current } = this.claims; this.claims.close(); current?.button.focus(); }
      else this.set({ words: "", group: "", task: "", verdicts: new Set() });
    } else if (typing || (key.startsWith("Arrow") && event.target.closest?.(".diagram"))) return;
    else if (key === "j" || key === "ArrowDown") this.claims.move(1);
    else if (key === "k" || key === "ArrowUp") this.claims.move(-1);
    else if (key === "ArrowLeft" || key === "ArrowRight") this.claims.rows.find((row) => row.detail)?.detail.step(key === "ArrowLeft" ? -1 : 1);
    else if (key === "/") this.search.focus();
    else if (key === "s") this.set({ own: !this.state.own });
    else if (key === "?") this.keys.showModal();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  isDark() {
    return this.state.dark ?? matchMedia("(prefers-color-scheme: dark)").matches;
  }

  theme() {
    this.root.style.colorScheme = this.state.dark === null ? "" : this.state.dark ? "dark" : "light";
  }
}

const MANY = { holds: "hold", fails: "fail", error: "errors", unexpected: "unexpectedly hold" };

/** `1 holds`, `25 hold` */
function counted(n, verdict) {
  return `${n} ${n === 1 ? (verdict === "unexpected" ? "unexpectedly holds" : verdict) : MANY[verdict] ?? verdict}`;
}

/** The shared scale of effects, above the strips. */
function scaleBar(domain) {
  const x = scale(domain, STRIP.width), marks = [-4, -1, -0.25, -0.05, 0, 0.05, 0.25, 1, 4].filter((each) => each >= domain[0] && each <= domain[1]);
  return h("span", { class: "scale" }, marks.map((value) => {
    const mark = h("i", {}, plain(100 * value, 0) + (value === marks.at(-1) ? " %" : ""));
    mark.style.left = `${(100 * x(value)) / STRIP.width}%`;
    return mark;
  }));
}

/** What is shown; `keep` is called when it has changed. */
class State {
  constructor() {
    Object.assign(this, { report: 0, verdicts: new Set(), group: "", task: "", sort: "spec", words: "", own: false, open: "", openTask: "", dark: null, keep: () => {} });
  }

  /** As the part of an address behind #, and from it. */
  toString() {
    const told = new URLSearchParams();
    for (const name of ["group", "task", "words", "open", "openTask"]) if (this[name]) told.set(name, this[name]);
    if (this.report) told.set("report", String(this.report));
    if (this.verdicts.size) told.set("verdicts", [...this.verdicts].join(" "));
    if (this.sort !== "spec") told.set("sort", this.sort);
    if (this.own) told.set("own", "1");
    if (this.dark !== null) told.set("dark", this.dark ? "1" : "0");
    return told.toString();
  }

  read(text) {
    const told = new URLSearchParams(text);
    for (const name of ["group", "task", "words", "open", "openTask"]) this[name] = told.get(name) ?? "";
    this.report = Math.max(0, Number.parseInt(told.get("report") ?? "0", 10) || 0);
    this.verdicts = new Set((told.get("verdicts") ?? "").split(" ").filter((each) => VERDICTS.includes(each)));
    this.sort = Object.hasOwn(ORDERS, told.get("sort") ?? "") ? told.get("sort") : "spec";
    this.own = told.get("own") === "1";
    this.dark = { 1: true, 0: false }[told.get("dark")] ?? null;
    return this;
  }
}

/** Fill a page of its own. */
function start() {
  const root = document.getElementById("circuitdsl"), state = new State().read(location.hash.slice(1));
  state.keep = () => history.replaceState(null, "", `#${state}`);
  const view = new View(root, JSON.parse(document.getElementById("data").textContent), state);
  document.addEventListener("keydown", (event) => root.contains(event.target) || view.key(event));
  addEventListener("beforeprint", () => view.claims?.fillAll());
  if (root.dataset.live) follow(root.dataset.live);
}

/** Fill an output cell of a notebook, light or dark as the notebook is. */
function inNotebook({ model, el }) {
  const state = new State();
  let view;
  const theme = () => {
    const ground = getComputedStyle(document.body).backgroundColor.match(/\d+/g)?.map(Number) ?? [255, 255, 255];
    if (ground[3] !== 0) state.dark = ground[0] + ground[1] + ground[2] < 384;
    view?.theme();
  };
  const draw = () => {
    const root = h("div", { class: "in-notebook", tabindex: "-1", "data-lm-suppress-shortcuts": "true" });
    el.replaceChildren(root);
    view = new View(root, JSON.parse(model.get("data")), state);
  };
  theme();
  draw();
  model.on("change:data", draw);
  const themes = new MutationObserver(theme);
  themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "class"] });
  return () => themes.disconnect();
}

/** Ask the server for the number of the newest page, and show that one when it is another than this one's. */
async function follow(own) {
  for (;;) {
    try {
      const now = await (await fetch("version", { cache: "no-store" })).text();
      if (now !== own) return location.reload();
    } catch {
      // the server is busy, or has ended: the page stays as it is
    }
    await new Promise((done) => setTimeout(done, 700));
  }
}
