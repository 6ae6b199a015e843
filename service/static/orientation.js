// Browsers turn a photograph as its orientation tag says; the damage map has no tag and lies in the stored grid.

// By the tag's value (EXIF 2.32, 4.6.4): how the stored picture is moved to be seen.
const TRANSFORMS = {
  1: "none",
  2: "scaleX(-1)",
  3: "rotate(180deg)",
  4: "scaleY(-1)",
  5: "rotate(90deg) scaleY(-1)",
  6: "rotate(90deg)",
  7: "rotate(90deg) scaleX(-1)",
  8: "rotate(-90deg)",
};

// Lay `element`, centred in its parent by the style sheet, over a photograph shown as `width` by `height`.
export function placeDamage(element, info, width, height) {
  const isTurned = info.orientation > 4;
  element.style.width = `${isTurned ? height : width}px`;
  element.style.height = `${isTurned ? width : height}px`;
  element.style.transform = `translate(-50%, -50%) ${TRANSFORMS[info.orientation]}`.replace("none", "");
}
