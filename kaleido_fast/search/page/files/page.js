"use strict";

const by = (id) => document.getElementById(id);
const uploadMib = Number(document.body.dataset.uploadMib);
let image = null;   // the photograph that was dropped
let like = "";      // id of the product that others are compared with
let shown = null;   // the product in the dialog
let newest = 0;     // number of the search whose answer counts

function form(extra) {
  const data = new FormData();
  const values = like ? { like } : { text: by("text").value };
  for (const [name, value] of Object.entries({ ...values, ...extra })) data.append(name, value);
  if (image && !like) data.append("image", image);
  return data;
}

async function ask(path, data) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", body: data });
  } catch {
    throw new Error("no answer from the server");
  }
  const values = await answer.json().catch(() => ({ error: "the server answered without words" }));
  if (!answer.ok) throw new Error(values.error || "the server could not read the request");
  return values;
}

function say(text, isError = false) {
  by("status").textContent = text;
  by("status").classList.toggle("error", isError);
}

async function search() {
  const number = ++newest;
  if (!like && !image && !by("text").value.trim()) {
    by("results").replaceChildren();
    say("");
    return;
  }
  say("Searching …");
  try {
    const { hits } = await ask("/api/search", form({ category: by("category").value }));
    if (number !== newest) return;
    by("results").replaceChildren(...hits.map(card));
    const what = like ? ` like ${like}` : "";
    say(hits.length ? `The ${hits.length} nearest products${what}, the best first.` : "No product was found.");
  } catch (error) {
    if (number !== newest) return;
    by("results").replaceChildren();
    say(error.message, true);
  }
}

function element(kind, name, text) {
  const made = document.createElement(kind);
  made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function card(hit) {
  const item = element("li", "");
  const open = element("button", "open");
  const picture = element("img", "");
  picture.loading = "lazy";
  picture.alt = hit.text || hit.id;
  picture.src = `/photographs/${hit.product}/${hit.photograph}`;
  const bar = element("div", "bar"), filled = element("span", "");
  filled.style.width = `${Math.max(0, Math.min(1, hit.cosine)) * 100}%`;
  bar.append(filled);
  open.append(picture, element("span", "text", hit.text || hit.id),
    element("span", "facts", `${hit.id} · ${hit.subcategory || hit.category} · ${hit.score.toFixed(2)}`), bar);
  open.addEventListener("click", () => explain(hit));
  const more = element("button", "like", "More like this");
  more.addEventListener("click", () => follow(hit.id));
  item.append(open, more);
  return item;
}

function follow(id) {
  by("product").close();
  like = id;
  remember();
  search();
  by("status").scrollIntoView({ block: "nearest" });
}

// Of a share of the strongest loss; weak ones stay clear, so that the strong are seen.
const FLOOR = 0.2;
const tint = (share) => (share < FLOOR ? 0 : share * 0.6);

async function explain(hit) {
  shown = hit;
  by("product-text").textContent = hit.text || hit.id;
  by("product-facts").textContent = [hit.id, hit.category, hit.subcategory, `score ${hit.score.toFixed(3)}`]
    .filter(Boolean).join(" · ");
  by("square-picture").src = `/squares/${hit.product}/${hit.photograph}`;
  by("square-picture").alt = hit.text || hit.id;
  by("heat").replaceChildren();
  by("words").replaceChildren();
  by("words-title").textContent = "Looking for what made the match …";
  by("product").showModal();
  try {
    const why = await ask("/api/reasons", form({ product: hit.product, photograph: hit.photograph }));
    if (shown !== hit) return;
    const strongest = Math.max(1e-6, ...why.places);
    by("heat").style.gridTemplate = `repeat(${why.grid}, 1fr) / repeat(${why.grid}, 1fr)`;
    by("heat").replaceChildren(...why.places.map((loss) => {
      const cell = element("i", "");
      cell.style.opacity = tint(loss / strongest);
      return cell;
    }));
    const most = Math.max(1e-6, ...why.words.map(([, loss]) => loss));
    by("words-title").textContent = why.words.length ? `Words of the ${why.words_of} that made the match` : "";
    by("words").replaceChildren(...why.words.map(([word, loss]) => {
      const chip = element("span", "", word);
      chip.style.background = `rgb(232 89 12 / ${tint(loss / most)})`;
      return chip;
    }));
  } catch (error) {
    by("words-title").textContent = error.message;
  }
}

function take(file) {
  if (!file) return;
  if (file.size > uploadMib * 2 ** 20) {
    say(`a photograph of more than ${uploadMib} MiB; send a smaller one`, true);
    return;
  }
  image = file;
  like = "";
  by("preview").src = URL.createObjectURL(file);
  by("preview").hidden = by("forget").hidden = false;
  by("drop-text").textContent = `Products like ${file.name}`;
  remember();
  search();
}

function forget() {
  image = null;
  by("image").value = "";
  by("preview").hidden = by("forget").hidden = true;
  by("drop-text").textContent = "Drop a photograph here, or choose one";
}

function remember() {
  const values = { text: like ? "" : by("text").value, category: by("category").value, like };
  const kept = Object.entries(values).filter(([, value]) => value && value.length <= 200);
  history.pushState(null, "", kept.length ? `?${new URLSearchParams(kept)}` : "/");
}

function recall() {
  const values = new URLSearchParams(location.search);
  by("text").value = values.get("text") || "";
  by("category").value = values.get("category") || "";
  like = values.get("like") || "";
  search();
}

by("search").addEventListener("submit", (event) => {
  event.preventDefault();
  like = "";
  remember();
  search();
});
by("category").addEventListener("change", () => { remember(); search(); });
by("image").addEventListener("change", (event) => take(event.target.files[0]));
by("forget").addEventListener("click", () => { forget(); search(); });
by("close").addEventListener("click", () => by("product").close());
by("like").addEventListener("click", () => follow(shown.id));
by("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); by("image").click(); }
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    by("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
window.addEventListener("popstate", () => { forget(); recall(); });
recall();
