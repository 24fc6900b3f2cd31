"""The window: the newest picture on this machine's own screen, steered by keys. Needs the packages of the extra `window`."""
