"""The commands that run the archive: killed processes, and two Ray nodes beside one."""
