"""A desktop window that displays the newest frame, with keyboard controls. Needs the packages of the extra `window`."""
