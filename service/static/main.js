// The page: photographs come in, wait their turn, come back, and are looked at.

import { openIntake } from "./intake.js";
import { Keys } from "./key.js";
import { Queue } from "./queue.js";
import { Tray } from "./tray.js";
import { Viewer } from "./viewer.js";
import { describe } from "./words.js";

const get = (id) => document.getElementById(id);

const photos = [];
let selected = null;

const keys = new Keys();
const queue = new Queue(keys);
const tray = new Tray({ select, remove });
const viewer = new Viewer({ again: (photo) => queue.add(photo, readSettings()), againFrom, useOtherKey, remove });

queue.addEventListener("change", ({ detail: photo }) => {
  if (photo.state === "done") {
    keepAddresses(photo);
  }
  tray.update(photo);
  if (photo === selected) {
    viewer.show(photo);
  }
  announce(photo);
});

openIntake((files) => {
  for (const file of files) {
    const photo = { file, address: URL.createObjectURL(file), state: "waiting", sent: 0 };
    photo.canBeShown = canBeShown(photo.address);
    photos.push(photo);
    tray.add(photo);
    queue.add(photo, readSettings());
  }
  document.body.classList.toggle("at-work", photos.length > 0);
  if (selected === null && photos.length) {
    select(photos[0]);
  }
});

get("clear").addEventListener("click", () => {
  for (const photo of [...photos]) {
    remove(photo);
  }
  get("chooser").focus();
});

get("settings").addEventListener("input", showShares);
get("settings").addEventListener("submit", (event) => event.preventDefault());
showShares();

function readSettings() {
  return { sensitivity: get("sensitivity").value, mode: get("mode").value, denoise: get("denoise").value };
}

function showShares() {
  for (const name of ["sensitivity", "denoise"]) {
    get(`${name}-value`).textContent = Number(get(name).value).toFixed(2);
  }
}

function againFrom(photo, sensitivity) {
  get("sensitivity").value = sensitivity;
  showShares();
  queue.add(photo, readSettings());
}

function select(photo) {
  selected = photo;
  tray.mark(photo);
  viewer.show(photo);
}

// All that the one before could not do are tried with the new one.
async function useOtherKey({ problem }) {
  if (await keys.ask(keys.current, problem)) {
    for (const photo of photos.filter((each) => each.problem?.isOfTheKey)) {
      queue.add(photo, readSettings());
    }
  }
}

function remove(photo) {
  const index = photos.indexOf(photo);
  photos.splice(index, 1);
  queue.remove(photo);
  tray.remove(photo);
  releaseAddresses(photo);
  URL.revokeObjectURL(photo.address);
  const neighbour = photos[Math.min(index, photos.length - 1)] ?? null;
  if (photo === selected) {
    select(neighbour);
  }
  if (neighbour) {
    tray.focus(neighbour);
  }
  document.body.classList.toggle("at-work", photos.length > 0);
}

// Whether this browser can: none but Safari shows a TIFF.
async function canBeShown(address) {
  const image = new Image();
  image.src = address;
  try {
    await image.decode();
    return true;
  } catch {
    return false;
  }
}

function keepAddresses(photo) {
  releaseAddresses(photo);
  const { restored, damageMap, before, after } = photo.result;
  photo.restoredAddress = URL.createObjectURL(restored);
  photo.damageAddress = URL.createObjectURL(damageMap);
  photo.beforeAddress = before ? URL.createObjectURL(before) : photo.address;
  photo.afterAddress = after ? URL.createObjectURL(after) : photo.restoredAddress;
}

function releaseAddresses(photo) {
  for (const name of ["restoredAddress", "damageAddress", "beforeAddress", "afterAddress"]) {
    if (photo[name] && photo[name] !== photo.address) {
      URL.revokeObjectURL(photo[name]);
    }
    delete photo[name];
  }
}

// For those who cannot see the page: beginnings and ends, not every percent.
function announce(photo) {
  if (photo.state === "failed") {
    get("alarm").textContent = `${photo.file.name}: ${photo.problem.title}. ${photo.problem.advice}`;
  } else if (["restoring", "done"].includes(photo.state)) {
    get("announcer").textContent = `${photo.file.name}: ${describe(photo)}`;
  }
}
