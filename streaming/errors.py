"""What can go wrong with what a user hands in; the message is one line and names the fix.

    ValueError
      InputError        wrong input of any kind; the command line prints it and exits with 2
        BundleError     a bundle folder that is damaged, foreign or of another schema
        AudioError      an audio file, device or array that holds no usable sound

Anything else that is raised is our own fault.
"""


class InputError(ValueError):
    """Input the user can correct. The message is one line and names the fix."""


class BundleError(InputError):
    """A bundle that is damaged, foreign or of another schema."""


class AudioError(InputError):
    """Audio that is missing, empty, truncated or not finite."""
