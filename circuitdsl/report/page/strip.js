// Numbers as pictures: the strip of a line, the swarm, the null and the pairs of an open claim, a head's pattern.

const STRIP = { width: 200, height: 24 };

/** The region where a figure has to lie, from edge to edge of a picture. */
function regions(holds, domain, width, height) {
  const x = scale(domain, width, 0);
  return (holds ?? []).map((each) => {
    const [low, high] = ends(each).map((end) => x(Math.max(domain[0], Math.min(domain[1], end))));
    const edges = ends(each).filter((end) => end >= domain[0] && end <= domain[1]).map(x);
    return [
      s("rect", { class: "allowed", x: low, y: 0, width: Math.max(0, high - low), height }),
      edges.map((at) => s("line", { class: "bound", x1: at, x2: at, y1: 0, y2: height })),
    ];
  });
}

/** How many prompts are where, as columns; a single one is seen as well. */
function columns(values, x, width) {
  const found = new Uint16Array(width / 2 + 1);
  let most = 1;
  for (const value of values) most = Math.max(most, ++found[Math.round(x(value) / 2)]);
  let path = "";
  found.forEach((count, i) => count && (path += `M${2 * i - 1} 14v${-(1.5 + (10.5 * count) / most).toFixed(1)}h2V14z`));
  return path;
}

