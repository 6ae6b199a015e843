// What a person can do about each problem, by the end of its `type` (docs/api.md lists them).

const SEND_AGAIN = "Nothing is wrong with the photograph. Try again in a while.";

export const WORDS = {
  "bad-upload": ["The photograph did not arrive whole", "Send it again. If the file is empty, it has to be scanned or copied anew."],
  "key-missing": ["A key is needed", "Ask whoever runs this service for one, and try again."],
  "key-unknown": ["The key is not known", "Check it for typing errors, or ask whoever runs this service for another."],
  "scope-missing": ["This key may not restore photographs", "Use another one. Whoever runs this service can say which may, or make one."],
  "quota-exceeded": ["You have sent as much as you may for now", SEND_AGAIN],
  "upload-too-slow": ["The photograph took too long to arrive", "Try again over a faster connection, or send a smaller file."],
  "wrong-release": ["Another version of the restorer is in use", "Try again: it was replaced while you waited."],
  "already-held": ["You have this result already", "Nothing has changed since the last time."],
  "upload-too-large": ["The file is too large for this service", "Save it with stronger compression, or scale it down, and send it again."],
  "unsupported-format": ["This is not a photograph that can be read", "Save it as JPEG, PNG, TIFF, WebP or JPEG 2000, and send that."],
  "unsupported-photo": ["This kind of file cannot be restored yet", "Save it anew as an ordinary colour or grey picture, and send that."],
  "photo-undecodable": ["The file is damaged", "It may have been cut off while it was copied. Copy it anew from where it came, or scan it again."],
  "photo-too-large": ["The photograph has too many pixels for this service", "Scale it down, or cut it into parts, and send it again."],
  "metadata-too-large": ["The file holds too much beside the photograph", "Save it anew without comments, previews and the like, and send it again."],
  "photo-unsafe": ["The file cannot be read safely", "It may be damaged. Copy it anew from where it came, or save it anew."],
  "denoiser-missing": ["This service cannot denoise", "Set Denoise to 0, and try again."],
  "invalid-option": ["The photograph cannot be had that way", "Change the settings, or save the photograph as PNG, and try again."],
  "invalid-parameter": ["The service does not know this setting", "Load this page again: it may be older than the service."],
  "not-ready": ["The service is not ready yet", SEND_AGAIN],
  "queue-full": ["The service is busy", SEND_AGAIN],
  "no-room-for-upload": ["The service is busy", SEND_AGAIN],
  "codec-unavailable": ["The service is busy", SEND_AGAIN],
  "no-room-for-files": ["The service is busy", SEND_AGAIN],
  draining: ["The service is being restarted", SEND_AGAIN],
  "device-broken": ["The service has failed", "Nothing is wrong with the photograph. Tell whoever runs the service."],
  "deadline-exceeded": ["Restoring took too long", "Try again when less is going on, choose the quick mode, or send a smaller photograph."],
  "internal-error": ["The service failed", "This is no fault of yours. Tell whoever runs it, with the request id below."],
  unreachable: ["The service cannot be reached", "The connection broke while the photograph was on its way. Look at your network, and try again. A very large file may also be more than the service takes."],
};

const WORDS_BY_STATUS = {
  401: WORDS["key-missing"],
  413: WORDS["upload-too-large"],
  429: WORDS["quota-exceeded"],
  504: WORDS["deadline-exceeded"],
};

export class Problem extends Error {
  // `body`: the problem+json, empty where something else than the service answered.
  constructor(status, body, retryAfterSeconds = null) {
    super(body.title ?? `status ${status}`);
    this.status = status;
    this.name = (body.type ?? "").split(":").pop();
    this.detail = body.detail ?? "";
    this.requestId = body.request_id ?? "";
    this.retryAfterSeconds = retryAfterSeconds;
  }

  static unreachable() {
    return new Problem(0, { type: "unreachable" });
  }

  get title() {
    return this.words[0];
  }

  get advice() {
    return this.words[1];
  }

  get words() {
    return WORDS[this.name] ?? WORDS_BY_STATUS[this.status] ?? [this.message, "Try again, or tell whoever runs the service."];
  }

  // The same file would be refused again.
  get isOfTheFile() {
    return [413, 415, 422].includes(this.status) && !["invalid-option", "denoiser-missing"].includes(this.name);
  }

  // Another key may do: this one is known, but not for this.
  get isOfTheKey() {
    return this.name === "scope-missing";
  }

  get isPassing() {
    return [429, 503, 507].includes(this.status) && this.name !== "device-broken";
  }
}
