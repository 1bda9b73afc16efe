// What an open claim shows: why, every prompt, its pairs, the prompts at the ends, the patterns of its heads.

const AT_AN_END = 3;

/** Everything about one result; `report` is the report's data with its lookups. */
function detail(report, result, others, choose) {
  const node = h("div", { class: "detail" });
  if (others.length > 1) {
    node.append(h("div", { class: "tasks", role: "group", "aria-label": "task" }, others.map((each) => h("button", {
      class: `chip ${each.v}`, type: "button", "aria-pressed": String(each === result), on: { click: () => choose(each) },
    }, sign(each.v), report.taskName(each)))));
  }
  const behind = result.behind, prompts = behind && result.t !== undefined && result.t !== null ? report.tasks[result.t].prompts : [];
  const said = [
    result.reason && h("p", { class: "reason" }, result.reason),
    facts(result),
    result.notes?.length && h("ul", { class: "notes" }, result.notes.map((each) => h("li", {}, each))),
    result.example && h("dl", { class: "example" }, h("dt", {}, "counterexample"),
      Object.entries(result.example).map(([name, value]) => h("dd", {}, `${name}: ${value}`))),
  ];
  const shown = h("div", { class: "prompt-of" });
  let now = null;
  const show = (place) => {
    now = Math.max(0, Math.min(behind.values[2].length / 2 - 1, place));
    node.querySelectorAll(".dot.on, .ends .on").forEach((each) => each.classList.remove("on"));
    node.querySelectorAll(`[data-i="${now}"]`).forEach((each) => each.classList.contains("cell") || each.classList.add("on"));
    const index = report.indices[behind.prompts][now];
    shown.replaceChildren(promptShown(report, result, prompts[index], index, report.values(result)[now], show));
  };
  node.append(h("div", { class: "said" }, said));
  if (behind) {
    const about = ["each dot a prompt", behind.holds?.length ? "shaded where the claim holds" : "", result.at ? "bar: 95 % interval" : "",
      prompts.length ? "click a dot for its prompt" : ""].filter(Boolean).join(" · ");
    node.append(h("figure", { class: "all" }, swarm(result, (i) => prompts.length && show(i)), h("figcaption", {}, about)));
  }
  for (const [title, rows] of [["pairs", result.members], ["compared figures", result.compared], ["figures behind it", result.details]]) {
    const drawn = rows?.length ? forest(rows, result.unit) : null;
    if (drawn) node.append(h("section", { class: "of-parts" }, h("h2", { class: "minor" }, title), drawn));
  }
  if (prompts.length) {
    node.append(h("section", { class: "prompts" }, endsOf(report, result, show), shown));
    show(report.sorted(result)[0]);
  }
  node.step = (by) => {
    if (now === null) return;
    const order = report.sorted(result);
    show(order[Math.max(0, Math.min(order.length - 1, order.indexOf(now) + by))]);
  };
  return node;
}

function facts(result) {
  const parts = [
    result.n && `n ${result.n}`, result.extra, result.median && `median ${result.median}`,
    result.right !== undefined && result.right !== null && `claimed sign on ${figure(result.right, "share")} of the prompts`,
    result.used && result.at && result.used.some((end, i) => end !== result.at[i])
      && `the verdict used [${ends(result.used).map((end) => (Number.isFinite(end) ? figure(end, result.unit) : "\u221e")).join(", ")}]`,
  ].filter(Boolean);
  return parts.length ? h("p", { class: "facts" }, parts.join(" \u00b7 ")) : null;
}

/** Buttons for the lowest and the highest prompts. */
function endsOf(report, result, show) {
  const order = report.sorted(result), values = report.values(result), n = Math.min(AT_AN_END, Math.ceil(order.length / 2));
  const button = (place) => h("button", { type: "button", class: "end", "data-i": place, on: { click: () => show(place) } }, figure(values[place], result.behind.unit));
  return h("div", { class: "ends" }, h("h2", { class: "minor" }, "prompts"),
    h("span", {}, "lowest"), order.slice(0, n).map(button),
    h("span", {}, "highest"), order.slice(-n).reverse().map(button),
    h("span", { class: "keys" }, h("kbd", {}, "\u2190"), " ", h("kbd", {}, "\u2192"), " next"));
}