/** The strip of one line: how many prompts are where, the interval, the mean, zero, and where the figure has to lie. */
function strip(result, domain) {
  const { width, height } = STRIP, behind = result.behind;
  const about = { class: `strip ${result.v}`, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img" };
  const label = `${result.fig ?? "no figure"} ${result.ci ?? ""}`;
  if (!domain || !Number.isFinite(result.value)) return s("svg", { ...about, "aria-label": label });
  const x = scale(domain, width), parts = [regions(behind?.holds, domain, width, height)];
  parts.push(s("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: height }));
  if (behind) {
    parts.push(s("path", { class: "counts", d: columns(unpacked(behind.values), x, width) }));
  }
  for (const kind of ["used", "at"]) {
    if (!result[kind]) continue;
    const [low, high] = ends(result[kind]).map((end) => x(end));
    parts.push(s("line", { class: kind === "at" ? "ci" : "ci used", x1: low, x2: Math.max(high, low + 1), y1: 18.5, y2: 18.5 }));
  }
  parts.push(s("line", { class: "mean", x1: x(result.value), x2: x(result.value), y1: 1, y2: 22 }));
  return s("svg", { ...about, "aria-label": `prompt by prompt: ${label}` }, parts);
}

/** The scale that all strips of a unit share: around what most prompts of each claim have. That of shares is even. */
function domains(results) {
  const found = new Map();
  for (const each of results) {
    if (each.value === undefined || each.value === null) continue;
    const of = found.get(each.unit) ?? found.set(each.unit, []).get(each.unit);
    of.push(each.value, ...(each.at ?? []), ...(each.behind?.most ?? []));
  }
  return new Map([...found].map(([unit, numbers]) => {
    const low = numbers.reduce((a, b) => Math.min(a, b ?? a), 0), high = numbers.reduce((a, b) => Math.max(a, b ?? a), 0);
    return [unit, unit === "share" ? [0, 1] : [...around([low, high]), true]];
  }));
}

/** The scale of one claim alone: its prompts, interval, bounds. */
function ownDomain(result) {
  const behind = result.behind, bounds = (behind?.holds ?? []).flat().filter((each) => each !== null);
  const [low, high] = behind ? behind.values : [result.value, result.value];
  return around([low, high, result.value, ...(result.at ?? []), ...bounds]);
}

function axis(domain, width, y, unit, about = 6) {
  const x = scale(domain, width, 12);
  return ticks(...domain, about).map((value) => s("g", { class: "tick", transform: `translate(${x(value)} ${y})` },
    s("line", { y2: 4 }), s("text", { y: 15, "text-anchor": "middle" }, figure(value, unit))));
}

/** Places of dots side by side, as near the middle line as they go without covering each other. */
function swarmed(places, radius, room) {
  const order = places.map((x, i) => [x, i]).sort((a, b) => a[0] - b[0]);
  const found = new Array(places.length).fill(0), recent = [];
  for (const [x, i] of order) {
    while (recent.length && recent[0][0] < x - 2 * radius) recent.shift();
    const blocked = recent.map(([ox, oy]) => [oy, Math.sqrt(Math.max(0, 4 * radius * radius - (x - ox) ** 2))]);
    const tries = [0, ...blocked.flatMap(([y, by]) => [y + by, y - by])].sort((a, b) => Math.abs(a) - Math.abs(b));
    const free = tries.find((y) => blocked.every(([oy, by]) => Math.abs(y - oy) >= by - 1e-6)) ?? 0;
    found[i] = Math.max(-room, Math.min(room, free));
    recent.push([x, found[i]]);
  }
  return found;
}

/** Every prompt a dot; below it the random counterparts, on the same scale. `choose` is called with a place. */
function swarm(result, choose) {
  const behind = result.behind, width = 640, tall = 116, values = unpacked(behind.values);
  const nulls = behind.unit === "gap" ? behind.null ?? [] : [];
  const domain = around([...ownDomain(result), ...nulls, behind.own ?? 0]), x = scale(domain, width, 12);
  const radius = values.length > 300 ? 2 : values.length > 120 ? 2.5 : 3, middle = tall / 2;
  const ys = swarmed([...values].map(x), radius, middle - 10), dots = [];
  for (let i = 0; i < values.length; i++) {
    dots.push(s("circle", { class: "dot", cx: x(values[i]).toFixed(1), cy: (middle + ys[i]).toFixed(1), r: radius, "data-i": i }));
  }
  const wide = (holds) => s("g", {}, regions(holds, domain, width - 24, tall));
  const areas = wide(behind.holds);
  areas.setAttribute("transform", "translate(12 0)");
  const interval = result.at ? ends(result.at).map((end) => x(end)) : null;
  const more = nulls.length ? 62 : 0;
  const about = { class: `swarm ${result.v}`, viewBox: `0 0 ${width} ${tall + 24 + more}`, role: "img",
    "aria-label": `${values.length} prompts from ${figure(values.reduce((a, b) => Math.min(a, b)), behind.unit)} to ${figure(values.reduce((a, b) => Math.max(a, b)), behind.unit)}` };
  const picture = s("svg", about, areas,
    s("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: tall + more }),
    s("g", { class: "dots" }, dots),
    interval && s("rect", { class: "ci", x: interval[0], y: tall - 5, width: Math.max(1.5, interval[1] - interval[0]), height: 4 }),
    s("line", { class: "mean", x1: x(result.value), x2: x(result.value), y1: 0, y2: tall }),
    more && s("g", { class: "null", transform: `translate(0 ${tall})` },
      s("line", { class: "rule", x1: 0, x2: width, y1: 10, y2: 10 }),
      s("text", { x: 12, y: 26 }, `${nulls.length} random counterparts`),
      nulls.map((value) => s("line", { class: "random", x1: x(value), x2: x(value), y1: 34, y2: 50 })),
      behind.own !== null && behind.own !== undefined && s("path", { class: "ours", d: `M${x(behind.own)} 29v24m-4-24h8` })),
    axis(domain, width, tall + more, behind.unit));
  picture.addEventListener("click", (event) => {
    const at = event.target.closest?.(".dot")?.dataset.i;
    if (at !== undefined) choose(Number(at));
  });
  return picture;
}

/** Pairs or parts of a claim, each with its interval, on one scale. */
function forest(rows, unit) {
  const drawn = rows.filter((row) => row.value !== null && row.value !== undefined);
  if (!drawn.length) return null;
  const domain = around(drawn.flatMap((row) => [row.value, ...(row.at ?? [])])), x = scale(domain, 200, 4);
  return h("ul", { class: "forest" }, drawn.map((row) => h("li", { title: row.reason ?? false },
    h("code", {}, row.name),
    s("svg", { viewBox: "0 0 200 16", class: row.v ?? "", "aria-hidden": "true" },
      s("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: 16 }),
      row.at && s("line", { class: "ci", x1: x(ends(row.at)[0]), x2: Math.max(x(ends(row.at)[1]), x(ends(row.at)[0]) + 1), y1: 8, y2: 8 }),
      s("circle", { class: "point", cx: x(row.value), cy: 8, r: 3 })),
    h("span", { class: "figure" }, row.fig ?? figure(row.value, row.unit || unit)),
    row.v ? verdictOf(row.v) : h("span"))));
}

/** A head's attention on a prompt: row by row from where, column by column to where. `say` gets words about a cell. */
function heat(rows, tokens, named, say) {
  const n = rows.length, size = Math.max(9, Math.min(18, 520 / n)), edge = 7.2 * Math.min(12, Math.max(...tokens.map((t) => t.length))) + 26;
  const cells = [], label = (i) => `${i} ${tokens[i].slice(0, 12)}`;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      if (rows[i][j] >= 0.004) cells.push(s("rect", { class: "cell", x: j * size, y: i * size, width: size - 0.5, height: size - 0.5, "fill-opacity": rows[i][j].toFixed(3), "data-i": i, "data-j": j }));
    }
  }
  const text = (i, across) => s("text", {
    class: named.has(i) ? "named" : "", "font-size": Math.min(11, size),
    transform: across ? `translate(${(i + 0.72) * size} -5) rotate(-60)` : `translate(-6 ${(i + 0.74) * size})`,
    "text-anchor": across ? "start" : "end",
  }, label(i));
  const places = [...Array(n).keys()];
  const picture = s("svg", { class: "heat", viewBox: `${-edge} ${-edge} ${edge + n * size + 40} ${edge + n * size + 4}`, width: edge + n * size + 40, role: "img", "aria-label": "attention pattern: from each row's token to each column's" },
    s("path", { class: "stairs", d: `M0 0V${n * size}H${n * size}${places.map((i) => `V${(n - 1 - i) * size}h${-size}`).join("")}Z` }),
    s("g", {}, cells), places.map((i) => [text(i, false), text(i, true)]));
  picture.addEventListener("pointerover", (event) => {
    const { i, j } = event.target.dataset ?? {};
    if (i !== undefined) say(`from ${label(i)} to ${label(j)}: ${figure(rows[i][j], "share")}`);
  });
  return picture;
}
