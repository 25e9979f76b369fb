"""Errors of export/ that a user can act on."""

from streaming.errors import InputError


class ExportError(InputError):
    """A model or graph that cannot be exported as asked. The message is one line with the fix."""
