"""A minimal wrapper of SDL: a window, images drawn into it, and its key presses.

Call an object's methods on the thread that created it.
"""

from __future__ import annotations

import ctypes
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import CliprlError
from cliprl.pipeline.overlay.text import drawable
from cliprl.pipeline.window.layout import ImageBox

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it reports which SDL it has found
    import sdl2

_START = (1280, 800)
QUIT = "quit"
# SDL's drivers without a screen.
_UNSEEN = (b"offscreen", b"dummy", b"evdev")
_NO_WINDOW = "no window can be opened ({}): run it on a machine with a screen, or use --web"


class PointerEvent(NamedTuple):
    """A press or release of a pointer's button, at (x, y) in pixels of the window; `left` and not Shift is the plain one."""

    x: float
    y: float
    plain: bool
    pressed: bool


class SdlWindow:
    """One window. Raises CliprlError if there is no screen."""

    def __init__(self, title: str) -> None:
        sdl2.SDL_SetHint(sdl2.SDL_HINT_RENDER_SCALE_QUALITY, b"linear")
        sdl2.SDL_SetHint(sdl2.SDL_HINT_VIDEO_ALLOW_SCREENSAVER, b"0")
        sdl2.SDL_SetHint(sdl2.SDL_HINT_NO_SIGNAL_HANDLERS, b"1")  # the program handles Ctrl-C
        self._check(sdl2.SDL_InitSubSystem(sdl2.SDL_INIT_VIDEO) == 0)
        # Without a display SDL may take a driver whose windows are on no screen; one that the environment names is wanted.
        driver = sdl2.SDL_GetCurrentVideoDriver()
        if driver in _UNSEEN and sdl2.SDL_GetHint(b"SDL_VIDEODRIVER") is None:
            sdl2.SDL_QuitSubSystem(sdl2.SDL_INIT_VIDEO)
            raise CliprlError(_NO_WINDOW.format("there is no display"))
        flags = sdl2.SDL_WINDOW_RESIZABLE | sdl2.SDL_WINDOW_ALLOW_HIGHDPI
        anywhere = sdl2.SDL_WINDOWPOS_CENTERED
        self._window = sdl2.SDL_CreateWindow(drawable(title).encode(), anywhere, anywhere, *_start_size(), flags)
        self._check(bool(self._window))
        self._renderer = sdl2.SDL_CreateRenderer(self._window, -1, 0)
        self._check(bool(self._renderer))
        self._textures: dict[str, tuple[tuple[int, ...], Any]] = {}

    def _check(self, fine: bool) -> None:
        if not fine:
            reason = sdl2.SDL_GetError().decode()
            raise CliprlError(_NO_WINDOW.format(reason))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        width, height = ctypes.c_int(), ctypes.c_int()
        sdl2.SDL_GetRendererOutputSize(self._renderer, ctypes.byref(width), ctypes.byref(height))
        return width.value, height.value

    @property
    def is_full_screen(self) -> bool:
        """Whether the window fills the screen."""
        return bool(sdl2.SDL_GetWindowFlags(self._window) & sdl2.SDL_WINDOW_FULLSCREEN_DESKTOP)

    def set_full_screen(self, on: bool) -> None:
        """Fill the screen and hide the pointer, or return to a window."""
        sdl2.SDL_SetWindowFullscreen(self._window, sdl2.SDL_WINDOW_FULLSCREEN_DESKTOP if on else 0)
        self.show_pointer(not on)

    def show_pointer(self, on: bool) -> None:
        """Show or hide the pointer over the window."""
        sdl2.SDL_ShowCursor(1 if on else 0)

    def clear(self) -> None:
        """Clear the drawing to black."""
        sdl2.SDL_SetRenderDrawColor(self._renderer, 0, 0, 0, 255)
        sdl2.SDL_RenderClear(self._renderer)

    def load(self, name: str, image: NDArray[np.uint8]) -> None:
        """Load an image, BGR (h, w, 3) or BGRA (h, w, 4), under a name, in place of the last one of that name."""
        image = np.ascontiguousarray(image)
        texture = self._texture(name, image.shape)
        sdl2.SDL_UpdateTexture(texture, None, image.ctypes.data_as(ctypes.c_void_p), image.strides[0])

    def _texture(self, name: str, shape: tuple[int, ...]) -> Any:
        known = self._textures.get(name)
        if known is not None and known[0] == shape:
            return known[1]
        if known is not None:
            sdl2.SDL_DestroyTexture(known[1])
        layout = sdl2.SDL_PIXELFORMAT_BGR24 if shape[2] == 3 else sdl2.SDL_PIXELFORMAT_ARGB8888
        kind = sdl2.SDL_TEXTUREACCESS_STREAMING
        texture = sdl2.SDL_CreateTexture(self._renderer, layout, kind, shape[1], shape[0])
        self._check(bool(texture))
        if shape[2] == 4:
            sdl2.SDL_SetTextureBlendMode(texture, sdl2.SDL_BLENDMODE_BLEND)
        self._textures[name] = (shape, texture)
        return texture

    def draw(self, name: str, box: ImageBox) -> None:
        """Draw a loaded image."""
        sdl2.SDL_RenderCopy(self._renderer, self._textures[name][1], None, sdl2.SDL_Rect(*box))

    def show(self) -> None:
        """Display the drawing."""
        sdl2.SDL_RenderPresent(self._renderer)

    def events(self) -> list[str | PointerEvent]:
        """Return what happened since the last call.

        That is keys pressed, as SDL's names in lower case, buttons of the pointer, and `QUIT` if the window was closed.
        """
        events, event = list[str | PointerEvent](), sdl2.SDL_Event()
        while sdl2.SDL_PollEvent(ctypes.byref(event)):
            if event.type == sdl2.SDL_QUIT:
                events.append(QUIT)
            elif event.type in (sdl2.SDL_MOUSEBUTTONDOWN, sdl2.SDL_MOUSEBUTTONUP):
                events.append(self._pointer(event))
            elif event.type == sdl2.SDL_KEYDOWN and (
                not event.key.repeat or chr(event.key.keysym.sym & 0xFF) in "[]-+="
            ):
                events.append(sdl2.SDL_GetKeyName(event.key.keysym.sym).decode().lower())
        return events

    def _pointer(self, event: Any) -> PointerEvent:
        width, height = ctypes.c_int(), ctypes.c_int()
        sdl2.SDL_GetWindowSize(self._window, ctypes.byref(width), ctypes.byref(height))
        across, down = (
            pixels / max(points.value, 1) for pixels, points in zip(self.size, (width, height), strict=True)
        )
        shift = bool(sdl2.SDL_GetModState() & sdl2.KMOD_SHIFT)
        plain = event.button.button == sdl2.SDL_BUTTON_LEFT and not shift
        pressed = event.type == sdl2.SDL_MOUSEBUTTONDOWN
        return PointerEvent(event.button.x * across, event.button.y * down, plain, pressed)

    def close(self) -> None:
        """Close the window."""
        for _, texture in self._textures.values():
            sdl2.SDL_DestroyTexture(texture)
        sdl2.SDL_DestroyRenderer(self._renderer)
        sdl2.SDL_DestroyWindow(self._window)
        sdl2.SDL_QuitSubSystem(sdl2.SDL_INIT_VIDEO)


def _start_size() -> tuple[int, int]:
    """Return (width, height) of a new window: at most the usable size of the screen."""
    room = sdl2.SDL_Rect()
    if sdl2.SDL_GetDisplayUsableBounds(0, ctypes.byref(room)) != 0:
        return _START
    return min(_START[0], room.w), min(_START[1], room.h)
