// The caller's key: asked for when the service wants one, kept in this tab (sessionStorage) and nowhere else.

const NAME = "key";

export class Keys {
  #dialog = document.getElementById("key-dialog");
  #input = document.getElementById("key");
  #forget = document.getElementById("forget-key");
  #asking = null;

  constructor() {
    document.getElementById("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#keep(this.#input.value.trim());
      this.#dialog.close("entered");
    });
    document.getElementById("key-cancel").addEventListener("click", () => this.#dialog.close(""));
    this.#forget.addEventListener("click", () => this.#keep(""));
    this.#keep(this.current);
  }

  get current() {
    return sessionStorage.getItem(NAME) ?? "";
  }

  // Resolves to whether there is another key than `refused`; several who ask at once share one dialog.
  async ask(refused, problem) {
    if (this.current && this.current !== refused) {
      return true;
    }
    this.#asking ??= this.#open(refused, problem).finally(() => (this.#asking = null));
    return this.#asking;
  }

  #open(refused, problem) {
    document.getElementById("key-words").textContent = words(refused, problem);
    this.#input.value = "";
    this.#dialog.returnValue = "";
    this.#dialog.showModal();
    return new Promise((resolve) => {
      this.#dialog.addEventListener("close", () => resolve(this.#dialog.returnValue === "entered"), { once: true });
    });
  }

  #keep(key) {
    if (key) {
      sessionStorage.setItem(NAME, key);
    } else {
      sessionStorage.removeItem(NAME);
    }
    this.#forget.hidden = !key;
  }
}

function words(refused, problem) {
  if (problem.isOfTheKey) {
    return "The one in use is not for restoring photographs. Ask whoever runs the service for one that is.";
  }
  return refused
    ? "The service did not accept this one. Check it for typing errors, or ask whoever runs the service for another."
    : "Ask whoever runs the service for one.";
}
