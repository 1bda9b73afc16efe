// The circuit's picture beside the claims: an arrow knows its claims, a claim its arrows.

class Diagram {
  /** `over` is called with the ids of an arrow's claims or null, `chosen` with these, `group` with a group's name. */
  constructor(text, { over, chosen, group }) {
    this.node = h("div", { class: "diagram", tabindex: "0", role: "group", "aria-label": "circuit" });
    this.button = h("button", { class: "chip size", type: "button", "aria-pressed": "false", on: { click: () => this.enlarge() } }, "full size");
    const svg = text && new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
    if (!svg || svg.localName !== "svg") return;
    svg.querySelectorAll("script, foreignObject, style, a, image, use").forEach((each) => each.remove());
    [...svg.children].filter((each) => !["g", "title", "desc"].includes(each.localName)).forEach((each) => each.remove());
    svg.querySelector(".unmet")?.remove();
    for (const each of [svg, ...svg.querySelectorAll("*")]) {
      for (const { name } of [...each.attributes]) if (/^(on|style|href|xlink)/i.test(name)) each.removeAttribute(name);
      for (const kind of ["fill", "stroke"]) if (/^#[0-9a-f]{6}$/.test(each.getAttribute(kind) ?? "")) twoTone(each, kind);
    }
    this.svg = document.importNode(svg, true);
    this.node.append(this.svg);
    this.svg.removeAttribute("width");
    this.svg.removeAttribute("height");
    this.arrows = [...this.svg.querySelectorAll(".edge[data-claims]")].map((node) => ({
      node, ids: node.dataset.claims.split(" "),
    }));
    const labels = new Map();
    for (const label of this.svg.querySelectorAll(".label")) {
      const key = `${label.dataset.of} ${label.dataset.edge}`;
      labels.set(key, [...(labels.get(key) ?? []), label]);
    }
    for (const arrow of this.arrows) {
      const line = arrow.node.querySelector("path"), wide = line.cloneNode();
      wide.setAttribute("class", "reach");
      wide.removeAttribute("stroke-dasharray");
      arrow.node.prepend(wide);
      arrow.labels = labels.get(`${arrow.node.dataset.claims} ${arrow.node.dataset.edge}`) ?? [];
      for (const part of [arrow.node, ...arrow.labels]) {
        part.addEventListener("pointerenter", () => (this.mark(arrow.ids), over(arrow.ids)));
        part.addEventListener("pointerleave", () => over(null));
        part.addEventListener("click", () => chosen(arrow.ids));
      }
    }
    for (const box of this.svg.querySelectorAll(".box.group")) box.addEventListener("click", () => group(box.dataset.box));
    new ResizeObserver(() => this.fit()).observe(this.node);
  }

  /** From as wide as its column to its own size, or back. */
  enlarge() {
    const large = this.node.classList.toggle("large");
    this.button.setAttribute("aria-pressed", String(large));
    if (large) this.svg.setAttribute("width", this.size);
    else this.svg.removeAttribute("width");
  }

  get title() {
    return this.svg?.querySelector("title")?.textContent ?? "";
  }

  /** The names of the groups that are drawn. */
  get groups() {
    return this.svg ? [...this.svg.querySelectorAll(".box.group")].map((each) => each.dataset.box) : [];
  }

  /** Cut away the room where the heading stood. What is not on the screen yet, as in a hidden cell, has no size. */
  fit() {
    const { x, y, width, height } = this.svg?.getBBox() ?? {};
    if (!width) return;
    this.svg.setAttribute("viewBox", `${x - 8} ${y - 8} ${width + 16} ${height + 16}`);
    this.svg.style.maxWidth = `${Math.ceil(1.15 * width)}px`;
    this.size = Math.ceil(1.15 * width);
    this.button.hidden = this.size <= this.node.clientWidth;
  }

  /** Show the arrows of some claims, and only these; of none, all. */
  mark(ids, reveal = false) {
    if (!this.svg) return;
    const wanted = new Set(ids ?? []), on = this.arrows.filter((arrow) => arrow.ids.some((id) => wanted.has(id)));
    this.svg.classList.toggle("chosen", on.length > 0);
    for (const arrow of this.arrows) {
      const lit = on.includes(arrow);
      for (const part of [arrow.node, ...arrow.labels]) part.classList.toggle("on", lit);
    }
    const first = on[0]?.node;
    if (reveal && first && this.node.scrollHeight > this.node.clientHeight) {
      const at = first.getBoundingClientRect(), room = this.node.getBoundingClientRect();
      if (at.top < room.top || at.bottom > room.bottom) this.node.scrollTop += (at.top + at.bottom - room.top - room.bottom) / 2;
    }
  }
}

/** A colour and the one that takes its place in the dark: as far from the ground there as it is here. */
function twoTone(element, kind) {
  const light = element.getAttribute(kind);
  element.style.setProperty(kind, `light-dark(${light}, ${darkened(light)})`);
}

function darkened(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
  const high = Math.max(r, g, b), low = Math.min(r, g, b), light = (high + low) / 2, spread = high - low;
  const hue = !spread ? 0 : high === r ? ((g - b) / spread + 6) % 6 : high === g ? (b - r) / spread + 2 : (r - g) / spread + 4;
  const saturation = spread ? spread / (1 - Math.abs(2 * light - 1)) : 0;
  const dark = light > 0.9 ? 1.08 - light : light > 0.55 ? 0.62 - 0.35 * (light - 0.55) : Math.min(0.9, 0.93 - 0.9 * light);
  return `hsl(${Math.round(60 * hue)} ${Math.round(100 * Math.min(saturation, light > 0.8 ? 0.28 : 0.7))}% ${Math.round(100 * dark)}%)`;
}
