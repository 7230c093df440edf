"""A live window, by pygame. The only module that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from ld_runtime.errors import BackendMissingError, LdDeployError

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray


class Window:
    """A window that shows images; use it inside `with`, in the main thread.

    Args:
        title: of the window.

    Raises:
        BackendMissingError: pygame-ce is not installed.
        LdDeployError: There is no display.
    """

    def __init__(self, title: str) -> None:
        try:
            import pygame
        except ImportError as error:
            raise BackendMissingError("a window needs pygame-ce: pip install 'ld-deploy[window]'") from error
        self._pygame = pygame
        self._title = title
        self._hw: tuple[int, int] | None = None
        try:
            pygame.display.init()
        except pygame.error as error:
            message = f"no display to show a window on ({error})"
            raise LdDeployError(f"{message}: leave --show out, the annotated video is written all the same") from error

    def __enter__(self) -> Window:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pygame.display.quit()

    def show(self, image: NDArray[np.uint8]) -> bool:
        """Shows an image; the window takes its size.

        Args:
            image: uint8 (H, W, 3), BGR.

        Returns:
            False when the window was closed, or `q` or Escape was pressed.

        Raises:
            LdDeployError: The display is gone.
        """
        pygame = self._pygame
        height, width = image.shape[:2]
        try:
            if self._hw != (height, width):
                self._hw = (height, width)
                pygame.display.set_mode((width, height))
                pygame.display.set_caption(self._title)
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            surface = pygame.image.frombuffer(rgb.tobytes(), (width, height), "RGB")
            pygame.display.get_surface().blit(surface, (0, 0))
            pygame.display.flip()
            events = pygame.event.get()
        except pygame.error as error:
            raise LdDeployError(f"cannot show the window: {error}") from error
        return not any(
            one.type == pygame.QUIT or (one.type == pygame.KEYDOWN and one.key in (pygame.K_q, pygame.K_ESCAPE))
            for one in events
        )
