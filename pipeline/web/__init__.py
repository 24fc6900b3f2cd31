"""The web viewer: a page, served by the program itself, that displays the newest frame and changes the overlay.

It needs the packages of the extra `live`. The command imports it only for `--web`.
"""
