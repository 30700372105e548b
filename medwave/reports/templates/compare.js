(() => {
  "use strict";
  const plate = document.getElementById("images");
  if (!plate) return;
  const pictures = [...plate.querySelectorAll("img[data-stage]")];
  const stages = [...new Set(pictures.map((p) => p.dataset.stage))];
  const planes = [...new Set(pictures.map((p) => p.dataset.plane))];
  const find = (stage, plane) => pictures.find((p) => p.dataset.stage === stage && p.dataset.plane === plane);
  if (stages.length < 2) return;
  const make = (tag, attributes = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  };
  const reference = stages[0];
  const strip = make("div", { className: "strip" });
  const overs = planes.map((plane) => {
    const under = find(reference, plane);
    const over = make("img", { className: "over", alt: "" });
    const figure = make("figure", {}, make("img", { src: under.src, alt: under.alt, width: under.width, height: under.height }), over);
    figure.style.setProperty("--shape", under.naturalWidth / under.naturalHeight || 1);
    under.decode?.().then(() => figure.style.setProperty("--shape", under.naturalWidth / under.naturalHeight)).catch(() => {});
    strip.append(figure);
    return over;
  });
  const show = (stage) => overs.forEach((over, i) => {
    const source = find(stage, planes[i]);
    over.src = source.src;
    over.alt = source.alt;
  });
  const slider = make("input", { type: "range", min: "0", max: "100", value: "50" });
  slider.setAttribute("aria-label", `Border between ${reference.toLowerCase()} (left) and the chosen image (right)`);
  const move = () => strip.style.setProperty("--cut", slider.value / 100);
  slider.addEventListener("input", move);
  const choices = make("fieldset", {}, make("legend", { textContent: "Right of the line" }));
  stages.slice(1).forEach((stage, i, all) => {
    const radio = make("input", { type: "radio", name: "compare", checked: i === all.length - 1 });
    radio.addEventListener("change", () => show(stage));
    choices.append(make("label", {}, radio, stage));
  });
  show(stages[stages.length - 1]);
  move();
  plate.append(make("div", { className: "compare" },
    make("h4", { textContent: `${reference} image against the others` }),
    make("div", { className: "lightbox" }, strip),
    make("div", { className: "controls" }, make("label", {}, "Line", slider), choices)));
})();
