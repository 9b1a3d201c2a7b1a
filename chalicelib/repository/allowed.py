"""stub"""


def is_pattern(text: str) -> bool:
    return True


def is_allowed(source: object, allowed: object, banned: object) -> bool:
    return True
