"use strict";
// The panel in 3-D: two views of one scene, drawn by plotly.js when they first come into sight.
(() => {
  const root = document.getElementById("explore-panel");
  if (!root) return;
  const { keys, scenes } = JSON.parse(document.getElementById("explore-data").textContent);
  const choice = (name) => root.querySelector(`[data-choice="${name}"]`);
  const toggle = (trace) => root.querySelector(`input[data-trace="${trace}"]`);
  const state = root.querySelector(".state");
  const STROKE = 8; // points a gripper: four strokes of two
  const HIGH = 0.15; // metres above the table where the lightest colour is reached
  const CLOUDS = ["observed", "completed", "truth"];
  const [NEAREST, FARTHEST, STEEPEST] = [0.1, 8, 1.5]; // distances of the start camera's, radians

  const views = [...root.querySelectorAll(".viewer")].map((element, side) => ({
    side,
    element,
    stage: element.querySelector(".stage"),
    arm: element.querySelector("select"),
    camera: null,
    pending: 0,
  }));
  const scene = () => scenes[Number(choice("scene").value)];
  const armOf = (view) => scene().arms[view.arm.selectedIndex];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const escapeText = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function mixed(colour, other, share) {
    const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    return `rgb(${parts.map((part) => Math.round(part * (1 - share) + other * share)).join(",")})`;
  }

  function unpack(text) {
    const bytes = Uint8Array.from(atob(text || ""), (character) => character.charCodeAt(0));
    const steps = new DataView(bytes.buffer);
    const count = bytes.length / 6;
    const axis = (at) => Float32Array.from({ length: count }, (_, i) => steps.getInt16(2 * (at * count + i), true) * scene().step);
    return [axis(0), axis(1), axis(2)];
  }

  function cloud(view, name) {
    const own = scene();
    let packed = name === "completed" ? armOf(view).completed : own[name];
    if (packed === "truth") packed = own.truth;
    const [x, y, z] = unpack(packed);
    const size = { observed: 2.3, completed: 1.4, truth: 1.2 }[name];
    const colour = css(keys.find((key) => key.trace === name).variable);
    // Darker below, lighter above: a flat colour would hide the shape.
    const colorscale = [[0, mixed(colour, 0, 0.35)], [0.6, colour], [1, mixed(colour, 255, 0.25)]];
    const marker = { size, color: z, colorscale, cmin: scene().floor, cmax: scene().floor + HIGH, showscale: false, line: { width: 0 } };
    return { type: "scatter3d", mode: "markers", x, y, z, marker, hoverinfo: "skip", visible: toggle(name).checked };
  }

  function grippers(view, key) {
    const arm = armOf(view);
    const [x, y, z] = unpack(arm.strokes);
    const line = { x: [], y: [], z: [], text: [] };
    arm.outcomes.forEach((outcome, index) => {
      if (outcome !== key.trace || index >= Number(choice("most").value)) return;
      const friction = arm.friction[index] === null ? "fails at every friction" : `min_friction ${arm.friction[index]}`;
      const text = `${escapeText(key.text)}<br>confidence rank ${arm.rank[index]} (${arm.confidence[index]})<br>${friction}<br>object ${escapeText(arm.object[index])}`;
      for (let at = STROKE * index; at < STROKE * (index + 1); at += 2) {
        line.x.push(x[at], x[at + 1], null);
        line.y.push(y[at], y[at + 1], null);
        line.z.push(z[at], z[at + 1], null);
        line.text.push(text, text, "");
      }
    });
    const drawn = { color: css(key.variable), width: 5 };
    return { type: "scatter3d", mode: "lines", ...line, line: drawn, hoverinfo: "text", connectgaps: false, visible: toggle(key.trace).checked };
  }

  function floor() {
    const { half, floor: z } = scene();
    const reach = 0.8 * half;
    const [x, y] = [[-reach, reach, reach, -reach, -reach], [-reach, -reach, reach, reach, -reach]];
    return { type: "scatter3d", mode: "lines", x, y, z: x.map(() => z), line: { color: css("grid"), width: 3 }, hoverinfo: "skip" };
  }

  // The axes span -half..half, which plotly shows as a cube of edge 1.
  function start() {
    const { clientWidth, clientHeight } = views[0].stage;
    const back = Math.max(1, clientHeight / clientWidth); // the field of view is that of the height
    const [x, y, z] = scene().eye.map((value) => (value * back) / (2 * scene().half));
    return { eye: { x, y, z }, center: { x: 0, y: 0, z: 0 }, up: { x: 0, y: 0, z: 1 }, projection: { type: "perspective" } };
  }

  function layout(view) {
    const half = scene().half;
    const axis = { visible: false, range: [-half, half], autorange: false, showspikes: false, title: { text: "" }, showticklabels: false };
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 0, r: 0, t: 0, b: 0 },
      showlegend: false,
      hoverlabel: { bgcolor: css("paper"), bordercolor: css("muted"), font: { color: css("fg"), size: 13 }, align: "left" },
      scene: { xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "cube", bgcolor: "rgba(0,0,0,0)", dragmode: "turntable", camera: view.camera },
    };
  }

  function draw(view) {
    const traces = [floor(), ...CLOUDS.filter((name) => toggle(name)).map((name) => cloud(view, name))];
    const outcomes = keys.filter((key) => !CLOUDS.includes(key.trace));
    traces.push(...outcomes.map((key) => grippers(view, key)));
    const worth = view.element.querySelector(".worth");
    worth.textContent = armOf(view).note;
    return Plotly.react(view.stage, traces, layout(view), { displayModeBar: false, responsive: true, scrollZoom: false });
  }

  function count() {
    const most = Number(choice("most").value);
    for (const key of keys.filter((item) => !CLOUDS.includes(item.trace))) {
      const counts = views.map((view) => armOf(view).outcomes.slice(0, most).filter((outcome) => outcome === key.trace).length);
      toggle(key.trace).closest("label").querySelector("output").textContent = counts.join(" | ");
    }
  }

  const redraw = (which = views) => {
    count();
    return Promise.all(which.map(draw));
  };

  const same = (a, b) => ["eye", "center", "up"].every((part) => ["x", "y", "z"].every((axis) => Math.abs(a[part][axis] - b[part][axis]) < 1e-9));

  // Sets a view's camera at most once a frame; the other view follows where they are linked.
  function look(view, camera) {
    view.camera = camera;
    if (!view.pending) {
      view.pending = requestAnimationFrame(() => {
        view.pending = 0;
        Plotly.relayout(view.stage, { "scene.camera": view.camera });
      });
    }
  }

  function turned(view, camera) {
    if (!camera || same(camera, view.camera)) return;
    view.camera = camera;
    if (choice("link").checked) look(views[1 - view.side], structuredClone(camera));
  }

  function step(view, name) {
    const camera = structuredClone(view.camera);
    const { eye, center } = camera;
    const [x, y, z] = [eye.x - center.x, eye.y - center.y, eye.z - center.z];
    let [distance, around, above] = [Math.hypot(x, y, z), Math.atan2(y, x), Math.atan2(z, Math.hypot(x, y))];
    const usual = Math.hypot(...Object.values(start().eye));
    around += { left: -0.15, right: 0.15 }[name] || 0;
    above = Math.max(-STEEPEST, Math.min(STEEPEST, above + ({ up: 0.12, down: -0.12 }[name] || 0)));
    distance *= { in: 1 / 1.15, out: 1.15 }[name] || 1;
    distance = Math.max(NEAREST * usual, Math.min(FARTHEST * usual, distance));
    const flat = distance * Math.cos(above);
    camera.eye = { x: center.x + flat * Math.cos(around), y: center.y + flat * Math.sin(around), z: center.z + distance * Math.sin(above) };
    look(view, camera);
    if (choice("link").checked) look(views[1 - view.side], structuredClone(camera));
  }

  function listen() {
    const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", "+": "in", "=": "in", "-": "out" };
    for (const view of views) {
      for (const event of ["plotly_relayouting", "plotly_relayout"]) {
        view.stage.on(event, (change) => turned(view, change["scene.camera"]));
      }
      view.arm.addEventListener("change", () => redraw([view]));
      view.element.querySelectorAll("[data-step]").forEach((button) => button.addEventListener("click", () => step(view, button.dataset.step)));
      view.stage.addEventListener("keydown", (event) => {
        if (!KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        step(view, KEYS[event.key]);
      });
      view.stage.addEventListener("pointerdown", () => view.stage.focus({ preventScroll: true }), true);
    }
    root.querySelectorAll("input[data-trace]").forEach((box) => {
      const index = 1 + keys.findIndex((key) => key.trace === box.dataset.trace);
      box.addEventListener("change", () => views.forEach((view) => Plotly.restyle(view.stage, { visible: box.checked }, [index])));
    });
    const reset = () => views.forEach((view) => (view.camera = start()));
    choice("reset").addEventListener("click", () => views.forEach((view) => look(view, start())));
    choice("scene").addEventListener("change", () => (reset(), redraw()));
    choice("most").addEventListener("change", () => redraw());
    choice("link").addEventListener("change", (event) => event.target.checked && look(views[1], structuredClone(views[0].camera)));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
  }

  // The wheel scrolls the page, unless a view has the focus: plotly would take it everywhere.
  for (const view of views) {
    const wheel = (event) => {
      event.stopPropagation();
      if (!view.camera || (!event.ctrlKey && document.activeElement !== view.stage)) return;
      event.preventDefault();
      step(view, event.deltaY < 0 ? "in" : "out");
    };
    view.stage.addEventListener("wheel", wheel, { capture: true, passive: false });
  }

  function hasWebGL() {
    const context = document.createElement("canvas").getContext("webgl");
    context?.getExtension("WEBGL_lose_context")?.loseContext();
    return Boolean(context);
  }

  function fail(why) {
    root.dataset.state = "failed";
    state.textContent = `${why} The pictures below show the same views.`;
  }

  // plotly reads its letters back from small canvases, and browsers warn who did not announce that.
  function announceReading() {
    const original = HTMLCanvasElement.prototype.getContext;
    HTMLCanvasElement.prototype.getContext = function (kind, options) {
      return original.call(this, kind, kind === "2d" ? { ...options, willReadFrequently: true } : options);
    };
  }

  async function begin() {
    if (!hasWebGL()) return fail("This browser shows no WebGL, which the panel needs.");
    announceReading();
    const program = document.createElement("script");
    program.textContent = document.getElementById("plotly-source").textContent;
    document.head.append(program);
    if (!window.Plotly) return fail("The panel's program did not start.");
    for (const view of views) view.camera = start();
    try {
      await redraw();
    } catch (error) {
      return fail(`The panel could not be drawn (${error.message}).`);
    }
    listen();
    state.textContent = "";
    root.dataset.state = "ready";
  }

  let begun = false;
  const wake = () => {
    if (begun) return;
    begun = true;
    watch.disconnect();
    state.textContent = "Drawing …";
    setTimeout(begin, 30); // the words come first
  };
  const watch = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && wake(), { rootMargin: "300px" });
  watch.observe(root);
  root.addEventListener("focusin", wake);
})();
