"""The web viewer: one page, served by the program itself, that shows the newest picture and changes how it looks.

Needs the packages of the extra `live`; nothing here is loaded before it is asked for.
"""
