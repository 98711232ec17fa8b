"""What a user can mend is said in one line."""


class KerasBertError(ValueError):
    """Something that was asked for cannot be done; the message says what, where, and what to do next."""

    is_for_the_user = True
