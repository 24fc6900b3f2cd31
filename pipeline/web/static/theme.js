// The color theme: light, dark, or that of the system.

import { recall, remember } from "./storage.js";

const STORE = "cliprl-theme";
const THEMES = ["auto", "light", "dark"];
const NAMES = { auto: "automatic", light: "light", dark: "dark" };

function apply(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.getElementById("theme-text").textContent = `Theme: ${NAMES[theme]}`;
}

function stored() {
  const theme = recall("localStorage", STORE);
  return THEMES.includes(theme) ? theme : "auto";
}

export function startTheme() {
  apply(stored());
}

// Switch to the next theme and return a message.
export function cycleTheme() {
  const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % THEMES.length];
  remember("localStorage", STORE, theme);
  apply(theme);
  return `Theme ${NAMES[theme]}`;
}
