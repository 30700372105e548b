// Put into the pages that `medwave view` serves: a line of links to what the server offers beside the page.
document.addEventListener("DOMContentLoaded", () => {
  "use strict";
  const told = JSON.parse(document.getElementById("served").textContent);
  const links = [
    [told.up, told.up && told.up.endsWith("index.html") ? "All registrations" : "Report"],
    [told.volumes, "Turn through the volumes"],
  ].filter(([address]) => address);
  const page = document.querySelector(".page");
  if (!links.length || !page) return;
  const nav = document.createElement("nav");
  nav.className = "served";
  nav.setAttribute("aria-label", "Other pages");
  for (const [href, textContent] of links) nav.append(Object.assign(document.createElement("a"), { href, textContent }));
  page.prepend(nav);
});
