// The list of photographs: one line each, with what is happening to it.

import { describe } from "./words.js";

const NO_PICTURE = "static/no_picture.svg";

export class Tray {
  #list = document.getElementById("photos");
  #section = document.getElementById("tray");
  #items = new Map();

  // `on`: { select, remove }, each called with a photograph
  constructor(on) {
    this.on = on;
  }

  add(photo) {
    const item = document.createElement("li");
    const select = make("button", { type: "button", className: "entry" });
    const thumbnail = make("img", { className: "thumbnail", alt: "", src: photo.address });
    thumbnail.addEventListener("error", () => (thumbnail.src = NO_PICTURE), { once: true });
    const name = make("span", { className: "name", textContent: photo.file.name });
    const state = make("span", { className: "state" });
    const bar = make("progress", { max: 1 });
    bar.setAttribute("aria-hidden", "true"); // the words beside it say the same
    select.append(thumbnail, name, state, bar);
    select.addEventListener("click", () => this.on.select(photo));
    const remove = make("button", { type: "button", className: "remove", textContent: "×" });
    remove.setAttribute("aria-label", `Remove ${photo.file.name}`);
    remove.addEventListener("click", () => this.on.remove(photo));
    item.append(select, remove);
    this.#list.append(item);
    this.#items.set(photo, { item, select, state, bar, thumbnail });
    this.#section.hidden = false;
  }

  update(photo) {
    const { item, state, bar, thumbnail } = this.#items.get(photo);
    item.dataset.state = photo.state;
    state.textContent = describe(photo);
    setBar(bar, photo);
    if (photo.state === "done" && thumbnail.getAttribute("src") === NO_PICTURE) {
      thumbnail.src = photo.afterAddress;
    }
  }

  remove(photo) {
    this.#items.get(photo)?.item.remove();
    this.#items.delete(photo);
    this.#section.hidden = this.#items.size === 0;
  }

  mark(selected) {
    for (const [photo, { select }] of this.#items) {
      select.setAttribute("aria-current", String(photo === selected));
    }
  }

  focus(photo) {
    this.#items.get(photo)?.select.focus();
  }
}

// A bar that is full while sending ends, and moves without a measure while the service works.
export function setBar(bar, photo) {
  if (photo.state === "sending") {
    bar.value = photo.sent;
  } else {
    bar.removeAttribute("value");
  }
  bar.hidden = !["sending", "restoring"].includes(photo.state);
}

function make(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
