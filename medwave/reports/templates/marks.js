// Marks of a person for each row of the table: saved by `medwave view`, or kept here and downloaded as qc.csv.
// Gives cohort.js one object: controls to show, keys to answer, and what to call when another row is chosen.
const cohortMarks = (table, make, current, step) => {
  "use strict";
  const served = document.getElementById("served");
  const told = served ? JSON.parse(served.textContent) : {};
  const store = `medwave marks ${location.pathname}`;
  const kept = () => { try { return JSON.parse(localStorage.getItem(store)) || {}; } catch { return {}; } };
  let marks = served ? told.marks || {} : kept();
  const rows = () => [...table.tBodies[0].rows];
  const names = { pass: "Pass", fail: "Fail", "": "Unmarked" };

  table.tHead.rows[0].cells[1].after(make("th", { scope: "col", textContent: "Mark" }));
  table.tHead.rows[0].cells[2].dataset.key = "mark";
  rows().forEach((row) => row.cells[1].after(make("td", { className: "given" })));

  const said = make("p", { className: "marked" });
  said.setAttribute("role", "status");
  const show = () => {
    rows().forEach((row) => {
      const mark = marks[row.dataset.name] || "";
      row.dataset.mark = mark;
      row.querySelector(".given").replaceChildren(mark ? make("span", { className: `mark ${mark}`, textContent: names[mark] }) : "");
    });
    const mark = current().dataset.mark;
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.value === mark && mark !== "")));
    const count = (wanted) => rows().filter((row) => row.dataset.mark === wanted).length;
    said.textContent = `Marks: ${count("pass")} pass, ${count("fail")} fail, ${count("")} none yet` + (problem ? `. ${problem}` : "");
    said.classList.toggle("problem", Boolean(problem));
  };

  let problem = told.error || "", sending = Promise.resolve();
  const save = async (name, mark) => {
    if (!served) {
      marks = { ...marks, [name]: mark };
      try { localStorage.setItem(store, JSON.stringify(marks)); } catch { problem = "They are lost when this page is closed: download them."; }
      return;
    }
    try {
      const answer = await fetch("qc.csv", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ name, mark }) });
      if (!answer.ok) throw new Error(await answer.text());
      marks = (await answer.json()).marks;
      problem = "";
    } catch (error) {
      problem = `Not saved: ${error.message}`;
    }
  };
  // One after the other, so that the last mark given is the last one written.
  const give = (mark) => {
    const row = current();
    sending = sending.then(() => save(row.dataset.name, mark)).then(show);
    if (mark) step(1);
  };
  const buttons = Object.keys(names).map((mark) => {
    const button = make("button", { type: "button", value: mark, textContent: mark ? names[mark] : "Take back" });
    button.addEventListener("click", () => give(mark));
    return button;
  });

  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const download = () => {
    const given = rows().filter((row) => row.dataset.mark).map((row) => `${cell(row.dataset.name)},${row.dataset.mark}\n`);
    const link = make("a", { href: URL.createObjectURL(new Blob(["name,mark\n", ...given], { type: "text/csv" })), download: "qc.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };
  const controls = [make("span", { className: "buttons marks" }, ...buttons)];
  if (!served) {
    const button = make("button", { type: "button", textContent: "Download qc.csv" });
    button.addEventListener("click", download);
    controls.push(button);
  }
  return { controls, said, show, keys: { p: () => give("pass"), f: () => give("fail"), u: () => give("") } };
};
