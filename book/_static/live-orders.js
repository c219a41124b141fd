/* The page "Four orders, live": the quadratic example of Section 3.1, computed and drawn by the
   reader's browser. Jupyter Book puts this script on every page; on
   the others it does nothing, and it leaves no names behind.

   The first part is the mathematics, written as in the library: a map is a function, an order is
   the word that it spells (revlib/orders.py), and `iterates` is the definition
   (revlib/iterates.py). tests/test_browser.py compares its numbers with the library's. */

(() => {
  "use strict";

  const STEPS = 60;
  const START = 1;
  const LATE = 20; // the last steps, whose spread is told

  /** The update maps T_1, T_2, … of Section 3.1, one for each noise. */
  const noisyQuadratic = (h, noise) => noise.map((eps) => (theta) => (1 - h) * theta + h * eps);

  /** The letters from `high` down to `low` + 1. */
  const down = (high, low) => Array.from({ length: high - low }, (_, i) => high - i);

  /** The orders: which maps make the iterate at step n, in the order in which they are applied? */
  const orders = (size, length) => ({
    forward: (n) => down(n, 0).reverse(),
    windowed: (n) =>
      Array.from({ length: Math.ceil(n / size) }, (_, k) => k * size).flatMap((low) =>
        down(Math.min(low + size, n), low),
      ),
    tail: (n) => [...down(n, Math.min(length, n)).reverse(), ...down(Math.min(length, n), 0)],
    backward: (n) => down(n, 0),
  });

  /** θ(0), θ(1), …: the maps of the word at step n, one after the other. */
  const iterates = (maps, theta0, word) =>
    Array.from({ length: maps.length + 1 }, (_, n) =>
      word(n).reduce((theta, i) => maps[i - 1](theta), theta0),
    );

  /** How many maps of step n are applied already: those with which step n - 1 begins too. */
  function kept(word, n) {
    const before = word(n - 1);
    return word(n).findIndex((letter, i) => letter !== before[i]);
  }

  /** Standard normal numbers by the method of Box and Muller, from the generator mulberry32. */
  function normals(seed, count) {
    let state = seed;
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
    return Array.from(
      { length: count },
      () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
    );
  }

  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  const deviation = (values) => {
    const centre = mean(values);
    return Math.sqrt(mean(values.map((value) => (value - centre) ** 2)));
  };

  /** The standard deviation of the stationary law, or null where the maps do not contract. */
  const stationary = (h, sigma) => (h > 0 && h < 2 ? sigma * Math.sqrt(h / (2 - h)) : null);

  /* The second part shows it. */

  document.addEventListener("DOMContentLoaded", () => {
    const page = document.getElementById("live-orders");
    if (!page) return;
    const part = (name) => document.getElementById(`live-orders-${name}`);
    const names = ["h", "sigma", "size", "length", "step"];
    const sliders = Object.fromEntries(names.map((name) => [name, part(name)]));
    let seed = 1;

    function compute() {
      const values = Object.values(sliders).map((slider) => slider.valueAsNumber);
      const [h, sigma, size, length, step] = values;
      const noise = normals(seed, STEPS).map((z) => sigma * z);
      const maps = noisyQuadratic(h, noise);
      const words = orders(size, length);
      const paths = {};
      for (const name in words) paths[name] = iterates(maps, START, words[name]);
      return { h, sigma, size, length, step, noise, words, paths };
    }

    function update() {
      const run = compute();
      for (const slider of Object.values(sliders)) slider.nextElementSibling.value = slider.value;
      part("picture").replaceChildren(picture(run, part("picture").clientWidth));
      part("summary").textContent = summary(run);
      tabulate(run, part("table"));
      replays(run, part("replays"));
      part("data").href = `data:text/csv,${encodeURIComponent(csv(run))}`;
    }

    part("noise").addEventListener("click", () => {
      seed += 1;
      update();
    });
    for (const slider of Object.values(sliders)) slider.addEventListener("input", update);
    page.hidden = false;
    new ResizeObserver(update).observe(part("picture")); // which also draws it for the first time
  });

  /** A number for people: three digits, and a true minus sign. */
  function shown(x) {
    const size = Math.abs(x);
    const text = size >= 1e4 || (size > 0 && size < 1e-3) ? x.toExponential(1) : x.toPrecision(3);
    return text.replaceAll("-", "−");
  }

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    made.append(...children);
    return made;
  }

  function svg(name, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    made.append(...children);
    return made;
  }

  /** An order as it is called, with its number. */
  const called = (name, { size, length }) =>
    ({ windowed: `windowed(${size})`, tail: `tail(${length})` })[name] ?? name;

  /** The steps at which an order begins something new: a window, or the path before its ending. */
  const borders = (name, { size, length }) =>
    Array.from({ length: STEPS }, (_, n) => n).filter(
      (n) => n > 0 && (name === "windowed" ? n % size === 0 : name === "tail" && n === length),
    );

  /** The four paths, one panel each, all on the same scale; colours are in live-orders.css. */
  function picture(run, width) {
    const [left, right, head, height, foot] = [56, 12, 28, 110, 40];
    const panel = head + height;
    const names = Object.keys(run.paths);
    const total = names.length * panel + foot;
    const spread = stationary(run.h, run.sigma);
    const sizes = names.flatMap((name) => run.paths[name].map(Math.abs));
    const reached = Math.max(...sizes, spread ?? 0);
    const magnitude = 10 ** Math.floor(Math.log10(reached));
    const limit = [1, 1.5, 2, 3, 5, 7, 10].map((k) => k * magnitude).find((value) => value >= reached);
    const x = (n) => left + ((width - left - right) * n) / STEPS;
    const drawing = svg("svg", {
      width,
      height: total,
      role: "img",
      "aria-label":
        "The forward, the windowed, the tail and the backward path, one below the other, against " +
        "the step.",
      "aria-describedby": "live-orders-summary",
    });
    names.forEach((name, row) => {
      const top = row * panel + head;
      const y = (theta) => top + (height * (1 - theta / limit)) / 2;
      const line = (x1, y1, x2, y2, kind) => svg("line", { x1, y1, x2, y2, class: kind });
      const words = (text, attributes) => svg("text", attributes, text);
      drawing.append(words(called(name, run), { x: left, y: top - 8, class: `name ${name}` }));
      if (spread !== null) {
        const [upper, lower] = [y(spread), y(-spread)];
        const box = { x: left, y: upper, width: x(STEPS) - left, height: lower - upper };
        drawing.append(svg("rect", { ...box, class: "band" }));
      }
      for (const theta of [-limit, 0, limit]) {
        const number = shown(theta).replace(/\.0+(?=e|$)/, "");
        drawing.append(
          line(left, y(theta), x(STEPS), y(theta), "axis"),
          words(number, { x: left - 6, y: y(theta) + 4, class: "y" }),
        );
      }
      for (const n of borders(name, run)) {
        drawing.append(line(x(n), top, x(n), top + height, "border"));
      }
      drawing.append(line(x(run.step), top, x(run.step), top + height, "step"));
      const points = run.paths[name].map((theta, n) => [x(n), y(theta)]);
      drawing.append(svg("polyline", { points: points.join(" "), class: `path ${name}` }));
      const [cx, cy] = points[run.step];
      drawing.append(svg("circle", { cx, cy, r: 5, class: `dot ${name}` }));
    });
    for (let n = 0; n <= STEPS; n += 10) {
      drawing.append(svg("text", { x: x(n), y: total - foot + 16, class: "x" }, n));
    }
    drawing.append(svg("text", { x: x(STEPS / 2), y: total - 6, class: "x" }, "step n"));
    return drawing;
  }

  /** What the picture shows, in words. */
  function summary({ h, sigma, length, paths }) {
    const factor = Math.abs(1 - h);
    const opening = `Each map multiplies distances by |1 − h| = ${shown(factor)}. `;
    if (h > 2) {
      return `${opening}They do not contract, since h is above 2: all paths run away.`;
    }
    if (h === 2) {
      return `${opening}They do not contract: h must be below 2. No path comes to rest.`;
    }
    const spread = (name) => shown(deviation(paths[name].slice(-LATE)));
    return (
      `${opening}They contract, since 0 < h < 2, and the stationary standard deviation is ` +
      `σ√(h/(2 − h)) = ${shown(stationary(h, sigma))} (the grey band). Over the last ${LATE} ` +
      `steps the spread of the forward path is ${spread("forward")}, that of the path of ` +
      `tail(${length}) ${spread("tail")}, and that of the backward path ${spread("backward")}.`
    );
  }

  function tabulate({ words, paths }, body) {
    body.replaceChildren(
      ...Object.entries(paths).map(([name, path]) => {
        const counts = path.slice(1).map((_, i) => i + 1 - kept(words[name], i + 1));
        const cells = [shown(deviation(path.slice(-LATE))), shown(path[STEPS])];
        cells.push(String(counts.reduce((sum, count) => sum + count)));
        return element(
          "tr",
          {},
          element("th", { scope: "row" }, name),
          ...cells.map((cell) => element("td", {}, cell)),
        );
      }),
    );
  }

  /** Some maps in words, in the order of application: descending, as a replay goes. */
  function told(maps) {
    const names = maps.map((i) => `T${i}`);
    if (names.length < 4) return names.join(", then ");
    return `${names[0]}, then ${names[1]}, and so on down to ${names.at(-1)}`;
  }

  /** What some first maps of a word have made: an earlier iterate of the order, or another point. */
  function point(word, maps) {
    const iterate = word(maps.length).every((letter, i) => letter === maps[i]);
    return iterate ? `θ(${maps.length})` : `what T${maps[0]} to T${maps.at(-1)} have made of θ(0)`;
  }

  /** For each order, all maps behind θ(n) as they are applied; those of this step are marked. */
  function replays(run, list) {
    const { step, words } = run;
    list.replaceChildren(
      ...Object.entries(words).map(([name, word]) => {
        const count = kept(word, step);
        const [before, now] = [word(step).slice(0, count), word(step).slice(count)];
        const text = `${called(name, run)}: from ${point(word, before)} apply ${told(now)}`;
        const box = (kind) => (i) => element("li", { class: kind }, `T${i}`);
        return element(
          "div",
          { class: name },
          element("p", {}, `${text} (${now.length} ${now.length === 1 ? "map" : "maps"}).`),
          element(
            "ol",
            { "aria-label": `All maps behind the ${name} iterate, in the order of application` },
            ...before.map(box("kept")),
            ...now.map(box("now")),
          ),
        );
      }),
    );
  }

  /** The numbers behind the picture, all digits. */
  function csv({ noise, paths }) {
    const names = Object.keys(paths);
    const row = (n) => [n, n ? noise[n - 1] : "", ...names.map((name) => paths[name][n])];
    const rows = Array.from({ length: STEPS + 1 }, (_, n) => row(n));
    return [["step", "noise", ...names], ...rows].map((cells) => cells.join(",")).join("\n");
  }
})();
