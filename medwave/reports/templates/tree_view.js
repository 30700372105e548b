(() => {
  "use strict";
  const plate = document.getElementById("tree-view");
  const stage = plate.querySelector(".stage");
  const data = JSON.parse(document.getElementById("tree-data").textContent);
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("webgl2", { antialias: true, alpha: false });
  if (!context) return; // the still pictures stay

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const shorts = (text) => new Uint16Array(bytes(text).buffer);
  const longs = (text) => new Uint32Array(bytes(text).buffer);
  const longest = Math.max(...data.size);
  const unit = 2 / longest; // the longest side of the box is 2 in the scene
  const middle = data.size.map((s) => s / 2);
  // y runs down and z away from the viewer: a half turn around x
  const place = (x, y, z) => new THREE.Vector3((x - middle[0]) * unit, (middle[1] - y) * unit, (middle[2] - z) * unit);
  const unpack = (text) => {
    const whole = shorts(text);
    const at = (i, axis) => data.low[axis] + (whole[3 * i + axis] / 65535) * (data.high[axis] - data.low[axis]);
    return Array.from({ length: whole.length / 3 }, (_, i) => place(at(i, 0), at(i, 1), at(i, 2)));
  };

  const renderer = new THREE.WebGLRenderer({ canvas, context, antialias: true });
  renderer.setPixelRatio(Math.min(window.devicePixelRatio || 1, 2));
  const scene = new THREE.Scene();
  scene.background = new THREE.Color(0x000000);
  const camera = new THREE.PerspectiveCamera(30, 1, 0.05, 50);
  scene.add(new THREE.AmbientLight(0xffffff, 1.5), camera);
  const lamp = new THREE.DirectionalLight(0xffffff, 2.1);
  lamp.position.set(0.6, 1.1, 1.6);
  camera.add(lamp);

  // The walls carry the projections and are seen from inside only, so those in front are never in the way.
  const walls = new THREE.Group();
  const [X, Y, Z] = data.size;
  const wall = (plane, corner, across, down) => {
    const source = new Image(); // a copy: an image on the page tells the size at which it is laid out
    source.src = document.querySelector(`img[data-layer="image"][data-plane="${plane}"]`).src;
    const texture = new THREE.Texture(source);
    texture.colorSpace = THREE.SRGBColorSpace;
    const [a, b, c] = [corner, across, down].map((p) => place(...p));
    const d = b.clone().add(c).sub(a);
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array([a, b, c, d].flatMap((p) => [p.x, p.y, p.z])), 3));
    geometry.setAttribute("uv", new THREE.BufferAttribute(new Float32Array([0, 1, 1, 1, 0, 0, 1, 0]), 2));
    const normal = b.clone().sub(a).cross(c.clone().sub(a));
    geometry.setIndex(normal.dot(a.clone().add(d)) < 0 ? [0, 1, 2, 2, 1, 3] : [0, 2, 1, 2, 3, 1]);
    const mesh = new THREE.Mesh(geometry, new THREE.MeshBasicMaterial({ map: texture, color: 0xa4a4a4 }));
    mesh.renderOrder = -1;
    // a picture that is not decoded yet has no size, which a texture must not see
    source.decode().then(() => { texture.needsUpdate = true; walls.add(mesh); redraw(); }).catch(() => {});
  };
  for (const z of [0, Z]) wall("xy", [0, 0, z], [X, 0, z], [0, Y, z]);
  for (const y of [0, Y]) wall("xz", [0, y, 0], [X, y, 0], [0, y, Z]);
  for (const x of [0, X]) wall("zy", [x, 0, 0], [x, 0, Z], [x, Y, 0]);
  scene.add(walls);
  const box = new THREE.BoxGeometry(X * unit, Y * unit, Z * unit);
  scene.add(new THREE.LineSegments(new THREE.EdgesGeometry(box), new THREE.LineBasicMaterial({ color: 0x3a4149 })));

  // Each line becomes a tube whose rings are carried along without twist.
  const points = unpack(data.points);
  const radii = Array.from(shorts(data.radius), (r) => Math.max((r / 65535) * data.thickest * unit, 0.0042));
  const starts = longs(data.starts);
  const sides = points.length > 6000 ? 5 : 7;
  const tubes = () => {
    const position = new Float32Array(points.length * sides * 3);
    const normal = new Float32Array(points.length * sides * 3);
    const index = [];
    const along = new THREE.Vector3(), side = new THREE.Vector3(), up = new THREE.Vector3(), out = new THREE.Vector3();
    for (let l = 0; l + 1 < starts.length; l++) {
      side.set(0, 0, 0);
      for (let i = starts[l]; i < starts[l + 1]; i++) {
        const before = points[Math.max(i - 1, starts[l])], after = points[Math.min(i + 1, starts[l + 1] - 1)];
        along.subVectors(after, before).normalize();
        side.addScaledVector(along, -side.dot(along));
        if (side.lengthSq() < 1e-6) {
          side.set(0, 1, 0);
          if (Math.abs(along.y) > 0.8) side.set(1, 0, 0);
          side.addScaledVector(along, -side.dot(along));
        }
        side.normalize();
        up.crossVectors(along, side);
        for (let s = 0; s < sides; s++) {
          const angle = (2 * Math.PI * s) / sides, at = 3 * (i * sides + s);
          out.copy(side).multiplyScalar(Math.cos(angle)).addScaledVector(up, Math.sin(angle));
          out.toArray(normal, at);
          out.multiplyScalar(radii[i]).add(points[i]).toArray(position, at);
          if (i + 1 < starts[l + 1]) {
            const a = i * sides + s, b = i * sides + ((s + 1) % sides);
            index.push(a, b, a + sides, b, b + sides, a + sides);
          }
        }
      }
    }
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(position, 3));
    geometry.setAttribute("normal", new THREE.BufferAttribute(normal, 3));
    geometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(position.length), 3));
    geometry.setIndex(index);
    return geometry;
  };
  const body = tubes();
  scene.add(new THREE.Mesh(body, new THREE.MeshLambertMaterial({ vertexColors: true })));
  const ball = new THREE.SphereGeometry(1, 24, 16), cream = new THREE.MeshLambertMaterial({ color: 0xfff2d6 });
  for (const [x, y, z, r] of data.somata) {
    const soma = new THREE.Mesh(ball, cream);
    soma.position.copy(place(x, y, z));
    soma.scale.setScalar(Math.max(r * unit, 0.012));
    scene.add(soma);
  }
  const paint = (key) => {
    const way = data.colours[key], table = bytes(way.table), level = bytes(way.level), colour = new THREE.Color();
    const target = body.getAttribute("color");
    for (let i = 0; i < points.length; i++) {
      const [r, g, b] = table.subarray(3 * level[i], 3 * level[i] + 3);
      colour.setRGB(r / 255, g / 255, b / 255, THREE.SRGBColorSpace);
      for (let s = 0; s < sides; s++) colour.toArray(target.array, 3 * (i * sides + s));
    }
    target.needsUpdate = true;
    plate.querySelectorAll(".way").forEach((bar) => { bar.hidden = bar.dataset.way !== key; });
    redraw();
  };
  let gold = null;
  if (data.gold) {
    const there = unpack(data.gold.points), begins = longs(data.gold.starts), ends = [];
    for (let l = 0; l + 1 < begins.length; l++)
      for (let i = begins[l]; i + 1 < begins[l + 1]; i++) ends.push(...there[i].toArray(), ...there[i + 1].toArray());
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(ends), 3));
    gold = new THREE.LineSegments(geometry, new THREE.LineBasicMaterial({ color: data.goldColour }));
    scene.add(gold);
  }

  const controls = new THREE.OrbitControls(camera, canvas);
  controls.enablePan = false;
  controls.enableZoom = false; // until the view is clicked, the wheel scrolls the page
  controls.autoRotateSpeed = 1.1;
  canvas.style.touchAction = "pan-y";
  // The part of the box that holds the tree, with some air, fills the picture however far it has turned.
  const low = new THREE.Vector3(Infinity, Infinity, Infinity), high = low.clone().negate();
  points.forEach((p) => { low.min(p); high.max(p); });
  const centre = low.clone().add(high).multiplyScalar(0.5);
  const half = high.sub(low).multiplyScalar(0.55).addScalar(0.03);
  const corners = [-1, 1].flatMap((x) => [-1, 1].flatMap((y) => [-1, 1].map((z) => new THREE.Vector3(x, y, z).multiply(half))));
  const reach = (polar) => {
    const tall = Math.tan((camera.fov * Math.PI) / 360) * 1.1;
    let away = 0;
    for (let turned = 0; turned < 360; turned += 10) {
      const towards = new THREE.Vector3().setFromSphericalCoords(1, polar, (turned * Math.PI) / 180);
      const right = new THREE.Vector3(towards.z, 0, -towards.x).normalize();
      const up = towards.clone().cross(right);
      for (const corner of corners) {
        const near = corner.dot(towards);
        away = Math.max(away, near + Math.abs(corner.dot(up)) / tall, near + Math.abs(corner.dot(right)) / (tall * camera.aspect));
      }
    }
    return away;
  };
  const home = () => {
    const polar = (72 * Math.PI) / 180, first = (26 * Math.PI) / 180;
    const away = reach(polar);
    camera.position.setFromSphericalCoords(away, polar, first).add(centre);
    controls.minDistance = 0.1 * away;
    controls.maxDistance = 3 * away;
    controls.target.copy(centre);
    controls.update();
    redraw();
  };

  // A frame is drawn when something moved, and while it turns only where it can be seen.
  let waiting = 0, seen = true, turning = false;
  const draw = () => renderer.render(scene, camera);
  const frame = (now) => {
    waiting = 0;
    if (turning && seen && !document.hidden) {
      controls.update(frame.last ? Math.min((now - frame.last) / 1000, 0.1) : 0.016);
      redraw();
    }
    frame.last = now;
    draw();
  };
  const redraw = () => { waiting ||= requestAnimationFrame(frame); };
  const turn = (on) => {
    turning = controls.autoRotate = on;
    frame.last = 0;
    button.textContent = on ? "Stop turning" : "Turn";
    button.setAttribute("aria-pressed", String(on));
    redraw();
  };

  const make = (tag, attributes = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  };
  const choices = make("fieldset", {}, make("legend", { textContent: "Colour" }));
  plate.querySelectorAll(".way").forEach((bar, i) => {
    const radio = make("input", { type: "radio", name: "tree-colour", value: bar.dataset.way, checked: i === 0 });
    radio.addEventListener("change", () => paint(bar.dataset.way));
    choices.append(make("label", {}, radio, bar.dataset.name));
  });
  const shown = make("fieldset", {}, make("legend", { textContent: "Show" }));
  const toggle = (text, object, change) => {
    const check = make("input", { type: "checkbox", checked: true });
    check.addEventListener("change", () => { object.visible = check.checked; change?.(check.checked); redraw(); });
    shown.append(make("label", {}, check, text));
  };
  toggle("Volume", walls);
  if (gold) toggle("Gold tree", gold, (on) => plate.querySelectorAll(".gold-key").forEach((k) => { k.hidden = !on; }));
  const button = make("button", { type: "button", id: "turn" });
  button.addEventListener("click", () => turn(!turning));
  const back = make("button", { type: "button", textContent: "Reset" });
  back.addEventListener("click", home);
  plate.querySelector(".legend").before(make("div", { className: "controls" }, choices, shown, make("span", { className: "buttons" }, button, back)));
  plate.querySelector(".turning").hidden = false;
  plate.querySelectorAll(".gold-key").forEach((key) => { key.hidden = false; });

  const stop = () => { if (turning) turn(false); };
  controls.addEventListener("change", redraw);
  canvas.addEventListener("pointerdown", () => { stop(); canvas.focus({ preventScroll: true }); });
  canvas.addEventListener("focus", () => { controls.enableZoom = true; });
  canvas.addEventListener("blur", () => { controls.enableZoom = false; });
  canvas.addEventListener("wheel", () => { if (controls.enableZoom) stop(); }, { passive: true });
  const step = Math.PI / 24;
  const orbit = (azimuth, polar, zoom) => {
    const away = camera.position.clone().sub(centre);
    const r = away.length(), theta = Math.atan2(away.x, away.z) + azimuth;
    const phi = Math.min(Math.max(Math.acos(away.y / r) + polar, 0.02), Math.PI - 0.02);
    camera.position.setFromSphericalCoords(Math.min(Math.max(r * zoom, controls.minDistance), controls.maxDistance), phi, theta).add(centre);
    controls.update();
    redraw();
  };
  const keys = {
    ArrowLeft: () => orbit(-step, 0, 1), ArrowRight: () => orbit(step, 0, 1),
    ArrowUp: () => orbit(0, -step, 1), ArrowDown: () => orbit(0, step, 1),
    "+": () => orbit(0, 0, 0.9), "=": () => orbit(0, 0, 0.9), "-": () => orbit(0, 0, 1 / 0.9), Home: home,
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " ") turn(!turning);
    else if (keys[event.key]) { stop(); keys[event.key](); }
    else return;
    event.preventDefault();
  });

  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", stage.dataset.alt);
  canvas.redraw = draw;
  stage.append(canvas);
  stage.classList.add("live");
  canvas.addEventListener("webglcontextlost", () => { stop(); stage.classList.remove("live"); });
  canvas.addEventListener("webglcontextrestored", () => { stage.classList.add("live"); redraw(); });
  const fit = () => {
    const width = stage.clientWidth, height = Math.round(Math.min(Math.max(width * 0.62, 320), window.innerHeight * 0.82, 680));
    renderer.setSize(width, height, false);
    camera.aspect = width / height;
    camera.updateProjectionMatrix();
    redraw();
  };
  new ResizeObserver(fit).observe(stage);
  new IntersectionObserver((entries) => { seen = entries[0].isIntersecting; redraw(); }).observe(stage);
  document.addEventListener("visibilitychange", redraw);
  fit();
  home();
  paint("order");
  turn(!window.matchMedia("(prefers-reduced-motion: reduce)").matches);
})();
