// Two pictures of NiiVue lie on each other: the image below, and what lies over it, cut by a mask of the page.
(async () => {
  "use strict";
  const told = JSON.parse(document.getElementById("volumes").textContent);
  const plate = document.querySelector(".volumes"), stage = plate.querySelector(".stage");
  const probe = document.createElement("canvas").getContext("webgl2");
  if (!probe || told.layers.length < 2) return; // the still pictures stay
  probe.getExtension("WEBGL_lose_context")?.loseContext();
  const make = (tag, attributes = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  };
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const layer = (name) => told.layers.find((l) => l.name === name);

  // Volumes, each loaded once for each picture that shows it.
  const loaded = new Map();
  const content = async (one) => {
    if (one.data) return bytes(one.data).buffer;
    const answer = await fetch(one.address);
    if (!answer.ok) throw new Error(`${one.title}: ${await answer.text()}`);
    return answer.arrayBuffer();
  };
  const image = (one, picture) => {
    const key = `${picture} ${one.name}`;
    if (!loaded.has(key)) {
      const spread = one.kind === "volume" ? (one.high - one.low) / 254 : 0; // the first colour is left to folds
      loaded.set(key, content(one).then((url) => niivue.NVImage.loadFromUrl({
        url, name: one.data ? "a.nii.gz" : "a.nii", colormap: one.name, cal_min: one.low - spread, cal_max: one.high,
      })));
    }
    return loaded.get(key);
  };
  // In 3-D what is dark is clear, else the first voxel on the way would hide all others.
  const clear = { grey: (i) => i / 2, labels: (i) => (i ? 255 : 0) };
  const viewer = async (canvas, further, solid = false) => {
    const nv = new niivue.Niivue({
      logLevel: "error", dragAndDropEnabled: false, loadingText: "", multiplanarShowRender: 0, dragMode: 0,
      crosshairColor: [0.35, 0.72, 1, 0.9], crosshairWidth: 0.5, crosshairWidthUnit: "mm", crosshairGap: 6, fontColor: [1, 1, 1, 1],
      showAllOrientationMarkers: true, scrollRequiresFocus: true, multiplanarPadPixels: 6, ...further,
    });
    for (const one of told.layers) {
      const table = bytes(one.table), column = (c) => Array.from({ length: 256 }, (_, i) => table[3 * i + c]);
      nv.addColormap(one.name, { R: column(0), G: column(1), B: column(2), A: column(0).map((_, i) => (solid && clear[one.kind] ? clear[one.kind](i) : 255)), I: [...Array(256).keys()] });
    }
    await nv.attachToCanvas(canvas, false);
    return nv;
  };

  const canvas = make("canvas", { className: "under", tabIndex: 0 }), above = make("canvas", { className: "above" });
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", "Three slices through the volumes with a crosshair. Arrow keys, page up and page down move it, space hides what lies over.");
  above.setAttribute("aria-hidden", "true");
  const views = make("div", { className: "views" }, make("div", {}, canvas), make("div", { className: "over" }, above));
  const over = views.lastElementChild;
  stage.append(views);
  stage.classList.add("live");
  let under, top;
  try {
    under = await viewer(canvas, {});
    top = await viewer(above, { interactive: false });
  } catch (error) {
    stage.classList.remove("live");
    views.remove();
    return;
  }

  const state = { under: told.layers[0].name, over: told.layers[1].name, way: "blend", share: { blend: 0.5, swipe: 0.5, checks: 0.5 }, hidden: false };
  const readout = plate.querySelector(".readout");
  const say = (text) => { readout.textContent = text; };
  const sign = (x, digits) => x.toFixed(digits).replace("-", "\u2212");
  const value = (one, x) => {
    if (one.kind === "labels") return one.values.length ? `label ${one.values[Math.round(x)] ?? 0}` : "";
    if (one.kind === "volume") return x < -4.5 ? "folded" : `\u00d7 ${(2 ** x).toFixed(2)}`;
    return one.kind === "signed" ? `${sign(x, 0)} %` : sign(x, Math.abs(x) < 10 ? 2 : 0);
  };
  const at = (nv) => nv.volumes[0].getValue(...nv.frac2vox(nv.scene.crosshairPos));
  const tell = () => {
    if (!under.volumes.length || !top.volumes.length) return;
    const place = under.frac2mm(under.scene.crosshairPos), axes = ["x", "y", "z"];
    const values = [[under, state.under], [top, state.over]].map(([nv, name]) => `${layer(name).title}: ${value(layer(name), at(nv))}`);
    say(`${axes.map((a, i) => `${a} ${sign(place[i], 1)}`).join(", ")} mm.  ${values.join(".  ")}.`);
  };

  // What lies over is cut to the three slices: all of each, right of a line, or every other square.
  const mask = () => {
    const share = state.share[state.way], pictures = [], places = [], sizes = [];
    const ratio = canvas.width / Math.max(canvas.clientWidth, 1);
    for (const tile of under.screenSlices) {
      const [x, y, w, h] = Array.from(tile.leftTopWidthHeight, (n) => n / ratio);
      const cut = state.way === "swipe" ? share * w : 0;
      const side = Math.round(12 + share * 76);
      if (w - cut < 1) continue;
      if (state.way === "checks") {
        // squares are drawn as a picture of the tile's size, so that nothing repeats beyond it
        const squares = [];
        for (let j = 0; j * side < h; j++)
          for (let i = j % 2; i * side < w; i += 2)
            squares.push(`M${i * side} ${j * side}h${Math.min(side, w - i * side)}v${Math.min(side, h - j * side)}h-${Math.min(side, w - i * side)}z`);
        const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${w}" height="${h}"><path d="${squares.join("")}"/></svg>`;
        pictures.push(`url("data:image/svg+xml,${encodeURIComponent(svg)}")`);
      } else pictures.push("linear-gradient(#000, #000)");
      places.push(`${x + cut}px ${y}px`);
      sizes.push(`${w - cut}px ${h}px`);
    }
    over.style.maskImage = pictures.join(", ") || "linear-gradient(transparent, transparent)";
    over.style.maskPosition = places.join(", ");
    over.style.maskSize = sizes.join(", ");
    over.style.maskRepeat = "no-repeat";
    over.style.opacity = state.way === "blend" ? share : 1;
    over.style.mixBlendMode = state.way === "blend" && layer(state.over).kind !== "grey" ? "screen" : "normal";
    over.style.visibility = state.hidden ? "hidden" : "";  // with display none it would be drawn without a size
  };
  const draw = under.drawScene.bind(under);
  under.drawScene = () => {
    draw();
    if (!under.volumes.length || !top.volumes.length) return;
    top.scene.crosshairPos = under.scene.crosshairPos.slice();
    top.scene.pan2Dxyzmm = under.scene.pan2Dxyzmm.slice();
    top.drawScene();
    mask();
    tell();
  };
  const put = (nv, one, volume) => {
    while (nv.volumes.length) nv.removeVolume(nv.volumes[0]);
    nv.setInterpolation(one.kind === "labels");
    nv.addVolume(volume);
  };
  let turn = 0;
  const show = async () => {
    const mine = ++turn;
    plate.setAttribute("aria-busy", "true");
    try {
      const [below, upon] = [layer(state.under), layer(state.over)];
      const [low, high] = await Promise.all([image(below, "under"), image(upon, "over")]);
      if (mine !== turn) return;
      const kept = under.volumes.length ? under.scene.crosshairPos.slice() : null;
      if (under.volumes[0] !== low) put(under, below, low);
      if (top.volumes[0] !== high) put(top, upon, high);
      under.scene.crosshairPos = kept || under.mm2frac(told.start);
      plate.querySelectorAll(".way").forEach((bar) => { bar.hidden = bar.dataset.layer !== state.over; });
      fit();
      under.drawScene();
      plate.dataset.shown = `${state.under} ${state.over}`;
    } catch (error) {
      say(error.message);
    }
    if (mine === turn) plate.removeAttribute("aria-busy");
  };

  // All three slices beside each other where there is room, else two and one.
  const fit = () => {
    const [x, y, z] = under.volumes[0].dimsRAS.slice(1).map((n, i) => n * under.volumes[0].pixDimsRAS[i + 1]);
    const width = views.clientWidth, wide = width >= 640;
    under.opts.multiplanarLayout = top.opts.multiplanarLayout = wide ? 3 : 2;
    const height = wide ? (width - 24) * Math.max(y, z) / (2 * x + y) : (width - 12) * (y + z) / (x + y);
    const wanted = `${Math.round(Math.min(Math.max(height + 12, 200), 900))}px`;
    if (views.style.height !== wanted) views.style.height = wanted;
  };
  new ResizeObserver(() => { if (under.volumes.length && top.volumes.length) { fit(); requestAnimationFrame(() => under.drawScene()); } }).observe(views);

  const choose = (title, key, layers, changed) => {
    const options = layers.map((l) => make("option", { value: l.name, textContent: l.title, selected: state[key] === l.name }));
    const list = make("select", { name: key }, ...options);
    list.addEventListener("change", () => { state[key] = list.value; changed(); });
    return make("label", {}, make("span", { textContent: title }), list);
  };
  const slider = make("input", { type: "range", min: "0", max: "100", value: "50" });
  const sliderName = make("span");
  const names = { blend: "Opacity", swipe: "Line", checks: "Size of squares" };
  const way = () => {
    slider.value = 100 * state.share[state.way];
    sliderName.textContent = names[state.way];
    mask();
  };
  slider.addEventListener("input", () => { state.share[state.way] = slider.value / 100; mask(); });
  const hide = (hidden) => {
    state.hidden = hidden;
    toggle.setAttribute("aria-pressed", String(hidden));
    mask();
  };
  const toggle = make("button", { type: "button", textContent: "Hide what lies over" });
  toggle.addEventListener("click", () => hide(!state.hidden));
  const ways = make("fieldset", {}, make("legend", { textContent: "By" }));
  for (const [name, title] of [["blend", "Blending"], ["swipe", "Swiping"], ["checks", "Checkerboard"]]) {
    const radio = make("input", { type: "radio", name: "way", value: name, checked: state.way === name });
    radio.addEventListener("change", () => { state.way = name; way(); });
    ways.append(make("label", {}, radio, title));
  }
  const solid = plate.querySelector(".solid");
  const deep = make("button", { type: "button", textContent: "Show in 3-D", id: "deep" });
  deep.setAttribute("aria-expanded", "false");
  const choices = plate.querySelector(".choices");
  choices.append(
    choose("Below", "under", told.layers.filter((l) => l.kind === "grey"), show),
    choose("Over it", "over", told.layers, () => { show(); solidShow(); }),
    ways, make("label", {}, sliderName, slider), make("span", { className: "buttons" }, toggle, deep));

  // The 3-D view costs much, so it is made when it is asked for; it shows what lies over, where that is no difference.
  let space = null;
  const solidShow = async () => {
    if (!space) return;
    const one = ["grey", "labels"].includes(layer(state.over).kind) ? layer(state.over) : layer(state.under);
    put(space, one, await image(one, "space"));
    space.drawScene();
    solid.dataset.shown = one.name;
  };
  deep.addEventListener("click", async () => {
    const wanted = solid.hidden;
    solid.hidden = !wanted;
    deep.textContent = wanted ? "Hide 3-D" : "Show in 3-D";
    deep.setAttribute("aria-expanded", String(wanted));
    if (!wanted || space) return;
    const view = make("canvas", { tabIndex: 0 });
    view.setAttribute("role", "img");
    view.setAttribute("aria-label", "The volume in 3-D; drag or use h, j, k and l to turn it");
    solid.append(make("div", {}, view));
    space = await viewer(view, { sliceType: 4, crosshairWidth: 0 }, true);
    solidShow();
  });

  const move = (x, y, z) => under.moveCrosshairInVox(x, y, z);
  const pick = (name) => { ways.querySelector(`[value=${name}]`).click(); };
  const keys = {
    ArrowLeft: () => move(-1, 0, 0), ArrowRight: () => move(1, 0, 0), ArrowUp: () => move(0, 1, 0), ArrowDown: () => move(0, -1, 0),
    PageUp: () => move(0, 0, 1), PageDown: () => move(0, 0, -1), " ": () => hide(!state.hidden),
    b: () => pick("blend"), s: () => pick("swipe"), c: () => pick("checks"),
  };
  views.addEventListener("keydown", (event) => {
    event.stopPropagation(); // NiiVue's own keys change things that the page does not show
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    keys[event.key]();
    under.drawScene();
    event.preventDefault();
  }, true);
  views.addEventListener("keyup", (event) => event.stopPropagation(), true);

  choices.hidden = readout.hidden = plate.querySelector(".turning").hidden = false;
  canvas.viewers = { under, top, space: () => space, state };
  way();
  await show();
})();
