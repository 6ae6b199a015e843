// One photograph, large: before and after under a divider, what was taken for damage over both, at any zoom.

import { setBar } from "./tray.js";
import { describe, facts, restoredName } from "./words.js";
import { placeDamage } from "./orientation.js";

const MOST_ENLARGED = 2; // when a small photograph is fitted into a large window
const STEP = 2;
const LARGE_STEP = 10;

const get = (id) => document.getElementById(id);

export class Viewer {
  #photo = null;
  #zoom = "fit";
  #slider = get("slider");

  // `on`: { again, againFrom, useOtherKey, remove }, each called with the photograph that is shown, `againFrom` with the
  // sensitivity, too
  constructor(on) {
    get("again").addEventListener("click", () => on.again(this.#photo));
    get("suspected").addEventListener("click", () => on.againFrom(this.#photo, this.#photo.result.info.suspected_from));
    get("retry").addEventListener("click", () => on.again(this.#photo));
    get("other-key").addEventListener("click", () => on.useOtherKey(this.#photo));
    get("remove").addEventListener("click", () => on.remove(this.#photo));
    get("show-damage").addEventListener("change", (event) => (get("damage").hidden = !event.target.checked));
    get("zoom-fit").addEventListener("click", () => this.#zoomTo("fit"));
    get("zoom-full").addEventListener("click", () => this.#zoomTo("full"));
    for (const id of ["before", "after"]) {
      get(id).addEventListener("load", () => this.#layOut());
    }
    new ResizeObserver(() => this.#layOut()).observe(get("stage"));
    this.#openSlider();
    this.#openPanning();
  }

  show(photo) {
    const isAnother = photo !== this.#photo;
    this.#photo = photo;
    get("viewer").hidden = photo === null;
    if (photo === null) {
      return;
    }
    get("viewer").dataset.state = photo.state;
    get("viewer-title").textContent = photo.file.name;
    if (photo.state === "done") {
      this.#showResult(photo, isAnother);
    } else if (photo.state === "failed") {
      showFailure(photo.problem);
    } else {
      get("progress-title").textContent = describe(photo);
      get("progress-words").textContent = wait(photo);
      setBar(get("progress-bar"), photo);
    }
  }

  #showResult(photo, isAnother) {
    if (isAnother || get("after").src !== photo.afterAddress) {
      get("before").src = photo.beforeAddress;
      get("after").src = photo.afterAddress;
      get("damage").style.setProperty("--map", `url("${photo.damageAddress}")`);
      this.#slideTo(50);
      this.#zoomTo("fit");
    }
    this.#slider.setAttribute("aria-label", `${photo.file.name}: divider between before, on the left, and after`);
    get("download").href = photo.restoredAddress;
    get("download").download = restoredName(photo.file, photo.result.restored);
    get("facts").textContent = facts(photo);
    const { suspected_from: sensitivity } = photo.result.info;
    get("suspected").hidden = sensitivity === null;
    get("suspected").textContent = `Restore with ${sensitivity}`;
  }

  #zoomTo(zoom) {
    this.#zoom = zoom;
    get("zoom-fit").setAttribute("aria-pressed", String(zoom === "fit"));
    get("zoom-full").setAttribute("aria-pressed", String(zoom === "full"));
    this.#layOut();
    const stage = get("stage");
    stage.scrollTo((stage.scrollWidth - stage.clientWidth) / 2, (stage.scrollHeight - stage.clientHeight) / 2);
  }

  // A pixel of the photograph is a pixel of the screen at 100 %, whatever the screen's density.
  #layOut() {
    const { naturalWidth, naturalHeight } = get("after");
    const stage = get("stage");
    if (!naturalWidth || !stage.clientWidth || this.#photo?.state !== "done") {
      return;
    }
    const mostHeight = Number.parseFloat(getComputedStyle(stage).maxHeight);
    const fit = Math.min(stage.clientWidth / naturalWidth, mostHeight / naturalHeight, MOST_ENLARGED);
    const scale = this.#zoom === "fit" ? fit : 1 / devicePixelRatio;
    const width = naturalWidth * scale;
    const height = naturalHeight * scale;
    get("frame").style.width = `${width}px`;
    get("frame").style.height = `${height}px`;
    placeDamage(get("damage"), this.#photo.result.info, width, height);
    const overflows = width > stage.clientWidth + 1 || height > mostHeight + 1;
    stage.classList.toggle("overflows", overflows);
    get("mat").style.setProperty("--beside", `${Math.max(0, (stage.clientWidth - width) / 2)}px`);
    this.#slider.handle = String(overflows); // else a drag anywhere moves the divider, and nothing could pan
    if (overflows) {
      stage.tabIndex = 0; // arrow keys scroll it
      stage.setAttribute("role", "region");
      stage.setAttribute("aria-label", "Photograph, to be scrolled");
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) {
        stage.removeAttribute(name);
      }
    }
    this.#keepHandleInSight();
  }

  #keepHandleInSight() {
    const stage = get("stage");
    const middle = stage.scrollTop + Math.min(stage.clientHeight, get("frame").offsetHeight) / 2;
    this.#slider.style.setProperty("--handle-position-start", `${middle}px`);
  }

  #slideTo(percent) {
    this.#slider.value = Math.min(100, Math.max(0, percent));
    this.#tellPosition();
  }

  #tellPosition() {
    const before = Math.round(this.#slider.value);
    this.#slider.setAttribute("aria-valuenow", before);
    this.#slider.setAttribute("aria-valuetext", `${before} % before, ${100 - before} % after`);
  }

  // The component's own keys move it for as long as they are held, which is too little for a short press, and it knows
  // neither Home nor End.
  #openSlider() {
    const steps = { ArrowLeft: -STEP, ArrowDown: -STEP, ArrowRight: STEP, ArrowUp: STEP };
    Object.assign(steps, { PageDown: -LARGE_STEP, PageUp: LARGE_STEP, Home: -100, End: 100 });
    this.#slider.addEventListener("slide", () => this.#tellPosition());
    this.#slider.addEventListener("keydown", (event) => {
      if (event.key in steps) {
        event.preventDefault();
        this.#slideTo(this.#slider.value + steps[event.key]);
      }
    });
    get("stage").addEventListener("scroll", () => this.#keepHandleInSight());
    customElements.whenDefined("img-comparison-slider").then(() => {
      const calm = new CSSStyleSheet();
      calm.replaceSync("@media (prefers-reduced-motion: reduce) { .first * { transition: none !important; } }");
      this.#slider.shadowRoot.adoptedStyleSheets.push(calm);
    });
  }

  // A mouse drags the photograph; fingers and wheels scroll it as they scroll everything.
  #openPanning() {
    const stage = get("stage");
    stage.addEventListener("pointerdown", (event) => {
      const onHandle = event.composedPath().some((node) => node.id === "handle");
      if (event.pointerType !== "mouse" || event.button !== 0 || onHandle || !stage.classList.contains("overflows")) {
        return;
      }
      event.preventDefault();
      stage.setPointerCapture(event.pointerId);
      const pan = (move) => stage.scrollBy(-move.movementX, -move.movementY);
      stage.addEventListener("pointermove", pan);
      stage.addEventListener("lostpointercapture", () => stage.removeEventListener("pointermove", pan), { once: true });
    });
  }
}

function showFailure(problem) {
  get("failure-title").textContent = problem.title;
  get("failure-advice").textContent = problem.advice;
  get("failure-detail").textContent = [problem.message, problem.detail].filter(Boolean).join(": ");
  get("failure-request").textContent = problem.requestId && `Request id: ${problem.requestId}`;
  get("other-key").hidden = !problem.isOfTheKey;
  get("retry").hidden = problem.isOfTheFile || problem.isOfTheKey;
}

function wait(photo) {
  return photo.state === "restoring" ? "Some seconds for a snapshot, a minute or more for a large scan." : "";
}
