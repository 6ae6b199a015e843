// Sentences about a photograph.

export function describe(photo) {
  switch (photo.state) {
    case "waiting":
      return "Waits its turn";
    case "sending":
      return `Being sent, ${Math.floor(photo.sent * 100)} %`;
    case "restoring":
      return "Being restored";
    case "paused":
      return photo.pause;
    case "failed":
      return photo.problem.title;
    case "done":
      return repaired(photo.result.info);
  }
}

export function repaired({ damage_ratio: ratio, suspected_from: suspected, denoise }) {
  const untouched = suspected === null ? "No damage found" : "Perhaps damaged";
  const found = ratio === 0 ? untouched : `${percent(ratio)} repaired`;
  return denoise > 0 ? `${found}, denoised` : found;
}

// The sentence under the photograph.
export function facts(photo) {
  const { info } = photo.result;
  const isAsItCame = info.damage_ratio === 0 && !(info.denoise > 0);
  const unchanged = isAsItCame ? ", so the file comes back as it came, byte for byte" : "";
  const found =
    info.damage_ratio === 0
      ? nothingRepaired(info, unchanged)
      : `${percent(info.damage_ratio)} of the picture was taken for damage and repaired.`;
  const outcome = info.denoise > 0 ? `${found} All of it was denoised.` : found;
  const pages = info.num_pages > 1 ? ` ${info.num_pages} pages, of which the first is shown.` : "";
  const size = `${info.width_px.toLocaleString("en")} × ${info.height_px.toLocaleString("en")} pixels`;
  return `${outcome} ${size}, ${info.format.toUpperCase()}, release ${info.release}.${pages}`;
}

function nothingRepaired({ suspected_from: sensitivity }, unchanged) {
  return sensitivity === null
    ? `No damage was found${unchanged}. If you see some, raise the sensitivity.`
    : `Nothing was surely damage${unchanged}. From a sensitivity of ${sensitivity} on something is repaired: see whether it should be.`;
}

// The name to save it under: that of the photograph, with the ending of what came back.
export function restoredName(file, restored) {
  const ending = restored.name.slice(restored.name.lastIndexOf("."));
  const given = file.name.match(/\.(jpe?g|png|tiff?|webp|jp2|j2k|j2c|jpx)$/i);
  const stem = given ? file.name.slice(0, given.index) : file.name;
  return `${stem}_restored${ending}`;
}

function percent(ratio) {
  return ratio < 0.001 ? "Less than 0.1 %" : `${(ratio * 100).toFixed(1)} %`;
}
