// Photographs wait here and are sent two at a time; when the service is busy, all of them wait as long as it asks.

import { Problem } from "./problems.js";
import { restore } from "./restoring.js";

const AT_ONCE = 2;
const MOST_ATTEMPTS = 10;
const USUAL_WAIT_SECONDS = 5;

// `photo` says in `state` where it is: waiting, sending, restoring, paused, done or failed; each change is announced by
// the event `change` with the photograph as `detail`.
export class Queue extends EventTarget {
  #waiting = [];
  #numActive = 0;
  #openAt = 0;
  #keys;
  #numDeclined = 0; // how often no key was given when one was asked for

  // `keys`: see key.js
  constructor(keys) {
    super();
    this.#keys = keys;
  }

  add(photo, settings) {
    photo.abort?.abort();
    const fresh = { abort: new AbortController(), attempts: 0, problem: null, result: null, numDeclined: this.#numDeclined };
    Object.assign(photo, fresh, { settings });
    this.#update(photo, { state: "waiting", sent: 0 });
    this.#waiting.push(photo);
    this.#next();
  }

  remove(photo) {
    this.#waiting = this.#waiting.filter((other) => other !== photo);
    photo.abort?.abort();
  }

  #update(photo, changes) {
    Object.assign(photo, changes);
    this.dispatchEvent(new CustomEvent("change", { detail: photo }));
  }

  #next() {
    while (this.#numActive < AT_ONCE && this.#waiting.length) {
      this.#numActive += 1;
      this.#work(this.#waiting.shift()).finally(() => {
        this.#numActive -= 1;
        this.#next();
      });
    }
  }

  async #work(photo) {
    const { signal } = photo.abort;
    try {
      const result = await this.#restoreAtLast(photo, signal);
      this.#update(photo, { state: "done", result });
    } catch (problem) {
      if (signal.aborted) {
        return;
      }
      if (!(problem instanceof Problem)) {
        throw problem;
      }
      this.#update(photo, { state: "failed", problem });
    }
  }

  async #restoreAtLast(photo, signal) {
    const needsPreview = !(await photo.canBeShown);
    for (;;) {
      await this.#untilOpen(photo, signal);
      const key = this.#keys.current;
      try {
        this.#update(photo, { state: "sending", sent: 0 });
        const onProgress = (sent) => this.#update(photo, { state: sent < 1 ? "sending" : "restoring", sent });
        const result = await restore(photo.file, { settings: photo.settings, key, needsPreview, signal, onProgress });
        signal.throwIfAborted(); // it may have been removed while its answer was being read
        return result;
      } catch (problem) {
        await this.#mendOrThrow(photo, problem, key, signal);
      }
    }
  }

  // Returns when it is worth trying once more.
  async #mendOrThrow(photo, problem, key, signal) {
    signal.throwIfAborted();
    if (problem instanceof Problem && problem.status === 401 && photo.numDeclined === this.#numDeclined) {
      this.#update(photo, { state: "paused", pause: "Waits for a key" });
      if (await this.#keys.ask(key, problem)) {
        signal.throwIfAborted();
        return;
      }
      this.#decline(problem);
    }
    photo.attempts += 1;
    if (!(problem instanceof Problem && problem.isPassing) || photo.attempts >= MOST_ATTEMPTS) {
      throw problem;
    }
    const seconds = Math.max(1, problem.retryAfterSeconds ?? USUAL_WAIT_SECONDS);
    this.#openAt = Math.max(this.#openAt, Date.now() + seconds * 1000);
    photo.problem = problem;
  }

  // Whoever has no key is not asked again for each photograph that was there by then.
  #decline(problem) {
    this.#numDeclined += 1;
    for (const photo of this.#waiting.splice(0)) {
      this.#update(photo, { state: "failed", problem });
    }
  }

  async #untilOpen(photo, signal) {
    signal.throwIfAborted();
    for (;;) {
      const seconds = Math.ceil((this.#openAt - Date.now()) / 1000);
      if (seconds <= 0) {
        return;
      }
      const reason = photo.problem?.title ?? "The service is busy";
      this.#update(photo, { state: "paused", pause: `${reason}. Trying again in ${seconds} s` });
      await oneSecond(signal);
    }
  }
}

function oneSecond(signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
