// What the page remembers. A browser may refuse even to name its storage: then nothing is remembered.

// `storage`: "localStorage" or "sessionStorage".
export function recall(storage, key) {
  try {
    return window[storage].getItem(key);
  } catch {
    return null;
  }
}

// Remember a text; null forgets it.
export function remember(storage, key, value) {
  try {
    if (value === null) window[storage].removeItem(key);
    else window[storage].setItem(key, value);
  } catch {
    // the page goes on without
  }
}
