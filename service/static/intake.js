// Photographs come in by choosing, dropping anywhere on the page, pasting, or as the sample.

// Calls `take` with an array of files.
export function openIntake(take) {
  const chooser = document.getElementById("chooser");
  chooser.addEventListener("change", () => {
    take([...chooser.files]);
    chooser.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
  document.getElementById("sample").addEventListener("click", async () => {
    const sample = await (await fetch("static/sample.jpg")).blob();
    take([new File([sample], "sample.jpg", { type: sample.type })]);
  });
  acceptDrops(take);
}

function acceptDrops(take) {
  let depth = 0; // dragenter and dragleave come for every element on the way
  const show = (change) => {
    depth = change === 0 ? 0 : depth + change;
    document.body.classList.toggle("dropping", depth > 0);
  };
  document.addEventListener("dragenter", () => show(1));
  document.addEventListener("dragleave", () => show(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    show(0);
    take([...event.dataTransfer.files]);
  });
}
