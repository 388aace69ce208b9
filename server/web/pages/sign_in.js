
"use strict";
// Only where a token is asked for: a browser sends one by script alone. It is kept until the page is closed.
const find = (selector, within = document) => within.querySelector(selector);
let token = "", query = location.search, timer = 0;

function take(fresh, name) { // only what has changed, so that what has the focus keeps it
  const [old, now] = [find(name), find(name, fresh)];
  if (old.innerHTML !== now.innerHTML) old.replaceChildren(...now.childNodes);
}

async function look() {
  clearTimeout(timer);
  let seconds = 15;
  try {
    const headers = { Authorization: `Bearer ${token}` };
    const answer = await fetch(`/worklist${query}`, { cache: "no-store", headers });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html"); // which runs no script
    for (const name of ["#counts", "#state", "#control", "#list"]) take(fresh, name);
    document.title = fresh.title;
    seconds = Number(find("#control", fresh).dataset.seconds);
  } catch {
    const note = document.createElement("p");
    note.className = "warning";
    note.append("The server does not answer: what is shown may be out of date.");
    find("#state").replaceChildren(note);
  }
  if (seconds > 0) timer = setTimeout(look, seconds * 1000);
}

document.addEventListener("submit", async event => {
  event.preventDefault();
  token = find("#token").value.trim();
  await look();
  (find("#token") || find("h1")).focus();
});

document.addEventListener("click", async event => {
  if (!event.target.matches("#control a")) return;
  event.preventDefault(); // a page that is loaded anew has forgotten the token
  query = event.target.search;
  await look();
  find("#control a")?.focus();
});
