// One photograph through POST /restore.

import { Problem } from "./problems.js";

// Resolves to { restored, damageMap, before, after, info }: files, `before` and `after` null where the browser can show
// the photograph itself. Rejects with a Problem, or with an AbortError when `signal` fires.
export async function restore(file, { settings, key, needsPreview, signal, onProgress }) {
  const query = new URLSearchParams({ ...settings, output: "all", preview: needsPreview });
  const request = await send(file, `restore?${query}`, { key, signal, onProgress });
  const contentType = request.getResponseHeader("Content-Type") ?? "";
  if (request.status !== 200) {
    throw new Problem(request.status, await readProblem(request.response), retryAfterSeconds(request));
  }
  const parts = await new Response(request.response, { headers: { "Content-Type": contentType } }).formData();
  return {
    restored: parts.get("restored"),
    damageMap: parts.get("damage_map"),
    before: parts.get("before"),
    after: parts.get("after"),
    info: JSON.parse(parts.get("info")),
  };
}

// XMLHttpRequest, because fetch does not tell how much of an upload has been sent.
function send(file, address, { key, signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    request.responseType = "blob";
    if (key) {
      request.setRequestHeader("Authorization", `Bearer ${key}`);
    }
    request.upload.onprogress = (event) => onProgress(event.total ? event.loaded / event.total : 0);
    request.upload.onload = () => onProgress(1);
    request.onload = () => resolve(request);
    request.onerror = () => reject(Problem.unreachable());
    request.onabort = () => reject(new DOMException("removed", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

async function readProblem(body) {
  try {
    return JSON.parse(await body.text());
  } catch {
    return {}; // a proxy's page
  }
}

function retryAfterSeconds(request) {
  const seconds = Number.parseInt(request.getResponseHeader("Retry-After"), 10);
  return Number.isFinite(seconds) ? seconds : null;
}
