// The color theme: light, dark, or that of the system.

const STORE = "cliprl-theme";
const THEMES = ["auto", "light", "dark"];
const NAMES = { auto: "automatic", light: "light", dark: "dark" };

function apply(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.getElementById("theme-text").textContent = `Theme: ${NAMES[theme]}`;
}

function stored() {
  try {
    const theme = localStorage.getItem(STORE);
    return THEMES.includes(theme) ? theme : "auto";
  } catch {
    return "auto";
  }
}

export function startTheme() {
  apply(stored());
}

// Switch to the next theme and return a message.
export function cycleTheme() {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % THEMES.length];
  try {
    localStorage.setItem(STORE, theme);
  } catch {
    // without local storage the theme lasts as long as the page
  }
  apply(theme);
  return `Theme ${NAMES[theme]}`;
}