/** A prompt, token by token, with what its partner has instead, its positions, and patterns on it. */
function promptShown(report, result, prompt, index, value, show) {
  if (!prompt) return h("p", {}, `prompt ${index + 1} is not in the report`);
  const [tokens, corrupt, positions, answers, distractors, scores, stratum, line] = prompt, words = report.words;
  const instead = new Map(corrupt), named = new Map();
  for (const [name, ...at] of positions) for (const i of at) named.set(i, [...(named.get(i) ?? []), words[name]]);
  const listed = (ids, kind) => ids.slice(0, 4).map((id) => h("span", { class: `token ${kind}` }, visible(words[id])));
  const head = [`prompt ${index + 1}`, line !== null && `line ${line}`, words[stratum]].filter(Boolean).join(" \u00b7 ");
  return h("div", {},
    h("p", { class: "prompt-head" }, h("b", {}, figure(value, result.behind.unit)), ` ${head} \u00b7 metric ${plain(scores[0])} clean, ${plain(scores[1])} corrupt \u00b7 `,
      "answer ", listed(answers, "right"), distractors.length ? [" not ", listed(distractors, "wrong")] : ""),
    h("ol", { class: "tokens" }, tokens.map((id, i) => h("li", { class: [instead.has(i) && "changed", named.has(i) && "named"].filter(Boolean).join(" ") },
      h("small", {}, String(i)), h("span", {}, visible(words[id])),
      instead.has(i) ? h("del", {}, visible(words[instead.get(i)])) : h("i", {}), h("b", {}, (named.get(i) ?? []).join(" "))))),
    patternsOn(report, result, index, tokens.map((id) => visible(words[id])), named, show));
}

/** The pattern of one of the claim's heads on a prompt, or where there are some. */
function patternsOn(report, result, index, tokens, named, show) {
  const heads = result.behind.heads.filter((head) => report.patterns.has(`${result.t} ${head}`));
  if (!heads.length) return null;
  const kept = [...report.patterns.get(`${result.t} ${heads[0]}`).keys()], places = report.indices[result.behind.prompts];
  const head = heads.includes(report.head) ? report.head : heads[0], at = report.patterns.get(`${result.t} ${head}`).get(index);
  const others = kept.filter((each) => each !== index && places.includes(each)).map((each) => h("button", {
    type: "button", class: "end", on: { click: () => show(places.indexOf(each)) } }, `prompt ${each + 1}`));
  const body = h("div", { class: "pattern" });
  const draw = (chosen) => {
    report.head = chosen;
    const rows = rowsOf(report.patterns.get(`${result.t} ${chosen}`).get(index)), say = h("figcaption", {}, "\u00a0");
    if (rows.length !== tokens.length) return body.replaceChildren("this pattern is of another prompt");
    body.replaceChildren(h("figure", {}, heat(rows, tokens, named, (words) => say.replaceChildren(words)), say));
  };
  const select = h("select", { "aria-label": "head", on: { change: (event) => draw(event.target.value) } },
    heads.map((each) => h("option", { value: each, selected: each === head }, each)));
  if (at) draw(head);
  return h("section", { class: "patterns" },
    h("h2", { class: "minor" }, "attention of ", at ? select : "its heads"),
    others.length ? h("p", { class: "elsewhere" }, at ? "also on " : "is kept on ", others) : "", at && body);
}

function rowsOf(packed) {
  const values = unpacked(packed), rows = [];
  for (let at = 0; at < values.length; at += rows.length) rows.push([...values.slice(at, at + rows.length + 1)]);
  return rows;
}
