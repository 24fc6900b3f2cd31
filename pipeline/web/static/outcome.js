// What became of an action: stated to screen readers, and a refusal to everybody.

const SHOWN_MS = 6000;
let hiding = 0;

export function tell(text, isVisible = false) {
  const node = document.getElementById("outcome");
  if (node.textContent !== text) node.textContent = text;
  node.className = isVisible ? "banner outcome" : "sr";
  clearTimeout(hiding);
  if (isVisible) hiding = setTimeout(() => (node.className = "sr"), SHOWN_MS);
}
