(() => {
  "use strict";
  const table = document.querySelector("table.cohort");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = () => [...body.rows];
  if (!rows().length) return;
  const make = (tag, attributes = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  };
  const picture = make("img", { alt: "" });
  const none = make("p", { className: "none", textContent: "There is no picture: it failed." });
  const title = make("strong");
  const reason = make("span", { className: "reason" });
  const link = make("a", { textContent: "Open the report" });
  const step = (by) => select(rows()[Math.min(Math.max(rows().indexOf(current) + by, 0), rows().length - 1)]);
  const button = (text, by) => {
    const node = make("button", { type: "button", textContent: text });
    node.addEventListener("click", () => step(by));
    return node;
  };
  const said = make("p", { className: "said" }, title, " ", reason);
  said.setAttribute("aria-live", "polite");
  let current = null;
  const marks = cohortMarks(table, make, () => current, step);
  const viewer = make("section", { className: "viewer" },
    make("div", { className: "lightbox" }, picture, none),
    make("div", { className: "controls" }, make("span", { className: "buttons" }, button("Previous", -1), button("Next", 1)), ...marks.controls, link),
    said, marks.said);
  viewer.setAttribute("aria-label", "The chosen registration");
  const select = (row, follow = true) => {
    if (current) current.removeAttribute("aria-current");
    current = row;
    row.setAttribute("aria-current", "true");
    const thumb = row.querySelector("img");
    const anchor = row.querySelector("a");
    picture.hidden = !thumb;
    none.hidden = Boolean(thumb);
    if (thumb) { picture.src = thumb.src; picture.alt = thumb.alt; }
    link.hidden = !anchor;
    if (anchor) link.href = anchor.href;
    title.textContent = `${rows().indexOf(row) + 1} of ${rows().length}: ${row.dataset.name}`;
    reason.textContent = [...row.querySelectorAll(".reason")].map((n) => n.textContent).join("; ");
    marks.show();
    const box = row.getBoundingClientRect();
    const top = viewer.getBoundingClientRect().bottom;
    if (follow && (box.top < top || box.bottom > innerHeight)) scrollBy({ top: box.top - top - 40, behavior: "instant" });
  };
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !event.target.closest("a")) select(row);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "o" && !link.hidden) link.click();
    else if (marks.keys[event.key]) marks.keys[event.key]();
    else return;
    event.preventDefault();
  });
  const value = (row, key) => {
    const text = row.dataset[key.replace(/_(.)/g, (_, c) => c.toUpperCase())] ?? "";
    return key === "name" ? text : key === "mark" ? MARKS.indexOf(text) : text === "" ? NaN : Number(text);
  };
  const MARKS = ["fail", "", "pass"];
  const heads = [...table.querySelectorAll("th[data-key]")];
  heads.forEach((head) => {
    const sort = make("button", { type: "button", textContent: head.textContent });
    head.replaceChildren(sort);
    sort.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = head.dataset.key;
      const order = (a, b) => {
        const x = value(a, key), y = value(b, key);
        if (key === "name") return (up ? 1 : -1) * x.localeCompare(y, undefined, { numeric: true });
        if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
        return (up ? 1 : -1) * (x - y);
      };
      body.append(...rows().sort(order));
      select(rows()[0]);
    });
  });
  table.closest(".table").before(viewer);
  document.querySelectorAll(".turning").forEach((node) => { node.hidden = false; });
  select(rows()[0], false);
})();
