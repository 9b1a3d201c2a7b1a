"""What must not happen to a session; a defect of Homeport whenever it does."""

from __future__ import annotations

from chalicelib.errors import HomeportError


class IllegalTransition(HomeportError):
    """An event the state has no transition for, or an effect that its session cannot need. Always a defect."""
